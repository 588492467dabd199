"""How many lanes of a vector do useful work: counted pixel by pixel, independent of the kernels.

A pixel is useful to a Gaussian where alpha reaches 1/255 and the pixel is not opaque yet; a vector is executed where
any of its pixels is. Everything is counted from one table of alpha per tile of 32 pixels, which all smaller tiles and
shapes of vectors divide.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from anchorfield.cuda_ext.projection import Projected

SIDE = 32  # pixels of the tiles that are walked
TILES = (8, 16, 32)
SHAPES = {"16x1": (1, 16), "8x2": (2, 8), "4x4": (4, 4)}  # rows, columns of a vector of 16 lanes
LEAST, CAP, STOP = 1 / 255, 0.99, 1e-4  # alpha that counts, alpha at most, transmittance that ends a pixel


def counts(flat: Projected, width: int, height: int) -> dict[str, float]:
    """Totals over an image: tile pairs and evaluations for each tile size, vectors for each shape, useful lanes.

    "blends" are the useful lanes, "reached" those without the opaque stop. Of a tile of n pixels a side, "pairs n" are
    (tile, Gaussian) pairs with any pixel above 1/255, "evaluations n" the lanes of a kernel that tests nothing smaller,
    and "stopped n" those that remain when a tile ends with its last pixel.
    """
    total: dict[str, float] = {}
    for alpha in _tiles(flat, width, height):
        for name, value in _tile_counts(alpha).items():
            total[name] = total.get(name, 0.0) + value
    return total


def useful(total: dict[str, float]) -> dict[str, float]:
    """Share of lanes that blend, for each shape of a vector."""
    return {shape: total["blends"] / (16 * total[f"vectors {shape}"]) for shape in SHAPES}


def _tiles(flat: Projected, width: int, height: int) -> Iterator[Tensor]:
    """For every tile of SIDE the Gaussians' alpha front to back, [P, SIDE, SIDE]; 0 outside the image."""
    seen = flat.depths.masked_fill(~flat.visible, torch.inf).argsort(stable=True)[: int(flat.visible.sum())]
    means, conics, opacities, extents = (t.detach()[seen] for t in (flat.means2d, flat.conics, flat.opacities, flat[4]))
    low, high = means - extents, means + extents
    for top in range(0, height, SIDE):
        row = ((high[:, 1] > top) & (low[:, 1] < top + SIDE)).nonzero()[:, 0]
        for left in range(0, width, SIDE):
            near = row[(high[row, 0] > left) & (low[row, 0] < left + SIDE)]
            if len(near):
                alpha = _alpha(means[near], conics[near], opacities[near], left, top)
                alpha[:, :, max(0, width - left) :] = 0
                alpha[:, max(0, height - top) :] = 0
                yield alpha


def _alpha(means: Tensor, conics: Tensor, opacities: Tensor, left: int, top: int) -> Tensor:
    centres = torch.arange(SIDE) + 0.5
    dx, dy = means[:, 0, None] - left - centres, means[:, 1, None] - top - centres  # [P, SIDE]
    a, b, c = (t[:, None, None] for t in conics.unbind(1))
    dx, dy = dx[:, None, :], dy[:, :, None]
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    return opacities[:, None, None] * torch.exp(-sigma)


def _tile_counts(alpha: Tensor) -> dict[str, float]:
    reached = alpha >= LEAST
    through = 1 - alpha.clamp_max(CAP).where(reached, alpha.new_zeros(()))
    alive = through.cumprod_(0) > STOP  # the Gaussian that would end the pixel is not added
    blended = reached & alive
    found = {"reached": reached.sum(), "blends": blended.sum()}
    for shape, (rows, columns) in SHAPES.items():
        found[f"vectors {shape}"] = _blocks(blended, rows, columns).sum()
        found[f"reached vectors {shape}"] = _blocks(reached, rows, columns).sum()
    for side in TILES:
        pairs = _blocks(reached, side, side)
        found[f"pairs {side}"] = pairs.sum()
        found[f"evaluations {side}"] = side * side * pairs.sum()
        found[f"stopped {side}"] = side * side * (pairs & _blocks(alive, side, side)).sum()
    return {name: float(value) for name, value in found.items()}


def _blocks(lanes: Tensor, rows: int, columns: int) -> Tensor:
    """Which blocks of rows x columns hold any of the lanes, [P, SIDE / rows, SIDE / columns]."""
    found: Tensor = lanes.unflatten(2, (-1, columns)).unflatten(1, (-1, rows)).any(4).any(2)
    return found
