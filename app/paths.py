"""Camera paths in the training frame: one view, the held-out views, an orbit, or keyframes from a file.

A keyframe file is JSON: {"frame": "source", "fps": 30, "tension": 0, "keyframes": [...]}. The frame is "source" where
none is given, "local" or "placed". Each keyframe has "seconds", and either "camera_to_world" (4x4, OpenCV axes) or
"position" and "look_at" (and "up", where it is not z in the placed frame or minus y in the others), and may have
"fov_y_degrees". Positions follow a cubic spline (with tension 1 straight lines, in between a blend), orientations a
rotation spline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, RotationSpline

from anchorfield.app import files
from anchorfield.app.run import FrameOfReference
from anchorfield.app.settings import nearest
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.scenes.scene import Scene

Array = NDArray[np.float64]
MOST_FRAMES = 100_000
FRAMES: tuple[str, ...] = get_args(FrameOfReference)
SECONDS_BETWEEN = 2.0  # keyframes that are added one after another


@dataclass(frozen=True)
class Keyframe:
    """Where a camera is at a moment, in the training frame."""

    seconds: float
    camera_to_world: Array  # [4, 4], OpenCV axes
    fov_y_degrees: float


@dataclass(frozen=True)
class CameraPath:
    """A camera's way through keyframes, in the training frame; each function gives a new path.

    Raises UsageError in words where the keyframes make no sense.
    """

    keyframes: tuple[Keyframe, ...] = ()
    fps: float = 30.0
    tension: float = 0.0  # 0: a smooth curve, 1: straight lines

    def __post_init__(self) -> None:
        times = np.array([key.seconds for key in self.keyframes])
        angles = np.array([key.fov_y_degrees for key in self.keyframes])
        poses = [np.asarray(key.camera_to_world, dtype=np.float64) for key in self.keyframes]
        if not (0 < self.fps <= 1000):
            raise UsageError(f"fps must be above 0 and at most 1000, got {self.fps}")
        if not (0 <= self.tension <= 1):
            raise UsageError(f"tension must be between 0 and 1, got {self.tension}")
        if not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
            raise UsageError(f"the keyframes' seconds must increase, got {times.tolist()}")
        for pose in poses:
            if pose.shape != (4, 4) or not np.isfinite(pose).all() or np.linalg.det(pose[:3, :3]) < 1e-6:
                raise UsageError("a keyframe's pose is not finite or not a rotation")
        if not ((angles > 0) & (angles < 180)).all():
            raise UsageError(f"fov_y_degrees must be between 0 and 180, got {angles.tolist()}")
        if self.frames > MOST_FRAMES:
            raise UsageError(f"{self.frames} frames are asked for; at most {MOST_FRAMES} are allowed")

    @property
    def seconds(self) -> float:
        """From the first keyframe to the last."""
        return self.keyframes[-1].seconds - self.keyframes[0].seconds if self.keyframes else 0.0

    @property
    def frames(self) -> int:
        """How many pictures it gives at its frame rate."""
        return round(self.seconds * self.fps) + 1 if self.keyframes else 0

    def added(self, camera: Camera, seconds: float | None = None) -> CameraPath:
        """With a keyframe more: at the end where no moment is given."""
        last = self.keyframes[-1].seconds + SECONDS_BETWEEN if self.keyframes else 0.0
        return self._with((*self.keyframes, keyframe(camera, last if seconds is None else seconds)))

    def removed(self, index: int) -> CameraPath:
        """Without a keyframe."""
        self._check(index)
        return replace(self, keyframes=self.keyframes[:index] + self.keyframes[index + 1 :])

    def moved(self, index: int, camera: Camera) -> CameraPath:
        """With another camera at a keyframe's moment."""
        self._check(index)
        keys = list(self.keyframes)
        keys[index] = keyframe(camera, keys[index].seconds)
        return self._with(keys)

    def retimed(self, index: int, seconds: float) -> CameraPath:
        """With a keyframe at another moment; it may change places with its neighbours."""
        self._check(index)
        keys = list(self.keyframes)
        keys[index] = replace(keys[index], seconds=seconds)
        return self._with(keys)

    def zoomed(self, index: int, fov_y_degrees: float) -> CameraPath:
        """With another vertical field of view at a keyframe."""
        self._check(index)
        keys = list(self.keyframes)
        keys[index] = replace(keys[index], fov_y_degrees=fov_y_degrees)
        return self._with(keys)

    def lasting(self, seconds: float) -> CameraPath:
        """The same way from 0 to `seconds`, faster or slower."""
        if not self.seconds:
            raise UsageError("a path of one keyframe has no length in time: add a second one")
        if not (np.isfinite(seconds) and seconds > 0):
            raise UsageError(f"a path lasts more than 0 s, got {seconds}")
        first, factor = self.keyframes[0].seconds, seconds / self.seconds
        return self._with([replace(key, seconds=(key.seconds - first) * factor) for key in self.keyframes])

    def camera_at(self, seconds: float, like: Camera) -> Camera:
        """The camera at a moment, of the size of `like`."""
        return self._sampled(np.array([seconds]), like)[0]

    def cameras(self, like: Camera) -> list[Camera]:
        """The cameras at the path's frame rate, of the size of `like`."""
        if not self.keyframes:
            raise UsageError("the path has no keyframe: add one first")
        return self._sampled(np.linspace(self.keyframes[0].seconds, self.keyframes[-1].seconds, self.frames), like)

    def to_json(self, from_world: Array, frame: FrameOfReference = "source") -> dict[str, Any]:
        """The content of a keyframe file; `from_world` leads from the training frame to `frame`."""
        poses = [_into(key.camera_to_world[None], from_world)[0] for key in self.keyframes]
        keys = [
            {
                "seconds": key.seconds,
                "fov_y_degrees": key.fov_y_degrees,
                "camera_to_world": [[float(value) for value in row] for row in pose],
            }
            for key, pose in zip(self.keyframes, poses, strict=True)
        ]
        return {"frame": frame, "fps": self.fps, "tension": self.tension, "keyframes": keys}

    def _with(self, keyframes: Sequence[Keyframe]) -> CameraPath:
        return replace(self, keyframes=tuple(sorted(keyframes, key=lambda key: key.seconds)))

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self.keyframes):
            raise UsageError(f"there is no keyframe {index} among {len(self.keyframes)}")

    def _sampled(self, moments: Array, like: Camera) -> list[Camera]:
        if not self.keyframes:
            raise UsageError("the path has no keyframe: add one first")
        times = np.array([key.seconds for key in self.keyframes])
        poses = np.stack([key.camera_to_world for key in self.keyframes])
        angles = np.array([key.fov_y_degrees for key in self.keyframes])
        moments = moments.clip(times[0], times[-1])
        matrices = np.tile(poses[0], (len(moments), 1, 1))
        if len(times) > 1:
            matrices[:, :3, :3] = RotationSpline(times, Rotation.from_matrix(poses[:, :3, :3]))(moments).as_matrix()
            matrices[:, :3, 3] = _curve(times, poses[:, :3, 3], self.tension, moments)
        zooms = np.interp(moments, times, angles)
        return [_zoomed(_posed(like, pose), zoom) for pose, zoom in zip(matrices, zooms, strict=True)]


