"""Sparse points for captures that have poses but no points, found in their training photographs at the given poses.

The work happens in another process (`triangulate_worker`); whatever goes wrong there costs the points, not the run.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from anchorfield.renderer.cameras import Camera
from anchorfield.scenes.atomic import replacing
from anchorfield.scenes.capture import Array
from anchorfield.scenes.scene import Points, Scene, View

LONGEST_SIDE = 1000  # pixels of the images in which features are sought
NEAREST = 8  # views to match each view with ...
FURTHER = (10, 13, 17, 22)  # ... and some by rank of nearness: wide baselines make points precise
WIDEST_TURN = 75.0  # degrees between two viewing directions that can share features

_FORMAT = b"anchorfield points 1"


def triangulated_points(scene: Scene, cache: Path, report: Callable[[str], None] | None = None) -> Points | None:
    """Points in the training frame, from the training views only; None (with a warning) where that fails.

    They are kept in the file `cache` and read from there as long as names, sizes and cameras are the same. `report` is
    told of the progress, a line at a time.
    """
    tell = report or (lambda line: None)
    views = [scene.views[index] for index in scene.train]
    cameras = [_sized(view) for view in views]
    key = _key(views, cameras)
    kept = _read(cache, key)
    if kept is not None:
        tell(f"{len(kept.xyz)} points from {cache}")
        return kept
    cache.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".triangulation-", dir=cache.parent) as folder:
        _write_job(Path(folder), scene, views, cameras, tell)
        points = _worked(Path(folder), tell)
    if points is not None:
        with replacing(cache) as file:
            np.savez(file, key=np.array(key), xyz=points.xyz, rgb=points.rgb)
    return points


def pairs_to_match(poses: Array) -> NDArray[np.int64]:
    """Pairs [m, 2] of views that plausibly see the same, from world_to_camera poses [n, 4, 4]."""
    rotations, directions = poses[:, :3, :3], poses[:, 2, :3]
    centres = -np.einsum("nji,nj->ni", rotations, poses[:, :3, 3])
    distance = np.linalg.norm(centres[:, None] - centres, axis=-1)
    turn = np.arccos(np.clip(directions @ directions.T, -1, 1))
    farness = distance / max(float(np.median(distance)), 1e-12) + turn
    farness[turn > np.radians(WIDEST_TURN)] = np.inf
    np.fill_diagonal(farness, np.inf)
    ranks = [rank for rank in (*range(NEAREST), *FURTHER) if rank < len(poses) - 1]
    order = np.argsort(farness, axis=1, kind="stable")[:, ranks]
    pairs = {
        (min(first, int(second)), max(first, int(second)))
        for first, row in enumerate(order)
        for second in row
        if np.isfinite(farness[first, second])
    }
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def _sized(view: View) -> Camera:
    """The view's camera for the images in which features are sought."""
    width, height = view.photo_size if view.load_at else (view.camera.width, view.camera.height)
    share = min(1.0, LONGEST_SIDE / max(width, height))
    return view.camera.resized(max(1, round(width * share)), max(1, round(height * share)))


def _key(views: list[View], cameras: list[Camera]) -> str:
    """Changes with whatever the points depend on."""
    digest = hashlib.sha256(_FORMAT)
    for view, camera in zip(views, cameras, strict=True):
        digest.update(f"{view.name}\0{camera.width}x{camera.height}\0".encode("utf-8", "surrogateescape"))
        numbers = np.array([camera.fx, camera.fy, camera.cx, camera.cy], np.float32)
        digest.update(numbers.tobytes() + camera.world_to_camera.numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def _read(cache: Path, key: str) -> Points | None:
    """The points of a file with this key; a file that is old, damaged or missing holds none."""
    try:
        with open(cache, "rb") as file, np.load(file, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return None
            points = Points(stored["xyz"], stored["rgb"])
    except Exception:  # np.load raises nearly anything on damaged files; the points are simply made again
        return None
    fits = points.xyz.shape == points.rgb.shape and points.xyz.shape[1:] == (3,) and np.isfinite(points.xyz).all()
    return points if fits and points.xyz.dtype == np.float32 and points.rgb.dtype == np.uint8 else None


def _write_job(
    folder: Path, scene: Scene, views: list[View], cameras: list[Camera], tell: Callable[[str], None]
) -> None:
    """Images, masks and cameras for the worker."""
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    tell(f"preparing {len(views)} images")
    names = [f"{index:06d}.jpg" for index in range(len(views))]
    for name, view, camera in zip(names, views, cameras, strict=True):
        rgb, mask = _image(scene, view, camera)
        cv2.imwrite(str(folder / "images" / name), rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 97])
        if mask is not None:
            cv2.imwrite(str(folder / "masks" / f"{name}.png"), mask)
    poses = np.stack([camera.world_to_camera.numpy().astype(np.float64) for camera in cameras])
    np.savez(
        folder / "job.npz",
        names=np.array(names),
        poses=poses,
        calibrations=np.stack([camera.K.numpy().astype(np.float64) for camera in cameras]),
        sizes=np.array([(camera.width, camera.height) for camera in cameras]),
        pairs=pairs_to_match(poses),
    )


def _image(scene: Scene, view: View, camera: Camera) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Pixels [H, W, 3] over the background, and the part in which features may lie (255), if not everywhere.

    Outlines against nothing look alike from everywhere and are no points: a border of 2 pixels is left out.
    """
    pixels = (view.load_at(camera.width, camera.height) if view.load_at else view.load()).numpy()
    mask = np.full(pixels.shape[:2], 255, np.uint8)
    if view.load_mask is not None:
        smaller = view.load_mask().numpy().astype(np.uint8) * 255
        mask = np.asarray(cv2.resize(smaller, (camera.width, camera.height), interpolation=cv2.INTER_NEAREST), np.uint8)
    if pixels.shape[-1] == 4:
        mask[pixels[..., 3] < 250] = 0
        alpha = pixels[..., 3:] / np.float32(255)
        over = pixels[..., :3] * alpha + 255 * np.array(scene.background, np.float32) * (1 - alpha)
        pixels = np.rint(over).astype(np.uint8)
    everywhere = bool(mask.all())
    return pixels, None if everywhere else np.asarray(cv2.erode(mask, np.ones((5, 5), np.uint8)), np.uint8)


def _worked(folder: Path, tell: Callable[[str], None]) -> Points | None:
    """The worker's points; None where it failed."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    log = folder / "log.txt"
    with open(log, "wb") as errors:
        worker = subprocess.Popen(
            [sys.executable, "-m", "anchorfield.scenes.triangulate_worker", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **one_thread},
            text=True,
        )
    try:
        assert worker.stdout is not None
        for line in worker.stdout:
            tell(line.rstrip())
        status = worker.wait()
    finally:  # also when interrupted
        worker.kill()
        worker.communicate()
    if status != 0:
        said = [line for line in log.read_text(errors="replace").splitlines() if line.strip() and "    @" not in line]
        last = said[-1].strip()[:300] if said else "no message"
        warnings.warn(f"no points could be triangulated (status {status}: {last})", stacklevel=3)
        return None
    with np.load(folder / "points.npz", allow_pickle=False) as stored:
        return Points(stored["xyz"].astype(np.float32), stored["rgb"])
