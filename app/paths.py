"""Camera paths in the training frame: one view, the held-out views, an orbit, or keyframes from a file.

A keyframe file is JSON: {"frame": "source" (default) or "local", "fps": 30, "keyframes": [...]}; each keyframe has
"seconds", and either "camera_to_world" (4x4, OpenCV axes) or "position" and "look_at" (and "up"), and may have
"fov_y_degrees". Positions follow a cubic spline, orientations a rotation spline.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline, make_interp_spline
from scipy.spatial.transform import Rotation, RotationSpline

from anchorfield.app import files
from anchorfield.app.settings import nearest
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.scenes.scene import Scene

Array = NDArray[np.float64]
MOST_FRAMES = 100_000


def view(scene: Scene, which: str) -> tuple[str, Camera]:
    """Name and camera of a view by name (with or without ending) or index; raises UsageError naming the nearest one."""
    names = [view.name for view in scene.views]
    stems = [Path(name).stem for name in names]
    if which in names:
        index = names.index(which)
    elif stems.count(which) == 1:
        index = stems.index(which)
    elif which.isdigit() and int(which) < len(names):
        index = int(which)
    else:
        raise UsageError(f"no view '{which}' among {len(names)}.{nearest(which, names)}")
    return names[index], scene.views[index].camera


def held_out(scene: Scene) -> list[tuple[str, Camera]]:
    """The held-out views by name."""
    if not scene.test:
        raise DataError(f"{scene.path} has no held-out views: use --view or --orbit")
    return [(scene.views[index].name, scene.views[index].camera) for index in scene.test]


def orbit(scene: Scene, count: int) -> list[Camera]:
    """`count` cameras on a circle about what the training cameras look at, at their mean height and distance."""
    if count < 1:
        raise UsageError(f"--orbit needs at least 1 frame, got {count}")
    cameras = [scene.views[index].camera for index in scene.train]
    poses = np.stack([camera.camera_to_world.detach().double().numpy() for camera in cameras])
    centre, up = _focus(poses), _unit(-poses[:, :3, 1].mean(axis=0))
    offsets = poses[:, :3, 3] - centre
    height = float((offsets @ up).mean())
    flat = offsets - (offsets @ up)[:, None] * up
    radius = float(np.linalg.norm(flat, axis=1).mean())
    first = _unit(flat[int(np.argmax(np.linalg.norm(flat, axis=1)))])
    second = np.cross(up, first)
    angles = 2 * np.pi * np.arange(count) / count
    eyes = [centre + height * up + radius * (np.cos(a) * first + np.sin(a) * second) for a in angles]
    return [_posed(cameras[0], look_at(eye, centre, up)) for eye in eyes]


def keyframes(path: Path, like: Camera, source_from_world: Array) -> tuple[list[Camera], float]:
    """The cameras of a keyframe file, sampled at its frame rate, and that rate; sizes and field of view as `like`."""
    content = files.read_json(path)
    try:
        frame, fps, keys = content.get("frame", "source"), float(content.get("fps", 30)), content["keyframes"]
        times = np.array([float(key.get("seconds", index)) for index, key in enumerate(keys)])
        poses = np.stack([_pose(key) for key in keys])
        angles = np.array([float(key.get("fov_y_degrees", _fov_y(like))) for key in keys])
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise DataError(f"{path} is not a keyframe file: {type(problem).__name__}: {problem}") from problem
    _check_keyframes(path, frame, fps, times, poses, angles)
    if frame == "source":
        poses = _into(poses, np.asarray(np.linalg.inv(source_from_world), dtype=np.float64))
    if len(times) == 1:
        return [_zoomed(_posed(like, poses[0]), angles[0])], fps
    count = round(float(times[-1] - times[0]) * fps) + 1
    if count > MOST_FRAMES:
        raise DataError(f"{path} asks for {count} frames; at most {MOST_FRAMES} are allowed")
    moments = np.linspace(times[0], times[-1], count)
    matrices = np.tile(np.eye(4), (count, 1, 1))
    matrices[:, :3, :3] = RotationSpline(times, Rotation.from_matrix(poses[:, :3, :3]))(moments).as_matrix()
    matrices[:, :3, 3] = _curve(times, poses[:, :3, 3])(moments)
    zooms = make_interp_spline(times, angles, k=1)(moments)
    return [_zoomed(_posed(like, pose), zoom) for pose, zoom in zip(matrices, zooms, strict=True)], fps


def look_at(eye: Array, target: Array, up: Array) -> Array:
    """The pose (camera to world) at `eye` that looks at `target` with `up` upwards in the image."""
    forward = _unit(target - eye)
    right = np.cross(forward, up)
    if np.linalg.norm(right) < 1e-9:  # looking along `up`: any right will do
        right = np.cross(forward, np.roll(np.abs(forward) < 0.9, 1).astype(np.float64))
    right = _unit(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(forward, right), forward, eye], axis=1)
    return pose


def _check_keyframes(path: Path, frame: Any, fps: float, times: Array, poses: Array, angles: Array) -> None:
    if frame not in ("source", "local"):
        raise DataError(f'{path}: frame is "source" or "local", got {frame!r}')
    if not (0 < fps <= 1000):
        raise DataError(f"{path}: fps must be above 0 and at most 1000, got {fps}")
    if not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
        raise DataError(f"{path}: the keyframes' seconds must increase, got {times.tolist()}")
    if not np.isfinite(poses).all() or (np.linalg.det(poses[:, :3, :3]) < 1e-6).any():
        raise DataError(f"{path}: a keyframe's pose is not finite or not a rotation")
    if not ((angles > 0) & (angles < 180)).all():
        raise DataError(f"{path}: fov_y_degrees must be between 0 and 180, got {angles.tolist()}")


def _pose(key: dict[str, Any]) -> Array:
    if "camera_to_world" in key:
        return np.asarray(key["camera_to_world"], dtype=np.float64).reshape(4, 4)
    eye, target = (np.asarray(key[name], dtype=np.float64).reshape(3) for name in ("position", "look_at"))
    if np.allclose(eye, target):
        raise ValueError("position and look_at are equal")
    return look_at(eye, target, np.asarray(key.get("up", (0.0, -1.0, 0.0)), dtype=np.float64).reshape(3))


def _into(poses: Array, similarity: Array) -> Array:
    """Poses under a similarity; cameras keep unit axes."""
    moved = similarity @ poses
    moved[:, :3, :3] /= np.cbrt(np.linalg.det(moved[:, :3, :3]))[:, None, None]
    return np.asarray(moved)


def _curve(times: Array, points: Array) -> Any:
    return CubicSpline(times, points) if len(times) > 2 else make_interp_spline(times, points, k=1)


def _focus(poses: Array) -> Array:
    """The point nearest to all optical axes, in the least-squares sense."""
    axes, eyes = poses[:, :3, 2], poses[:, :3, 3]
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    system, right = across.sum(axis=0), (across @ eyes[:, :, None])[:, :, 0].sum(axis=0)
    if np.linalg.cond(system) > 1e6:  # parallel axes meet nowhere: look one unit ahead
        return np.asarray((eyes + axes).mean(axis=0))
    return np.linalg.solve(system, right)


def _posed(like: Camera, camera_to_world: Array) -> Camera:
    return replace(like, world_to_camera=torch.from_numpy(np.linalg.inv(camera_to_world)).float())


def _zoomed(camera: Camera, fov_y_degrees: float) -> Camera:
    factor = camera.height / 2 / np.tan(np.radians(fov_y_degrees) / 2) / camera.fy
    return replace(camera, fx=float(camera.fx * factor), fy=float(camera.fy * factor))


def _fov_y(camera: Camera) -> float:
    return float(np.degrees(2 * np.arctan(camera.height / 2 / camera.fy)))


def _unit(vector: Array) -> Array:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12))