def keyframe(camera: Camera, seconds: float) -> Keyframe:
    """A camera as a keyframe."""
    return Keyframe(float(seconds), camera.camera_to_world.detach().double().cpu().numpy(), fov_y(camera))


def read(
    path: Path,
    default_fov_y: float,  # degrees, of keyframes that do not say theirs
    from_world: Callable[[FrameOfReference], Array],  # e.g. `Run.from_world`
    frame: FrameOfReference = "source",  # of a file that does not say its own
) -> CameraPath:
    """The path in a keyframe file; raises DataError in words."""
    content = files.read_json(path)
    try:
        frame = content.get("frame", frame)
        if frame not in FRAMES:
            raise DataError(f"{path}: frame is one of {', '.join(FRAMES)}, got {frame!r}")
        keys = content["keyframes"]
        poses = np.stack([_pose(key, (0.0, 0.0, 1.0) if frame == "placed" else (0.0, -1.0, 0.0)) for key in keys])
        times = [float(key.get("seconds", index)) for index, key in enumerate(keys)]
        angles = [float(key.get("fov_y_degrees", default_fov_y)) for key in keys]
        fps, tension = float(content.get("fps", 30)), float(content.get("tension", 0))
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise DataError(f"{path} is not a keyframe file: {type(problem).__name__}: {problem}") from problem
    try:
        kept = CameraPath(tuple(map(Keyframe, times, poses, angles)), fps, tension)
    except UsageError as problem:
        raise DataError(f"{path}: {problem}") from problem
    local = _into(poses, np.asarray(np.linalg.inv(from_world(frame)), dtype=np.float64))
    return replace(kept, keyframes=tuple(map(Keyframe, times, local, angles)))


