"""Proposals of what to clean away: for every Gaussian the strength from which on it goes.

Scores do not depend on the strength, so that a slider only compares. With the capture's cameras they look at what the
photographs see: free space, and how much a Gaussian adds to any picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from scipy.spatial import cKDTree
from torch import Tensor

from anchorfield.app.edit.operations import Kind
from anchorfield.app.edit.selecting import attribute, depths, in_picture, pixels, reduced
from anchorfield.renderer.cameras import Camera, focus
from anchorfield.renderer.errors import UsageError
from anchorfield.renderer.splatting import splat
from anchorfield.renderer.types import PARAMETERS, Gaussians

CAMERAS = 48  # looked through, at most
PIXELS = 400  # of a picture's longer side
NEIGHBOURS = 6
FREE_MARGIN = 0.08  # of the depth, by which something before it stands in free space
WINDOW, EVERY = 9, 4  # of the median over a depth map, and its pixels: 9 of every 4th
LARGE = 0.05  # standard deviation from which something before a surface may be its haze
ENOUGH_VIEWS = 3  # that must see something to say that it stands in free space


def scores(kind: Kind, gaussians: Gaussians, shown: Tensor, cameras: Sequence[Camera]) -> Tensor:
    """The strength in (0, 1] from which each Gaussian [N] is proposed, infinity where none does."""
    chosen = [reduced(cameras[i * len(cameras) // n], PIXELS) for n in [min(CAMERAS, len(cameras))] for i in range(n)]
    if kind == "floaters":
        alone = _alone(gaussians, shown)
        return torch.minimum(alone, _in_free_space(gaussians, shown, chosen)) if chosen else alone
    if kind == "dust":
        return _dust(gaussians, shown, chosen)
    if kind == "needles":
        return _needles(gaussians)
    return _outside(gaussians, chosen)


def _falling(values: Tensor, first: float, last: float) -> Tensor:
    """Strengths that reach from nearly 0 where a value is `first` to 1 where it is `last`, infinity beyond `last`."""
    strength = ((values.double() - first) / (last - first)).clamp_min(0.02)
    return torch.where(strength <= 1, strength, torch.inf)


def _in_free_space(gaussians: Gaussians, shown: Tensor, cameras: Sequence[Camera]) -> Tensor:
    """By the share of the views that show surfaces behind a Gaussian and around it, farther away by a margin.

    Depth is the median over a window: a floater fills less than half of it. Large ones need a high strength, for they
    often shade what is behind them.
    """
    seen, passed = np.zeros(len(gaussians)), np.zeros(len(gaussians))
    sizes = gaussians.log_scales.double().sort(1).values.exp()
    reach = sizes[:, 1].numpy()
    for camera in cameras:
        depth = _smooth(depths(gaussians, shown, camera))
        x, y, z = pixels(gaussians.means, camera)
        inside = np.flatnonzero(in_picture((x, y, z), camera))
        behind = depth[y[inside].astype(np.int64) // EVERY, x[inside].astype(np.int64) // EVERY]
        known = np.isfinite(behind)
        inside, behind = inside[known], behind[known]
        seen[inside] += 1
        passed[inside] += z[inside] + reach[inside] < (1 - FREE_MARGIN) * behind
    share = np.where(seen >= ENOUGH_VIEWS, passed / np.maximum(seen, 1), 0)
    strength = _falling(torch.from_numpy(share), 1.0, 0.5)
    return torch.where(sizes[:, 2] < LARGE, strength, 0.75 + 0.25 * strength)


def _smooth(depth: NDArray[np.float64]) -> NDArray[np.float64]:
    """A depth map [H, W] at every 4th pixel, each the median of those around it; infinite where most are."""
    far = 1e30
    middle = median_filter(np.where(np.isfinite(depth), depth, far)[::EVERY, ::EVERY], WINDOW, mode="nearest")
    return np.where(middle < far, middle, np.inf)


def _alone(gaussians: Gaussians, shown: Tensor) -> Tensor:
    """By the distance to the nearest few others, in units of a Gaussian's own size: a surface closes its gaps."""
    found = torch.full((len(gaussians),), torch.inf, dtype=torch.float64)
    index = torch.nonzero(shown & (gaussians.logit_opacities > math.log(0.05 / 0.95))).squeeze(1)
    if len(index) <= NEIGHBOURS:
        return found
    tree = cKDTree(gaussians.means[index].double().numpy())
    distances = tree.query(gaussians.means.double().numpy(), k=NEIGHBOURS + 1, workers=-1)[0][:, -1]
    gap = torch.from_numpy(distances)
    own = attribute(gaussians, "size")
    usual = float(gap[shown].median()) * gaussians.means.double().norm(dim=1).clamp_min(1)
    return _falling((gap / torch.maximum(own, usual).clamp_min(1e-12)).log(), math.log(40), math.log(5))


