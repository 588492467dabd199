"""What a step of training looks at: the order of views, their size, what few of them need, and how fast to learn."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from anchorfield.methods._method import Fit
from anchorfield.renderer.cameras import Camera
from anchorfield.scenes.scene import Scene

FULL_RUN = 30000  # steps for which learning rates are given
FEW = 12, 24  # photographs up to which Gaussians are left out by chance, and from which none


def haste(step: int, progress: float) -> float:
    """By how much to raise learning rates: 1 for a run of 30,000 steps, the root of what is missing, at most 5.

    Rates are made for runs of 30,000 steps. `step / progress` tells how many this run will have.
    """
    expected = step / progress if progress > 0 else FULL_RUN
    return min(max(math.sqrt(FULL_RUN / max(expected, 1)), 1.0), 5.0)


def share_to_drop(most: float, scene: Scene) -> float:
    """What share of the Gaussians a step leaves out: `most` where there are few photographs, none where many.

    With few, Gaussians come to stand behind each other for single photographs (Park et al. 2025, DropGaussian).
    """
    few, many = FEW
    return most * min(max((many - len(scene.train)) / (many - few), 0.0), 1.0)


def next_view(fit: Fit, scene: Scene) -> int:
    """The training view of this step: every view once in random order, then again."""
    order = fit.memory.get("order")
    if order is None or len(order) == 0:
        order = torch.randperm(len(scene.train), generator=fit.random)
    fit.memory["order"] = order[1:].clone()
    return scene.train[int(order[0])]


def reduction(progress: float, coarse: float, side: int) -> int:
    """By how much images are reduced: 4, then 2, then 1, while at least 64 pixels remain on the shorter side."""
    if coarse <= 0 or progress >= coarse:
        return 1
    factor = 4 if progress < coarse / 3 else 2
    return next((f for f in (factor, 2) if f <= factor and side // f >= 64), 1)


def target(
    scene: Scene, index: int, progress: float, coarse: float, least: int = 1
) -> tuple[Camera, Tensor, Tensor | None]:
    """Camera, photograph and mask of a view, reduced until `coarse` of the budget is spent, or by `least` if more."""
    view = scene.views[index]
    factor = max(least, reduction(progress, coarse, min(view.camera.width, view.camera.height)))
    photo = scene.photo(index, factor)
    mask = view.load_mask() if view.load_mask else None
    if factor == 1:
        return view.camera, photo, mask
    camera = replace(
        view.camera.resized(view.camera.width // factor, view.camera.height // factor),
        fx=view.camera.fx / factor,
        fy=view.camera.fy / factor,
        cx=view.camera.cx / factor,
        cy=view.camera.cy / factor,
    )
    if mask is not None:  # a reduced pixel counts where all of its pixels do
        mask = functional.avg_pool2d(mask[None].float(), factor)[0] == 1
    return camera, photo, mask
