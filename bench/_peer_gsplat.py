"""gsplat's torch mathematics on the CPU: its projection and harmonics, with our substitutes for its CUDA-only steps.

gsplat 1.5.3 renders on CUDA only. `gsplat.cuda._torch_impl` holds torch versions of projection and harmonics; those of
tiles and blending need CUDA for the pairs of pixels and Gaussians, so both are written here, each tile vectorised over
its Gaussians and pixels, with gsplat's rules: boxes of 3.33 standard deviations, alpha at most 0.999, skipped below
1/255, transmittance at least 1e-4. Gradients are taken tile by tile, which keeps the memory small.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any

import torch
from torch import Tensor

from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.types import PARAMETERS, Gaussians

NAME, INSTALL = "gsplat torch reference", "pip install gsplat==1.5.3"
TILE, CAP, LEAST, STOP = 16, 0.999, 1 / 255, 1e-4


def problem() -> str | None:
    """Why it cannot be measured; None where it can."""
    try:
        import gsplat.cuda._torch_impl  # type: ignore[import-not-found, unused-ignore] # noqa: F401
    except Exception as reason:  # a package that does not fit the others raises other errors than ImportError
        return f"not installed ({type(reason).__name__}): {INSTALL}"
    return None


def version() -> str:
    """The installed version."""
    return importlib.metadata.version("gsplat")


def image(gaussians: Gaussians, camera: Camera) -> Tensor:
    """The view over black, [H, W, 3]."""
    with torch.no_grad():
        pairs, offsets = _pairs(_flat(gaussians, camera), camera)
        shown: Tensor = _blended(pairs, offsets, camera, None)[0]
        return shown


def gradients(gaussians: Gaussians, camera: Camera, v_image: Tensor) -> tuple[Tensor, ...]:
    """Gradients of the parameters for a gradient of the image."""
    leaves = [getattr(gaussians, name) for name in PARAMETERS]
    pairs, offsets = _pairs(_flat(gaussians, camera), camera)
    _, v_pairs = _blended([pair.detach() for pair in pairs], offsets, camera, v_image)
    return torch.autograd.grad(pairs, leaves, v_pairs)


def _flat(gaussians: Gaussians, camera: Camera) -> tuple[Tensor, ...]:
    """Radii, means, depths, conics, opacities and colours, by gsplat's functions."""
    from gsplat.cuda import _torch_impl as theirs

    covars, _ = theirs._quat_scale_to_covar_preci(gaussians.quats, gaussians.log_scales.exp(), True, False)
    pose, calibration = camera.world_to_camera[None], camera.K[None]
    found = theirs._fully_fused_projection(gaussians.means, covars, pose, calibration, camera.width, camera.height)
    radii, means, depths, conics = (t[0] for t in found[:4])
    bands = theirs._spherical_harmonics(gaussians.sh_degree, gaussians.means - camera.centre, gaussians.sh)
    return radii, means, depths, conics, gaussians.logit_opacities.sigmoid(), (bands + 0.5).clamp_min(0)


@torch.no_grad()
def _order(radii: Tensor, means: Tensor, depths: Tensor, camera: Camera) -> tuple[Tensor, list[int]]:
    """Gaussians of all tiles one after another, front to back, and where each tile's begin."""
    columns, rows = -(-camera.width // TILE), -(-camera.height // TILE)
    limits = torch.tensor([columns, rows])
    low = torch.minimum(((means - radii) / TILE).floor().long().clamp_min(0), limits)
    high = torch.minimum(((means + radii) / TILE).ceil().long().clamp_min(0), limits)
    extent = (high - low).clamp_min(0) * (radii > 0)
    counts = extent.prod(1)
    gaussian = torch.repeat_interleave(counts)
    number = torch.arange(len(gaussian)) - (counts.cumsum(0) - counts)[gaussian]
    across = extent[gaussian, 0]
    tile = (low[gaussian, 1] + number // across) * columns + low[gaussian, 0] + number % across
    order = depths[gaussian].argsort(stable=True)
    order = order[tile[order].argsort(stable=True)]
    ends = torch.bincount(tile, minlength=columns * rows).cumsum(0)
    return gaussian[order], [0, *ends.tolist()]


def _pairs(flat: tuple[Tensor, ...], camera: Camera) -> tuple[list[Tensor], list[int]]:
    radii, means, depths, *rest = flat
    ids, offsets = _order(radii, means.detach(), depths.detach(), camera)
    return [values[ids] for values in (means, *rest)], offsets


def _blended(pairs: list[Tensor], offsets: list[int], camera: Camera, v_image: Tensor | None) -> Any:
    """The image, and the pairs' gradients where the image's is given."""
    columns, rows = -(-camera.width // TILE), -(-camera.height // TILE)
    whole = torch.zeros(rows * TILE, columns * TILE, 3)
    given = None if v_image is None else torch.zeros_like(whole)
    if given is not None and v_image is not None:
        given[: camera.height, : camera.width] = v_image
    v_pairs = [torch.zeros_like(values) for values in pairs]
    for tile in range(columns * rows):
        part = slice(offsets[tile], offsets[tile + 1])
        if part.start == part.stop:
            continue
        top, left = TILE * (tile // columns), TILE * (tile % columns)
        square = (slice(top, top + TILE), slice(left, left + TILE))
        own = [values[part].detach().requires_grad_(given is not None) for values in pairs]
        colour = _tile(own, left, top)
        whole[square] = colour.detach()
        if given is not None:
            for target, value in zip(v_pairs, torch.autograd.grad(colour, own, given[square]), strict=True):
                target[part] = value
    return whole[: camera.height, : camera.width], v_pairs


def _tile(own: list[Tensor], left: int, top: int) -> Tensor:
    """One tile's colours, [TILE, TILE, 3]."""
    means, conics, opacities, colours = own
    steps = torch.arange(TILE) + 0.5
    pixels = torch.stack([(left + steps).repeat(TILE), (top + steps).repeat_interleave(TILE)], 1)
    dx, dy = (pixels[None] - means[:, None]).unbind(2)
    a, b, c = (conic[:, None] for conic in conics.unbind(1))
    sigma = 0.5 * (a * dx**2 + c * dy**2) + b * dx * dy
    alpha = (opacities[:, None] * torch.exp(-sigma)).clamp_max(CAP)
    alpha = torch.where((sigma >= 0) & (alpha >= LEAST), alpha, 0.0)
    through = (1 - alpha).cumprod(0)
    before = torch.cat([torch.ones_like(through[:1]), through[:-1]])
    weights = torch.where(through > STOP, alpha * before, 0.0)
    return (weights.T @ colours).view(TILE, TILE, 3)