def write(path: Path, camera_path: CameraPath, from_world: Array, frame: FrameOfReference = "source") -> None:
    """Write a keyframe file; `from_world` leads from the training frame to `frame`."""
    files.write_atomically(files.output_file(path), files.dump(camera_path.to_json(from_world, frame)))


def fov_y(camera: Camera) -> float:
    """The vertical field of view in degrees."""
    return float(np.degrees(2 * np.arctan(camera.height / 2 / camera.fy)))


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


def orbit(scene: Scene, count: int, up: Sequence[float] | None = None) -> list[Camera]:
    """`count` cameras on a circle about what the training cameras look at, at their mean height and distance.

    The circle lies level for `up`, else for what is up on the photographs.
    """
    if count < 1:
        raise UsageError(f"--orbit needs at least 1 frame, got {count}")
    cameras = [scene.views[index].camera for index in scene.train]
    poses = np.stack([camera.camera_to_world.detach().double().numpy() for camera in cameras])
    centre = _focus(poses)
    axis = _unit(-poses[:, :3, 1].mean(axis=0) if up is None else np.asarray(up, dtype=np.float64))
    offsets = poses[:, :3, 3] - centre
    height = float((offsets @ axis).mean())
    flat = offsets - (offsets @ axis)[:, None] * axis
    radius = float(np.linalg.norm(flat, axis=1).mean())
    first = _unit(flat[int(np.argmax(np.linalg.norm(flat, axis=1)))])
    second = np.cross(axis, first)
    angles = 2 * np.pi * np.arange(count) / count
    eyes = [centre + height * axis + radius * (np.cos(a) * first + np.sin(a) * second) for a in angles]
    return [_posed(cameras[0], look_at(eye, centre, axis)) for eye in eyes]


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


def _pose(key: dict[str, Any], up: tuple[float, float, float]) -> Array:
    if "camera_to_world" in key:
        return np.asarray(key["camera_to_world"], dtype=np.float64).reshape(4, 4)
    eye, target = (np.asarray(key[name], dtype=np.float64).reshape(3) for name in ("position", "look_at"))
    if np.allclose(eye, target):
        raise ValueError("position and look_at are equal")
    return look_at(eye, target, np.asarray(key.get("up", up), dtype=np.float64).reshape(3))


def _into(poses: Array, similarity: Array) -> Array:
    """Poses [N, 4, 4] under a similarity; cameras keep unit axes."""
    moved = similarity @ poses
    moved[:, :3, :3] /= np.cbrt(np.linalg.det(moved[:, :3, :3]))[:, None, None]
    return np.asarray(moved)


def _curve(times: Array, points: Array, tension: float, moments: Array) -> Array:
    """Points [N, 3] on the way through `points`."""
    straight = np.stack([np.interp(moments, times, axis) for axis in points.T], axis=-1)
    if len(times) < 3 or tension == 1:
        return straight
    return np.asarray(tension * straight + (1 - tension) * CubicSpline(times, points)(moments))


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


def _unit(vector: Array) -> Array:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12))
