"""The browser's world: cameras go there and come back, and what a browser reports is checked; hotkeys are unique."""

from __future__ import annotations

import math
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from anchorfield.app.placement import mean_up
from anchorfield.app.view import frame
from anchorfield.app.view.app import Viewer, fitting_fov
from anchorfield.app.view.document import open_document
from anchorfield.app.view.server import start
from anchorfield.renderer.cameras import Camera, focus


def camera_at(position: tuple[float, float, float], target: tuple[float, float, float]) -> Camera:
    """A camera that looks at a point, with minus y up."""
    forward = np.subtract(target, position) / np.linalg.norm(np.subtract(target, position))
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])  # rows: world to camera
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, -rotation @ np.asarray(position)
    return Camera(torch.from_numpy(matrix).float(), 90.0, 90.0, 80.0, 60.0, 160, 120)


RING = [camera_at((math.cos(a), -0.3, math.sin(a)), (0.1, 0.0, 0.2)) for a in np.linspace(0, 6, 9)]


@pytest.mark.parametrize("camera", RING)
def test_a_camera_comes_back_from_the_browser(camera: Camera) -> None:
    position, wxyz = frame.place(camera)
    pose = SimpleNamespace(position=position, wxyz=wxyz, fov=frame.vertical_fov(camera))
    back = frame.camera_of(pose, camera.width, camera.height)
    assert torch.allclose(back.world_to_camera, camera.world_to_camera, atol=1e-5)
    assert (back.fx, back.fy) == pytest.approx((90.0, 90.0))
    assert np.allclose(frame.to_local(frame.to_viser([1.0, 2.0, 3.0])[0]), [1, 2, 3])


@pytest.mark.parametrize(
    "wrong",
    [
        {"position": np.array([0.0, math.nan, 0.0])},
        {"position": np.zeros(2)},
        {"wxyz": np.zeros(4)},
        {"wxyz": np.array([1.0, math.inf, 0.0, 0.0])},
        {"fov": 0.0},
        {"fov": 4.0},
        {"fov": math.nan},
    ],
)
def test_what_is_no_camera_is_refused(wrong: dict[str, object]) -> None:
    good = {"position": np.zeros(3), "wxyz": np.array([1.0, 0, 0, 0]), "fov": 1.0}
    frame.camera_of(SimpleNamespace(**good), 64, 48)
    with pytest.raises(ValueError, match="camera"):
        frame.camera_of(SimpleNamespace(**(good | wrong)), 64, 48)
    with pytest.raises(ValueError, match="camera"):
        frame.camera_of(SimpleNamespace(**good), 0, 48)


def test_what_photographs_look_at_and_which_way_is_up() -> None:
    assert np.allclose(focus(RING), [0.1, 0.0, 0.2], atol=1e-3)
    up = np.asarray(mean_up(RING))
    assert up @ [0.0, -1.0, 0.0] > 0.99
    assert np.allclose(mean_up([]), [0, -1, 0])
    position, target = frame.first_look(RING, up)
    assert any(np.allclose(position, camera.centre, atol=1e-5) for camera in RING)
    assert np.allclose(target, [0.1, 0.0, 0.2], atol=1e-3)
    assert frame.orbit_distance(RING[0], target) == pytest.approx(
        float(np.linalg.norm(target - RING[0].centre.numpy()))
    )


def test_a_capture_that_looks_outwards_starts_along_its_own_axis() -> None:
    outwards = [camera_at((0, 0, 0), (math.cos(a), 0.0, math.sin(a))) for a in (0.1, 0.2, 0.3)]
    position, target = frame.first_look(outwards, np.asarray(mean_up(outwards)))
    assert float(np.linalg.norm(target - position)) == pytest.approx(1.0)


def test_a_window_of_any_shape_shows_all_of_a_photo() -> None:
    camera = RING[0]
    assert fitting_fov(camera, 160 / 120) == pytest.approx(frame.vertical_fov(camera))
    assert fitting_fov(camera, 4.0) == pytest.approx(frame.vertical_fov(camera))
    tall = fitting_fov(camera, 0.5)
    assert math.tan(tall / 2) * 0.5 == pytest.approx(camera.width / camera.fx / 2)


def test_hotkeys_are_unique_and_leave_walking_and_the_palette_alone() -> None:
    with start(port=0) as serving:
        viewer = Viewer(serving, open_document(None))  # every panel has registered its own: a clash would have raised
        try:
            for taken in ("W", "shift+A", "P", "cmd/ctrl+K"):
                with pytest.raises(ValueError, match="hotkey"):
                    viewer.command("Another", taken, lambda client: None)
        finally:
            viewer.close()


def test_actions_run_in_order_and_outlive_their_errors(capsys: pytest.CaptureFixture[str]) -> None:
    done: list[int] = []
    with start(port=0) as serving:
        viewer = Viewer(serving, open_document(None))
        try:

            def fail() -> str:
                raise RuntimeError("a fault")

            viewer.act("Fail", fail)
            for number in range(5):
                viewer.act("Count", lambda number=number: done.append(number))  # type: ignore[misc]
            ended = threading.Event()
            viewer.act("End", ended.set)  # type: ignore[arg-type]
            assert ended.wait(10)
        finally:
            viewer.close()
    assert done == [0, 1, 2, 3, 4]
    assert "a fault" in capsys.readouterr().err
