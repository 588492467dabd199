"""The one mapping between the training frame and the browser's world.

The browser's world is the training frame times VIEW_SCALE: its near plane and its half-precision depths like larger
scenes than the unit ball. Axes are the same (OpenCV); which way is up is told to the browser apart from it
(`ViserServer.scene.set_up_direction`), so that nothing has to move when the user sets another up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from viser.transforms import SO3

from anchorfield.renderer.cameras import NEAR, Camera, focus

VIEW_SCALE = 10.0
WIDEST = math.radians(170)  # field of view that is believed of a browser

Vector = NDArray[np.float64]


class Pose(Protocol):
    """A browser's camera as viser reports it: camera-to-world rotation, position, vertical field of view."""

    @property
    def wxyz(self) -> Vector:
        """Unit quaternion, camera to world."""
        ...

    @property
    def position(self) -> Vector:
        """Centre in the browser's world, [3]."""
        ...

    @property
    def fov(self) -> float:
        """Vertical field of view in radians."""
        ...


def to_viser(position: ArrayLike, wxyz: ArrayLike = (1.0, 0.0, 0.0, 0.0)) -> tuple[Vector, Vector]:
    """A point [..., 3] (and orientation [4]) of the training frame in the browser's world."""
    return np.asarray(position, dtype=np.float64) * VIEW_SCALE, np.asarray(wxyz, dtype=np.float64)


def to_local(position: ArrayLike) -> Vector:
    """A point [..., 3] of the browser's world in the training frame."""
    return np.asarray(position, dtype=np.float64) / VIEW_SCALE


def camera_of(pose: Pose, width: int, height: int, near: float = NEAR) -> Camera:
    """What a browser's camera sees, as a `width` x `height` camera of the training frame.

    Raises ValueError where the browser reports something that is no camera.
    """
    position, wxyz, fov = np.asarray(pose.position, float), np.asarray(pose.wxyz, float), float(pose.fov)
    if position.shape != (3,) or wxyz.shape != (4,) or not np.isfinite([*position, *wxyz, fov]).all():
        raise ValueError("the browser's camera is not finite")
    if not 0 < fov <= WIDEST or np.linalg.norm(wxyz) < 1e-6 or width < 1 or height < 1:
        raise ValueError("the browser's camera has no usable field of view, orientation or size")
    rotation = SO3(wxyz / np.linalg.norm(wxyz)).as_matrix()  # camera to world
    world_to_camera = np.eye(4)
    world_to_camera[:3, :3] = rotation.T
    world_to_camera[:3, 3] = -rotation.T @ to_local(position)
    focal = height / 2 / math.tan(fov / 2)
    pose_matrix = torch.from_numpy(world_to_camera).float()
    return Camera(pose_matrix, focal, focal, width / 2, height / 2, width, height, near)


def place(camera: Camera) -> tuple[Vector, Vector]:
    """Position and quaternion of a camera of the training frame in the browser's world."""
    pose = camera.camera_to_world.double().cpu().numpy()
    return to_viser(pose[:3, 3], SO3.from_matrix(pose[:3, :3]).wxyz)


def vertical_fov(camera: Camera) -> float:
    """The vertical field of view of a camera in radians."""
    return 2 * math.atan(camera.height / 2 / camera.fy)


def first_look(cameras: Sequence[Camera], up: Vector) -> tuple[Vector, Vector]:
    """Where a new client stands and what it looks at, both [3] in the training frame: a photograph's own place.

    It is the one with the most usual height, turned towards what the photographs look at where that lies before it.
    """
    if not cameras:
        return np.array([0.0, 0.0, -2.0]), np.zeros(3)
    heights = np.array([float(camera.centre.double().numpy() @ up) for camera in cameras])
    chosen = cameras[int(np.abs(heights - np.median(heights)).argmin())]
    pose = chosen.camera_to_world.double().numpy()
    position, forward = pose[:3, 3], pose[:3, 2]
    target = focus(cameras).numpy()
    distance = float((target - position) @ forward)
    if distance < 0.1 or float(np.linalg.norm(target - position)) > 3 * distance:  # they look outwards or aside
        return position, position + forward
    return position, target


def orbit_distance(camera: Camera, target: Vector) -> float:
    """How far before the camera a client turns around: abreast of `target`, at least a little."""
    pose = camera.camera_to_world.double().numpy()
    return max(0.1, float((target - pose[:3, 3]) @ pose[:3, 2]))
