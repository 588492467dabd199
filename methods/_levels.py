"""Levels of detail: anchors in cells from coarse to fine, of which a camera needs those that it can tell apart.

Ren et al. 2024, Octree-GS. Level 0 is always shown; every further level where the camera is half as far away, or its
pixels are half as wide. Between two levels the finer one fades in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anchorfield.methods._method import Fit, check_ranges
from anchorfield.renderer.cameras import Camera
from anchorfield.scenes.scene import Scene

OUTLIERS = 0.001  # share of points, and of cameras, that do not count for the range of distances
MOST_LEVELS = 10
FINER = 2  # levels that only growing fills: points are sown in cells as wide as the space between them
ZOOMS = (2, 4, 8)  # by how much images are reduced so that coarse levels learn to stand alone
SMALLEST = 32  # pixels on the shorter side of a reduced image


@dataclass(frozen=True)
class Octree:
    """Settings of levels of detail."""

    levels: int = 0
    """Levels of detail; 0 chooses from the distances between cameras and points."""
    fading: bool = True
    """Let a level appear gradually instead of at once."""
    zoomed: float = 0.2
    """Share of the steps on images as from further away, of which coarse levels learn to stand alone."""

    def __post_init__(self) -> None:
        check_ranges(self, levels=(0, MOST_LEVELS), zoomed=(0, 1))

    def sown(
        self,
        scene: Scene,
        points: NDArray[np.float32],  # [P, 3]
        voxel: float,
    ) -> tuple[list[NDArray[np.float32]], dict[str, Tensor]]:
        """Points in the cells of each of the first levels, and the model's `levels` and `detail`."""
        farthest, nearest = distances(scene, points)
        levels = self.levels or min(max(round(math.log2(farthest / nearest)) + 1, 1), MOST_LEVELS)
        pixel = min(scene.views[index].camera.fx for index in scene.train)
        cells = [voxelised(points, cell(voxel, level, levels - 1)) for level in range(max(levels - FINER, 1))]
        numbers = torch.arange(len(cells)).repeat_interleave(torch.tensor([len(centres) for centres in cells]))
        return cells, {"levels": numbers.float(), "detail": torch.tensor([farthest / pixel, levels - 1.0])}

    def zoom(self, fit: Fit, camera: Camera) -> int:
        """By how much to reduce this step's image."""
        if float(torch.rand((), generator=fit.random)) >= self.zoomed:
            return 1
        zoom = ZOOMS[int(torch.randint(len(ZOOMS), (), generator=fit.random))]
        return zoom if min(camera.width, camera.height) // zoom >= SMALLEST else 1


def voxelised(xyz: NDArray[np.float32], size: float) -> NDArray[np.float32]:
    """The centres [M, 3] of the cells of a grid that hold points [N, 3], in the order of their cells."""
    return (np.unique(np.rint(xyz / size).astype(np.int64), axis=0) * size).astype(np.float32)


def cell(voxel: float, level: int, last: int) -> float:
    """The side of a level's cells: the last one has voxels, each one before it cells twice as wide."""
    return float(voxel * 2 ** (last - level))


def distances(scene: Scene, points: NDArray[np.float32]) -> tuple[float, float]:
    """The largest and the smallest distance from a training camera to a point, without outliers."""
    found = []
    for index in scene.train:
        centre = scene.views[index].camera.centre.numpy()
        away = np.linalg.norm(points - centre, axis=1)
        found.append(np.quantile(away, [1 - OUTLIERS, OUTLIERS]))
    far, near = np.array(found).T
    farthest, nearest = float(np.quantile(far, 1 - OUTLIERS)), float(np.quantile(near, OUTLIERS))
    return farthest, max(nearest, 1e-3 * farthest)


def shown(
    anchors: Tensor,  # [N, 3]
    levels: Tensor,  # [N]
    detail: Tensor,  # [2] distance at which level 1 begins to show, over the focal length in pixels; the last level
    camera: Camera,
    fading: bool,
) -> Tensor:
    """How much of each anchor the camera is shown, [N] in [0, 1]; never less from nearer by."""
    away = (anchors - camera.centre).norm(dim=1).clamp_min(1e-9)
    wanted = torch.log2(detail[0] * camera.fx / away).clamp_min(0).minimum(detail[1])
    share: Tensor = (wanted + 1 - levels).clamp(0, 1)
    return share if fading else (share == 1).float()
