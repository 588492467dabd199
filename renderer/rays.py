"""Rays through the pixels of a camera, in the world."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from anchorfield.renderer.cameras import Camera, rays


class Rays(NamedTuple):
    """Half-lines from a camera's centre; the depth along its z at distance t is t * z_scale."""

    origins: Tensor  # [P, 3]
    directions: Tensor  # [P, 3] of unit length
    z_scale: Tensor  # [P]


def camera_rays(
    camera: Camera,
    pixels: Tensor | None = None,  # [P, 2] column and row; None: all, row by row
) -> Rays:
    """Rays through the centres of pixels; differentiable in the camera's pose."""
    pose = camera.world_to_camera
    points = rays(camera, pixels).reshape(-1, 3).to(pose)
    lengths = points.norm(dim=1)
    directions = (points / lengths[:, None]) @ pose[:3, :3]
    return Rays(camera.centre.expand(len(points), 3), directions, 1 / lengths)


def spread_of(
    camera: Camera,
    z_scale: Tensor,  # [P]
) -> Tensor:
    """The width of a pixel's beam over the distance along it, [P]; the root of its area across the camera's axis."""
    return z_scale / math.sqrt(camera.fx * camera.fy)
