"""The worker of `triangulate`: `python -m anchorfield.scenes.triangulate_worker FOLDER`.

A process of its own, because pycolmap ends the process it runs in when something is wrong. The folder holds `job.npz`
(names, poses, calibrations, sizes, pairs), `images/` and `masks/`; `points.npz` is written into it. Progress goes to
the standard output, a line each.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import pycolmap
from numpy.typing import NDArray

from anchorfield.scenes.guided_matching import FEWEST_MATCHES, Array, Features, features, fundamental, matches

LARGEST_ERROR = 2.0  # pixels
SMALLEST_ANGLE = 1.5  # degrees between the rays of a point

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class Job:
    """What the parent process wrote."""

    names: list[str]  # [n] files in images/
    poses: Array  # [n, 4, 4] world_to_camera
    calibrations: Array  # [n, 3, 3]
    sizes: NDArray[np.int64]  # [n, 2] width, height
    pairs: list[tuple[int, int]]  # views to match


def main(folder: Path) -> None:
    """Features, matches, triangulation, points file."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)  # one image per thread is faster than several threads in one image
    job = read_job(folder / "job.npz")
    found = list(_in_parallel("finding features", job.names, lambda name: _features(folder, name)))
    matched = list(_in_parallel("matching", job.pairs, lambda pair: _matches(job, found, pair)))
    print("triangulating", flush=True)
    good = [(pair, index) for pair, index in zip(job.pairs, matched, strict=True) if len(index) >= FEWEST_MATCHES]
    xyz, rgb = triangulated(folder, job, found, good)
    np.savez(folder / "points.npz", xyz=xyz, rgb=rgb)


def read_job(path: Path) -> Job:
    """The job of a file."""
    with np.load(path, allow_pickle=False) as stored:
        return Job(
            [str(name) for name in stored["names"]],
            stored["poses"],
            stored["calibrations"],
            stored["sizes"],
            [(int(a), int(b)) for a, b in stored["pairs"]],
        )


def triangulated(
    folder: Path, job: Job, found: list[Features], matched: list[tuple[tuple[int, int], NDArray[np.uint32]]]
) -> tuple[Array, NDArray[np.uint8]]:
    """Points [N, 3] and colours [N, 3] from matches, at the poses of the job, without the doubtful ones."""
    database, model = folder / "features.db", pycolmap.Reconstruction()
    with pycolmap.Database.open(database) as store:
        for index in range(len(job.names)):
            _add_view(store, model, job, index)
            store.write_keypoints(index + 1, found[index].xy)
        for (first, second), agreeing in matched:
            geometry = pycolmap.TwoViewGeometry()
            geometry.config, geometry.inlier_matches = pycolmap.TwoViewGeometryConfiguration.CALIBRATED, agreeing
            store.write_matches(first + 1, second + 1, agreeing)
            store.write_two_view_geometry(first + 1, second + 1, geometry)
    (folder / "model").mkdir(exist_ok=True)
    solved = pycolmap.triangulate_points(model, database, folder / "images", folder / "model", options=_options())
    pycolmap.ObservationManager(solved).filter_all_points3D(LARGEST_ERROR, SMALLEST_ANGLE)
    points = [point for _, point in sorted(solved.points3D.items())]
    xyz = np.array([point.xyz for point in points], np.float64).reshape(-1, 3)
    return xyz, np.array([point.color for point in points], np.uint8).reshape(-1, 3)


def _options() -> pycolmap.IncrementalPipelineOptions:
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = options.triangulation.random_seed = options.mapper.random_seed = 0
    # The known poses vouch for points that only two views see: they are half of all.
    options.triangulation.ignore_two_view_tracks = False
    options.triangulation.min_angle = SMALLEST_ANGLE
    return options


def _add_view(store: pycolmap.Database, model: pycolmap.Reconstruction, job: Job, index: int) -> None:
    """One view in both the database and the model; pycolmap counts from 1 and wants a rig and a frame around each."""
    number, k, (width, height) = index + 1, job.calibrations[index], job.sizes[index]
    params = [k[0, 0], k[1, 1], k[0, 2], k[1, 2]]
    lens = pycolmap.Camera(camera_id=number, model="PINHOLE", width=width, height=height, params=params)
    image = pycolmap.Image(name=job.names[index], camera_id=number, image_id=number)
    rig, frame = pycolmap.Rig(rig_id=number), pycolmap.Frame(frame_id=number, rig_id=number)
    rig.add_ref_sensor(lens.sensor_id)
    frame.add_data_id(image.data_id)
    store.write_camera(lens, use_camera_id=True)
    store.write_rig(rig, use_rig_id=True)
    store.write_image(image, use_image_id=True)
    store.write_frame(frame, use_frame_id=True)
    model.add_camera_with_trivial_rig(lens)
    posed = pycolmap.Image(name=job.names[index], camera_id=number, image_id=number)
    model.add_image_with_trivial_frame(posed, pycolmap.Rigid3d(job.poses[index, :3]))


def _features(folder: Path, name: str) -> Features:
    grey = cv2.imread(str(folder / "images" / name), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise FileNotFoundError(name)
    mask_path = folder / "masks" / f"{name}.png"
    mask = cv2.imread(str(mask_path), cv2.IMREAD_GRAYSCALE) if mask_path.is_file() else None
    return features(np.asarray(grey, np.uint8), None if mask is None else np.asarray(mask, np.uint8))


def _matches(job: Job, found: list[Features], pair: tuple[int, int]) -> NDArray[np.uint32]:
    a, b = pair
    epipolar = fundamental(job.poses[a], job.calibrations[a], job.poses[b], job.calibrations[b])
    return matches(found[a], found[b], epipolar)


def _in_parallel(what: str, items: list[_In], work: Callable[[_In], _Out]) -> Iterator[_Out]:
    """Results in order, with a line of progress about every tenth of the way."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results: Iterable[_Out] = pool.map(work, items)
        for index, result in enumerate(results, 1):
            if index % max(1, len(items) // 10) == 0:
                print(f"{what}: {index} of {len(items)}", flush=True)
            yield result


def _end_with_parent() -> None:
    """The parent holds our standard input open; when that closes, it is gone, and the work is for nobody."""
    while os.read(0, 1):  # unbuffered: a lock on sys.stdin would make the interpreter abort when it ends
        pass
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
