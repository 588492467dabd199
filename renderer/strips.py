"""An image of Gaussians strip by strip, so that it can be given up half-way; and how many of them a pixel blends."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from anchorfield.cuda_ext.binning import TILE, Bins, bin_tiles
from anchorfield.cuda_ext.compositing import composite
from anchorfield.cuda_ext.projection import Projected
from anchorfield.cuda_ext.spherical_harmonics import spherical_harmonics
from anchorfield.renderer import backends
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.splatting import flattened, splat
from anchorfield.renderer.types import Frame, Gaussians

LEAST, MOST, STOP = 1 / 255, 0.99, 1e-4  # alpha that counts, alpha at most, transmittance that ends a pixel


@torch.no_grad()
def splat_strips(gaussians: Gaussians, camera: Camera, background: Tensor, rows: int) -> Iterator[Frame]:
    """The image of `splat`, bit for bit, in strips of `rows` rows (a multiple of 16) from top to bottom."""
    if backends.current() == backends.GSPLAT:
        yield splat(gaussians, camera, background).frame()
        return
    projected = flattened(gaussians, camera)
    colours = spherical_harmonics(gaussians.sh, gaussians.means, camera.centre, gaussians.sh_degree, projected.visible)
    features = torch.cat([colours, projected.depths[:, None]], 1)
    behind = torch.cat([background, background.new_zeros(1)])
    bins = bin_tiles(projected, camera.width, camera.height)
    for top, bottom in _strips(camera.height, rows):
        image, alpha = composite(
            projected.means2d,
            projected.conics,
            projected.opacities,
            features,
            _between(bins, top, bottom, camera.width),
            camera.width,
            bottom,  # tiles above the strip are empty: a camera of its own would round and clamp otherwise
            behind,
        )
        image, alpha = image[top:], alpha[top:]
        yield Frame(image[..., :3], alpha, image[..., 3] / alpha.clamp_min(1e-6))


def _strips(height: int, rows: int) -> Iterator[tuple[int, int]]:
    step = max(TILE, rows // TILE * TILE)
    for top in range(0, height, step):
        yield top, min(top + step, height)


def _between(bins: Bins, top: int, bottom: int, width: int) -> Bins:
    """The pairs of the tiles between two rows of the image; the tiles above have none."""
    across = -(-width // TILE)
    first, last = top // TILE * across, -(-bottom // TILE) * across
    offsets = bins.tile_offsets[: last + 1].clone()
    offsets[:first] = offsets[first]
    return bins._replace(tile_offsets=offsets)


@torch.no_grad()
def blend_counts(gaussians: Gaussians, camera: Camera, rows: int | None = None) -> Iterator[Tensor]:
    """How many Gaussians each pixel blends, int32 strips [rows, W] from top to bottom: the work behind an image.

    Those count whose alpha reaches 1/255 where the pixel is not opaque yet.
    """
    projected = flattened(gaussians, camera)
    bins = bin_tiles(projected, camera.width, camera.height)
    across = -(-camera.width // TILE)
    offsets = bins.tile_offsets.tolist()
    for top, bottom in _strips(camera.height, rows or camera.height):
        counts = torch.zeros(-(-(bottom - top) // TILE) * TILE, across * TILE, dtype=torch.int32)
        for row in range(top // TILE, -(-bottom // TILE)):
            for column in range(across):
                tile = row * across + column
                begin, end = offsets[tile], offsets[tile + 1]
                if begin < end:
                    y = row * TILE - top
                    pairs = bins.gaussians[begin:end].long()
                    counts[y : y + TILE, column * TILE : (column + 1) * TILE] = _tile_counts(
                        projected, pairs, column * TILE, row * TILE
                    )
        yield counts[: bottom - top, : camera.width]


def _tile_counts(projected: Projected, order: Tensor, left: int, top: int) -> Tensor:
    """Counts of one tile, [16, 16], of these Gaussians front to back."""
    means, conics, opacities = projected.means2d[order], projected.conics[order], projected.opacities[order]
    at = torch.arange(TILE) + 0.5
    dx = (left + at)[None, :] - means[:, :1]  # [P, 16]
    dy = (top + at)[None, :] - means[:, 1:]
    a, b, c = (conics[:, i, None, None] for i in range(3))
    sigma = 0.5 * (a * dx[:, None, :].square() + c * dy[:, :, None].square()) + b * dx[:, None, :] * dy[:, :, None]
    alpha = (opacities[:, None, None] * torch.exp(-sigma)).clamp_max(MOST)
    alpha = torch.where(alpha < LEAST, 0, alpha)
    before = torch.ones_like(alpha)
    before[1:] = torch.cumprod(1 - alpha, 0)[:-1]
    return ((alpha > 0) & (before > STOP)).sum(0, dtype=torch.int32)
