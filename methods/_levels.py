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
from anchorfield.renderer.splatting import anchors_in_view
from anchorfield.scenes.scene import Scene

FARTHEST = 0.999  # of the points, and of the cameras; the rest are outliers
DETAILED = 0.75  # share of the points in a usual view that are near enough for the last level
MOST_LEVELS = 10
FINER = 2  # levels that only growing fills: points are sown in cells as wide as the space between them
ZOOMS = (2, 4, 8)  # by how much images are reduced so that coarse levels learn to stand alone
USUAL = 0.5  # share of its anchor's scale that a Gaussian takes
SMALLEST = 32  # pixels on the shorter side of a reduced image


@dataclass(frozen=True)
class Octree:
    """Settings of levels of detail."""

    levels: int = 0
    """Levels of detail; 0 chooses from the distances of the points in view."""
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
        usual, farthest = distances(scene, points)
        levels = self.levels or min(max(round(math.log2(farthest / usual)) + 1, 1), MOST_LEVELS)
        pixel = min(scene.views[index].camera.fx for index in scene.train)
        cells = [voxelised(points, cell(voxel, level, levels - 1)) for level in range(max(levels - FINER, 1))]
        numbers = torch.arange(len(cells)).repeat_interleave(torch.tensor([len(centres) for centres in cells]))
        return cells, {"levels": numbers.float(), "detail": torch.tensor([usual / pixel, levels - 1.0])}

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
    """How far away most points in a usual training view are, and all but outliers in any."""
    places, found = torch.from_numpy(points), []
    sizes = torch.full((len(points), 3), -20.0)
    for index in scene.train:
        camera = scene.views[index].camera
        away = (places - camera.centre)[anchors_in_view(places, sizes, camera)].norm(dim=1).numpy()
        if len(away):
            found.append(np.quantile(away, [DETAILED, FARTHEST]))
    most, all_but_outliers = np.array(found or [[1.0, 1.0]]).T
    return float(np.median(most)), float(np.quantile(all_but_outliers, FARTHEST))


def shown(
    anchors: Tensor,  # [N, 3]
    levels: Tensor,  # [N]
    detail: Tensor,  # [2] distance up to which the last level is shown, over the focal length in pixels; the last level
    camera: Camera,
    fading: bool,
) -> Tensor:
    """How much of each anchor the camera is shown, [N] in [0, 1]; never less from nearer by."""
    away = (anchors - camera.centre).norm(dim=1).clamp_min(1e-9)
    wanted = (detail[1] + torch.log2(detail[0] * camera.fx / away)).clamp_min(0).minimum(detail[1])
    share: Tensor = (wanted + 1 - levels).clamp(0, 1)
    return share if fading else (share == 1).float()


def as_coarse_as_they_show(
    levels: Tensor,  # [N]
    log_scales: Tensor,  # [N, 6] of the offsets, then of the Gaussians
    detail: Tensor,  # [2]
    voxel: float,
) -> Tensor:
    """The levels [N] of anchors, coarser where their Gaussians are as wide as cells of coarser levels.

    Such Gaussians are few and cover much, and nothing coarse has a reason to show the same: without them the scene
    looks different from further away.
    """
    widest = log_scales[:, 3:].amax(1) + math.log(USUAL)
    fitting = detail[1] - torch.floor((widest - math.log(voxel)) / math.log(2))
    return levels.minimum(fitting.clamp_min(0))
