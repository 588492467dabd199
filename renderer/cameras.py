"""Pinhole cameras and similarities.

Conventions: OpenCV axes (x right, y down, z forward), pixel (column j, row i) has its centre at (j + 0.5, i + 0.5),
matrices name their direction (`world_to_camera` maps world points to camera points).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

NEAR = 0.01  # in units of a scene whose cameras lie in the unit ball


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion.

    `world_to_camera` is a rigid [4, 4] float32 matrix; it may require a gradient. `fx, fy, cx, cy` are in pixels of the
    `width` x `height` image; the principal point need not be the image's centre.
    Nothing nearer than `near` is shown; in a world of another unit the same camera has another `near`.
    """

    world_to_camera: Tensor  # [4, 4]
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    near: float = NEAR

    @property
    def centre(self) -> Tensor:
        """The camera's centre in the world, [3]; differentiable in the pose."""
        rotation, translation = self.world_to_camera[:3, :3], self.world_to_camera[:3, 3]
        return -(rotation.T @ translation)

    @property
    def camera_to_world(self) -> Tensor:
        """The inverse pose, [4, 4], exact for a rigid matrix."""
        inverse = torch.eye(4, dtype=self.world_to_camera.dtype, device=self.world_to_camera.device)
        inverse[:3, :3] = self.world_to_camera[:3, :3].T
        inverse[:3, 3] = self.centre
        return inverse

    @property
    def K(self) -> Tensor:
        """The calibration matrix, [3, 3] float32."""
        return torch.tensor([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], dtype=torch.float32)

    def resized(self, width: int, height: int) -> Camera:
        """The same view sampled by `width` x `height` pixels; the field of view is kept."""
        sx, sy = width / self.width, height / self.height
        return replace(
            self, fx=self.fx * sx, fy=self.fy * sy, cx=self.cx * sx, cy=self.cy * sy, width=width, height=height
        )

    def moved_back(self, distance: float) -> Camera:
        """The camera, moved backwards by `distance`."""
        matrix = self.world_to_camera.clone()
        matrix[2, 3] += distance
        return replace(self, world_to_camera=matrix)

    def to(self, device: torch.device | str) -> Camera:
        """The camera with its pose on `device`."""
        return replace(self, world_to_camera=self.world_to_camera.to(device))


def rays(
    camera: Camera,
    pixels: Tensor | None = None,  # [P, 2] column and row
) -> Tensor:
    """Camera points at depth 1 behind the centres of pixels: [P, 3] of those given, else [H, W, 3] of all."""
    if pixels is None:
        columns, rows = torch.meshgrid(torch.arange(camera.width), torch.arange(camera.height), indexing="xy")
    else:
        columns, rows = pixels.unbind(1)
    x, y = (columns + 0.5 - camera.cx) / camera.fx, (rows + 0.5 - camera.cy) / camera.fy
    return torch.stack([x, y, torch.ones_like(x)], dim=-1)


def focus(cameras: Sequence[Camera]) -> Tensor:
    """The point nearest to the optical axes of one or more cameras, [3] float64."""
    centres = torch.stack([camera.centre.double() for camera in cameras])
    axes = torch.stack([camera.world_to_camera[2, :3].double() for camera in cameras])
    across = torch.eye(3, dtype=torch.float64) - axes[:, :, None] * axes[:, None, :]
    system = across.sum(0) + 1e-6 * len(cameras) * torch.eye(3, dtype=torch.float64)
    point: Tensor = torch.linalg.solve(system, (across @ centres[..., None]).sum(0)[:, 0])
    return point