def _dust(gaussians: Gaussians, shown: Tensor, cameras: Sequence[Camera]) -> Tensor:
    """By how much a Gaussian adds to the picture that it adds most to, in whole pixels; by opacity without cameras."""
    if not cameras:
        return _falling(attribute(gaussians, "opacity").clamp_min(1e-9).log(), math.log(0.004), math.log(0.08))
    most = torch.zeros(len(gaussians), dtype=torch.float64)
    visible = _visible(gaussians, shown)
    for camera in cameras:
        most = torch.maximum(most, _weights(visible, camera))
    return _falling(most.clamp_min(1e-9).log(), math.log(0.01), math.log(0.5))


def _visible(gaussians: Gaussians, shown: Tensor) -> Gaussians:
    """The Gaussians, hidden ones nearly transparent, so that rows stay where they are."""
    logits = torch.where(shown, gaussians.logit_opacities, -30.0)
    others = {name: getattr(gaussians, name) for name in PARAMETERS if name != "logit_opacities"}
    return Gaussians(**others, logit_opacities=logits, antialiased=gaussians.antialiased)


def _weights(gaussians: Gaussians, camera: Camera) -> Tensor:
    """The sum [N] over pixels of each Gaussian's blending weight: what a picture's sum changes with its colour."""
    grey = torch.zeros(len(gaussians), 1, 3).requires_grad_()
    others = {name: getattr(gaussians, name) for name in PARAMETERS if name != "sh"}
    image = splat(
        Gaussians(**others, sh=grey, antialiased=gaussians.antialiased), camera, torch.zeros(3), depth=False
    ).rgb
    image[..., 0].sum().backward()
    assert grey.grad is not None
    return grey.grad[:, 0, 0].double() / 0.28209479177387814


def _needles(gaussians: Gaussians) -> Tensor:
    """By how much longer than wide a Gaussian is, among those that are long for their distance."""
    long = attribute(gaussians, "size") / gaussians.means.double().norm(dim=1).clamp_min(1)
    thin = _falling(attribute(gaussians, "elongation").log(), math.log(40), math.log(6))
    return torch.where(long > 0.02, thin, torch.inf)


def _outside(gaussians: Gaussians, cameras: Sequence[Camera]) -> Tensor:
    """By the distance from what the cameras look at, in units of their own distance; at once what none of them sees."""
    if not cameras:
        raise UsageError("clean_up: outside: needs the cameras of the capture: give it, e.g. with --scene CAPTURE")
    centres = torch.stack([camera.centre.double() for camera in cameras])
    middle = focus(cameras)
    reach = float((centres - middle).norm(dim=1).median())
    far = (gaussians.means.double() - middle).norm(dim=1) / max(reach, 1e-9)
    strength = _falling(far.clamp_min(1e-9).log(), math.log(8), math.log(0.7))
    seen = torch.zeros(len(gaussians), dtype=torch.bool)
    for camera in cameras:
        margin = 0.1 * camera.width  # a Gaussian reaches into pictures that its centre misses
        seen |= torch.from_numpy(in_picture(pixels(gaussians.means, camera), camera, margin))
    return torch.where(seen, strength, 0.02)
