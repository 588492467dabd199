"""Where Gaussians start: the capture's points, or random points inside what the cameras see."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from anchorfield.renderer.cameras import focus
from anchorfield.scenes.scene import Points, Scene

MIN_POINTS = 500  # fewer say too little of the scene
BACKDROP_SHARE = 0.15  # of the points
BACKDROP_NEAR, BACKDROP_FAR = 2.5, 6.0  # in distances from the cameras to what they look at


def initial_points(scene: Scene, count: int, random: torch.Generator) -> Points:
    """At most `count` points: those of the capture, thinned at random, or random ones where there are too few.

    A share of them lies on a backdrop behind the scene. Walls and skies without features have no points of their own,
    and Gaussians of the foreground that grow to fill them lie like fog before other cameras.
    """
    points = scene.points
    if points is None or len(points.xyz) < MIN_POINTS:
        return random_points(scene, count, random)
    behind = backdrop_points(scene, int(BACKDROP_SHARE * min(count, len(points.xyz))), random)
    chosen = torch.randperm(len(points.xyz), generator=random)[: count - len(behind.xyz)].sort().values.numpy()
    return Points(np.concatenate([points.xyz[chosen], behind.xyz]), np.concatenate([points.rgb[chosen], behind.rgb]))


def backdrop_points(scene: Scene, count: int, random: torch.Generator) -> Points:
    """About `count` points far behind what the cameras look at, on rays of random training pixels; none with alpha."""
    distance = focus_distance(scene)
    if count < 1 or scene.views[scene.train[0]].load().shape[-1] == 4:
        return Points(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8))
    points, colours = _in_view(scene, count, BACKDROP_NEAR * distance, BACKDROP_FAR * distance, random)
    return Points(points.numpy(), colours.numpy())


def random_points(scene: Scene, count: int, random: torch.Generator) -> Points:
    """Up to `count` points on random pixels' rays of training views, where enough other views see them.

    Depths are uniform in inverse depth around the place the cameras look at. Where photographs have alpha, points that
    any view sees as empty are left out.
    """
    distance = focus_distance(scene)
    points, colours = _in_view(scene, 4 * count, 0.4 * distance, 3.0 * distance, random)
    seen, empty = _views_of(scene, points)
    enough = min(3, len(scene.train))
    kept = torch.nonzero((seen >= enough) & ~empty).squeeze(1)
    kept = kept[torch.randperm(len(kept), generator=random)[:count]]
    return Points(points[kept].numpy().astype(np.float32), colours[kept].numpy())


def _in_view(
    scene: Scene, count: int, nearest: float, furthest: float, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """About `count` points [n, 3] between two depths on rays of training views, and their colours uint8 [n, 3]."""
    found = [_on_rays(scene, view, share, nearest, furthest, random) for view, share in _shares(scene, count, random)]
    return torch.cat([points for points, _ in found]), torch.cat([colours for _, colours in found])


def _on_rays(
    scene: Scene, view: int, count: int, nearest: float, furthest: float, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """`count` points [n, 3] on rays of random pixels, uniform in inverse depth, and their colours uint8 [n, 3]."""
    camera, pixels = scene.views[view].camera, scene.views[view].load()
    i = torch.randint(camera.height, (count,), generator=random)
    j = torch.randint(camera.width, (count,), generator=random)
    z = 1 / (1 / furthest + (1 / nearest - 1 / furthest) * torch.rand(count, generator=random))
    local = torch.stack([(j + 0.5 - camera.cx) / camera.fx * z, (i + 0.5 - camera.cy) / camera.fy * z, z], 1)
    pose = camera.camera_to_world
    return local @ pose[:3, :3].T + pose[:3, 3], pixels[i, j, :3]


def _shares(scene: Scene, total: int, random: torch.Generator) -> list[tuple[int, int]]:
    """At most 100 training views, each with its number of points."""
    views = [scene.train[k] for k in torch.randperm(len(scene.train), generator=random)[:100].tolist()]
    return [(view, -(-total // len(views))) for view in views]


def focus_distance(scene: Scene) -> float:
    """Median distance of the training cameras to the point nearest to all their axes; 1 if that is behind them."""
    cameras = [scene.views[i].camera for i in scene.train]
    centres = torch.stack([camera.centre.double() for camera in cameras])
    axes = torch.stack([camera.world_to_camera[2, :3].double() for camera in cameras])
    depth = ((focus(cameras) - centres) * axes).sum(1).median()
    return float(depth) if depth > 1e-3 else 1.0


def _views_of(scene: Scene, points: Tensor) -> tuple[Tensor, Tensor]:
    """How many training views each point falls into, and whether one of them is transparent there."""
    seen, empty = torch.zeros(len(points), dtype=torch.int32), torch.zeros(len(points), dtype=torch.bool)
    for index in scene.train:
        view = scene.views[index]
        camera = view.camera
        local = points @ camera.world_to_camera[:3, :3].T + camera.world_to_camera[:3, 3]
        z = local[:, 2].clamp_min(1e-6)
        j = (camera.fx * local[:, 0] / z + camera.cx).floor().long()
        i = (camera.fy * local[:, 1] / z + camera.cy).floor().long()
        inside = (local[:, 2] > 1e-6) & (i >= 0) & (i < camera.height) & (j >= 0) & (j < camera.width)
        seen += inside
        pixels = view.load()
        if pixels.shape[-1] == 4:
            alpha = pixels[i.clamp(0, camera.height - 1), j.clamp(0, camera.width - 1), 3]
            empty |= inside & (alpha == 0)
    return seen, empty
