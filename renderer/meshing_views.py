"""What cameras see of a surface, ready for fusion: depth, how far each pixel can be trusted, and colour."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from anchorfield.renderer.cameras import Camera, rays
from anchorfield.renderer.types import Frame

OPAQUE = 0.9  # a pixel of less opacity shows a mixture of near and far
JUMP = 0.01  # bend of the depth between neighbouring pixels, as a share of it, that is an edge and no surface
CREASE = 4.0  # sum of the slopes of two surfaces that meet, up to which they do
GRAZING = 0.1  # cosine between surface and ray below which depth says little


@dataclass(frozen=True)
class DepthView:
    """A camera's view of a surface."""

    camera: Camera
    depth: Tensor  # [H, W] float32 along z, 0 where unknown
    weight: Tensor  # [H, W] float32 in [0, 1], 0 where unknown
    colour: Tensor  # [H, W, 3] uint8

    def sampled(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of camera points [N, 3]: depth seen there [N], its weight [N], and whether depth is known around it [N]."""
        planes = torch.stack([self.depth, self.weight, (self.weight > 0).float()])
        depth, weight, known = sample(planes, self.camera, points)
        return depth, weight, known > 0.999


def depth_view(camera: Camera, frame: Frame) -> DepthView:
    """A rendered view without what is half transparent, at an edge, or seen under a grazing angle."""
    depth = frame.depth.detach().float()
    solid = (frame.alpha >= OPAQUE) & torch.isfinite(depth) & (depth > 0)
    depth = torch.where(solid, depth, 0.0)
    edges = _edges(depth, max(JUMP, CREASE / min(camera.fx, camera.fy)))
    weight = torch.where(solid & ~edges, frame.alpha.detach().float(), 0.0)
    cosine = facing(camera, depth)
    weight = torch.where(cosine > GRAZING, weight * cosine, 0.0)
    colour = (frame.rgb.detach().clamp(0, 1) * 255).round().to(torch.uint8)
    return DepthView(camera, torch.where(weight > 0, depth, 0.0), weight, colour)


def points_of(view: DepthView, most: int, random: torch.Generator) -> Tensor:
    """World points [n, 3] of at most `most` of the view's trusted pixels, drawn at random."""
    flat = torch.nonzero(view.weight.ravel() > 0).squeeze(1)
    chosen = flat[torch.randperm(len(flat), generator=random)[:most]]
    points = rays(view.camera).reshape(-1, 3)[chosen] * view.depth.ravel()[chosen, None]
    pose = view.camera.camera_to_world.detach().float()
    return points @ pose[:3, :3].T + pose[:3, 3]


def seen_by(cameras: Sequence[Camera], points: Tensor) -> Tensor:
    """The share of the cameras that have each world point [N, 3] in their picture, hidden or not [N]."""
    count = torch.zeros(len(points))
    for camera in cameras:
        x, y, z = into(camera, points).unbind(1)
        u, v = camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy
        count += (z > 0) & (u > 0) & (u < camera.width) & (v > 0) & (v < camera.height)
    return count / max(1, len(cameras))


def into(camera: Camera, points: Tensor) -> Tensor:
    """World points [N, 3] in the camera's axes."""
    pose = camera.world_to_camera.detach().float()
    return points @ pose[:3, :3].T + pose[:3, 3]


def sample(planes: Tensor, camera: Camera, points: Tensor) -> Tensor:
    """Values [C, N] of pictures [C, H, W] where camera points [N, 3] appear, bilinear; 0 outside and behind."""
    x, y, z = points.unbind(1)
    ahead = z > 1e-6
    near = torch.where(ahead, z, 1.0)
    u = (camera.fx * x / near + camera.cx) * (2 / camera.width) - 1
    v = (camera.fy * y / near + camera.cy) * (2 / camera.height) - 1
    u = torch.where(ahead, u, -9.0)
    place = torch.stack([u, v], dim=-1)[None, None]
    return grid_sample(planes[None], place, mode="bilinear", padding_mode="zeros", align_corners=False)[0, :, 0]


def facing(camera: Camera, depth: Tensor) -> Tensor:
    """Cosine [H, W] between the surface's normal and the ray of each pixel; 0 at the picture's border."""
    ray = rays(camera)
    points = ray * depth[..., None]
    cosine = torch.zeros_like(depth)
    if min(depth.shape) < 3:
        return cosine
    along = points[1:-1, 2:] - points[1:-1, :-2]
    down = points[2:, 1:-1] - points[:-2, 1:-1]
    normal = torch.nn.functional.normalize(torch.linalg.cross(along, down), dim=-1)
    ray = torch.nn.functional.normalize(ray[1:-1, 1:-1], dim=-1)
    cosine[1:-1, 1:-1] = (normal * ray).sum(-1).abs()
    return cosine


def _edges(depth: Tensor, most: float) -> Tensor:
    """Pixels [H, W] beside a bend of the depth above `most` of it (a plane has none) or beside unknown ones."""
    edge = torch.zeros_like(depth, dtype=torch.bool)
    for axis in (0, 1):
        if depth.shape[axis] < 3:
            continue
        here = depth.narrow(axis, 1, depth.shape[axis] - 2)
        before = depth.narrow(axis, 0, depth.shape[axis] - 2)
        after = depth.narrow(axis, 2, depth.shape[axis] - 2)
        # A plane is linear in 1 / depth along a row or a column of the picture.
        bend = (1 / before.clamp_min(1e-6) + 1 / after.clamp_min(1e-6) - 2 / here.clamp_min(1e-6)).abs() * here
        bent = edge.narrow(axis, 1, depth.shape[axis] - 2)
        bent |= bend > most
    return edge


def cpu_threads() -> int:
    """Threads for work that leaves the interpreter's lock."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def spread(cameras: Sequence[Camera], most: int) -> list[int]:
    """At most `most` of the cameras, each far from those chosen before it (in place and direction)."""
    if len(cameras) <= most:
        return list(range(len(cameras)))
    poses = np.stack([camera.camera_to_world.detach().cpu().numpy() for camera in cameras])
    places = np.concatenate([poses[:, :3, 3], poses[:, :3, 2]], axis=1)
    chosen, nearest = [0], np.linalg.norm(places - places[0], axis=1)
    while len(chosen) < most:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(places - places[chosen[-1]], axis=1))
    return sorted(chosen)
