"""Camera paths: keyframes are added, moved, timed, written and read back, and rendered as a job."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from captures import ring
from hypothesis import given
from hypothesis import strategies as st

from anchorfield.app import paths, pictures
from anchorfield.app.jobs import Queue
from anchorfield.app.paths import CameraPath
from anchorfield.app.run import FrameOfReference
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.renderer.types import Frame

LIKE = Camera(torch.eye(4), 30.0, 31.0, 16.0, 12.0, 32, 24)


def camera(index: int, fov: float = 50.0) -> Camera:
    focal = LIKE.height / 2 / math.tan(math.radians(fov) / 2)
    return Camera(torch.from_numpy(ring(7)[index]).float(), focal, focal, 16.0, 12.0, 32, 24)


def through(*indices: int) -> CameraPath:
    path = CameraPath()
    for index in indices:
        path = path.added(camera(index))
    return path


def drawn(camera: Camera) -> Frame:
    flat = torch.zeros(camera.height, camera.width)
    return Frame(torch.full((camera.height, camera.width, 3), 0.5), flat, flat)


def similar() -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = 3.0 * np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    matrix[:3, 3] = (1, -2, 3)
    return matrix


def world(frame: FrameOfReference) -> np.ndarray:
    return similar() if frame == "source" else np.eye(4)


def same(first: CameraPath, second: CameraPath) -> bool:
    if (first.fps, first.tension, len(first.keyframes)) != (second.fps, second.tension, len(second.keyframes)):
        return False
    return all(
        a.seconds == b.seconds
        and a.fov_y_degrees == b.fov_y_degrees
        and np.allclose(a.camera_to_world, b.camera_to_world, rtol=0, atol=1e-6)
        for a, b in zip(first.keyframes, second.keyframes, strict=True)
    )


@pytest.mark.parametrize("frame", ["source", "local"])
def test_a_path_is_read_back_as_it_was_written(frame: FrameOfReference, tmp_path: Path) -> None:
    path = CameraPath(fps=24.0, tension=0.25).added(camera(0), 0.5).added(camera(2, 35.0), 2.0).added(camera(3))
    paths.write(tmp_path / "deep" / "path.json", path, world(frame), frame)
    assert same(path, paths.read(tmp_path / "deep" / "path.json", 10.0, world))


@given(st.floats(0, 1))
def test_the_way_passes_through_its_keyframes(tension: float) -> None:
    path = CameraPath(tension=tension).added(camera(0, 40.0), 0).added(camera(1, 60.0), 1).added(camera(4, 50.0), 3)
    for key, (index, fov) in zip(path.keyframes, ((0, 40.0), (1, 60.0), (4, 50.0)), strict=True):
        found = path.camera_at(key.seconds, LIKE)
        assert torch.allclose(found.world_to_camera, camera(index).world_to_camera, atol=1e-5)
        assert paths.fov_y(found) == pytest.approx(fov)
        assert (found.width, found.height) == (LIKE.width, LIKE.height)


def test_tension_draws_the_way_straight() -> None:
    straight = CameraPath(tension=1.0).added(camera(0), 0).added(camera(2), 1).added(camera(5), 2)
    middle = (camera(0).centre + camera(2).centre) / 2
    assert torch.allclose(straight.camera_at(0.5, LIKE).centre, middle, atol=1e-5)
    curved = CameraPath(tension=0.0).added(camera(0), 0).added(camera(2), 1).added(camera(5), 2)
    assert not torch.allclose(curved.camera_at(0.5, LIKE).centre, middle, atol=1e-2)


def test_keyframes_are_added_removed_moved_and_timed() -> None:
    path = through(0, 1, 2)
    assert [key.seconds for key in path.keyframes] == [0, 2, 4]
    assert (path.seconds, path.frames) == (4, 121)
    assert len(path.cameras(LIKE)) == 121
    assert [key.seconds for key in path.removed(1).keyframes] == [0, 4]
    moved = path.moved(1, camera(5, 30.0)).keyframes[1]
    assert (moved.seconds, moved.fov_y_degrees) == (2, pytest.approx(30))
    assert [key.seconds for key in path.retimed(0, 3.0).keyframes] == [2, 3, 4]
    assert path.zoomed(2, 20.0).keyframes[2].fov_y_degrees == 20
    assert [key.seconds for key in path.lasting(1.0).keyframes] == [0, 0.5, 1]
    assert path.camera_at(99.0, LIKE).world_to_camera.equal(path.camera_at(4.0, LIKE).world_to_camera)
    assert [key.seconds for key in path.keyframes] == [0, 2, 4]  # as it was


@pytest.mark.parametrize(
    "wrong",
    [
        lambda path: path.removed(3),
        lambda path: path.moved(-1, camera(0)),
        lambda path: path.retimed(0, 2.0),
        lambda path: path.retimed(0, math.nan),
        lambda path: path.zoomed(0, 180.0),
        lambda path: path.added(camera(0), 4.0),
        lambda path: path.lasting(1e9),
        lambda path: path.lasting(-1.0),
        lambda path: CameraPath().cameras(LIKE),
        lambda path: CameraPath().camera_at(0, LIKE),
        lambda path: through(0).lasting(1.0),
        lambda path: CameraPath(fps=0),
        lambda path: CameraPath(tension=2),
    ],
)
def test_what_makes_no_sense_is_told(wrong: Callable[[CameraPath], object]) -> None:
    with pytest.raises(UsageError):
        wrong(through(0, 1, 2))


def test_a_file_of_an_unknown_frame_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"frame": "moon", "keyframes": []}')
    with pytest.raises(DataError, match="source, local, placed"):
        paths.read(tmp_path / "x.json", 50.0, world)


@pytest.mark.parametrize("out", ["film.mp4", "frames"])
def test_a_path_is_rendered_as_a_job(out: str, tmp_path: Path) -> None:
    path = CameraPath(fps=5).added(camera(0), 0).added(camera(1), 1)
    named = [(f"{index:05d}", each) for index, each in enumerate(path.cameras(LIKE))]
    queue = Queue()
    job = queue.add("Film", pictures.rendering(drawn, named, tmp_path / out, path.fps))
    written = job.wait(60)
    assert job.sentence == "frame 6 of 6"
    if out == "frames":
        assert sorted(written) == sorted((tmp_path / "frames").iterdir())
        assert len(written) == 6
    else:
        assert written == [tmp_path / out]
        film = cv2.VideoCapture(str(tmp_path / out))
        assert film.get(cv2.CAP_PROP_FRAME_COUNT) == 6
        assert film.get(cv2.CAP_PROP_FPS) == 5
        film.release()
    queue.close()


def test_a_cancelled_film_leaves_nothing_behind(tmp_path: Path) -> None:
    path = CameraPath(fps=5).added(camera(0), 0).added(camera(1), 1)
    named = [(f"{index:05d}", each) for index, each in enumerate(path.cameras(LIKE))]
    steps = pictures.rendering(drawn, named, tmp_path / "film.mp4", path.fps)
    assert next(steps) == (1 / 6, "frame 1 of 6")
    steps.close()
    assert list(tmp_path.iterdir()) == []
