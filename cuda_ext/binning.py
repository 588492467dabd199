"""Which Gaussians reach which tiles of the image, front to back."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from anchorfield.cuda_ext import _kernels
from anchorfield.cuda_ext._checks import check, check_size
from anchorfield.cuda_ext.projection import Projected

TILE = 16  # pixels along a tile's side
BLOCK = 4  # pixels along the side of the blocks that `Bins.blocks` speaks of


class Bins(NamedTuple):
    """(tile, Gaussian) pairs: by tile (row by row), in a tile by depth. Integers without gradient."""

    gaussians: Tensor  # [P] int32 the pair's Gaussian
    blocks: Tensor  # [P] uint16 bit 4 * row + column is set where the ellipse meets that 4x4 block of the tile
    slots: Tensor  # [P] int32 the pair's number when counted Gaussian by Gaussian
    tile_offsets: Tensor  # [tiles + 1] int32 into the pairs
    order: Tensor  # [V] int32 the visible Gaussians by depth
    order_offsets: Tensor  # [V + 1] int32 into the slots


def bin_tiles(projected: Projected, width: int, height: int) -> Bins:
    """Sort Gaussians into 16x16 tiles, leaving out tiles and 4x4 blocks that the ellipse alpha >= 1/255 misses.

    The test is exact (least value of the quadratic form over the block's pixel centres) up to a margin for rounding.
    """
    check(
        means2d=(projected.means2d, ("N", 2)),
        conics=(projected.conics, ("N", 3)),
        depths=(projected.depths, ("N",)),
        opacities=(projected.opacities, ("N",)),
        extents=(projected.extents, ("N", 2)),
    )
    check_size(width, height)
    arrays = [t.detach().contiguous() for t in projected]
    return Bins(*_bin_tiles(*arrays, width, height))


@torch.library.custom_op("anchorfield::bin_tiles", mutates_args=(), device_types="cpu")
def _bin_tiles(
    means2d: Tensor, conics: Tensor, depths: Tensor, opacities: Tensor, extents: Tensor, width: int, height: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    lists = _kernels.bin_tiles(means2d, conics, depths, opacities, extents, width, height)
    gaussians, blocks, slots, tile_offsets, order, order_offsets = map(torch.from_numpy, lists)
    return gaussians, blocks, slots, tile_offsets, order, order_offsets


@_bin_tiles.register_fake
def _(means2d: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    width, height = rest[-2:]
    tiles = -(-width // TILE) * -(-height // TILE)
    pairs, visible = (torch.library.get_ctx().new_dynamic_size() for _ in range(2))
    lengths = (pairs, pairs, pairs, tiles + 1, visible, visible + 1)
    kinds = (torch.int32, torch.uint16, *[torch.int32] * 4)
    return tuple(means2d.new_empty((n,), dtype=kind) for n, kind in zip(lengths, kinds, strict=True))
