"""Which parts of space are worth sampling: an estimate that follows the field as it trains (Mueller et al. 2022, E.2).

Space is that of `cuda_ext.marching`: the unit cube, and around it cascades of cubes, each twice as wide as the one
inside. Cells are in Morton order.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anchorfield.cuda_ext.marching import OccupancyLayout
from anchorfield.renderer.cameras import Camera

DECAY = 0.95  # of a cell from one update to the next
THRESHOLD = 0.01  # optical thickness of a smallest step from which a cell is occupied, at most
UNSEEN, UNKNOWN = -1.0, 2.0**100  # finite, because what is not is taken for a run that went wrong
POINTS_AT_ONCE = 1 << 18  # that the field is asked about

Density = Callable[[Tensor], Tensor]
"""Points [N, 3] in the space of the cascades to their densities [N], in units of that space."""


@dataclass(frozen=True)
class Space:
    """The cube of the world that is the unit cube of marching and encodings; the world is `side` times as long."""

    centre: Tensor  # [3]
    side: float

    def to_unit(self, points: Tensor) -> Tensor:
        """Points [..., 3] of the world in the unit cube."""
        return (points - self.centre.to(points)) / self.side + 0.5

    def to_world(self, points: Tensor) -> Tensor:
        """Points [..., 3] of the unit cube in the world."""
        return (points - 0.5) * self.side + self.centre.to(points)


class OccupancyGrid(nn.Module):
    """The optical thickness of a smallest step in every cell, and the bits that rays march by.

    A cell is occupied until it was asked for the first time. Without gradients; the two buffers are all that changes.
    """

    density: Tensor  # [cascades, cells]; negative: out for ever, 2^100: not asked yet
    bits: Tensor  # [cascades, cells / 8] uint8

    def __init__(self, layout: OccupancyLayout, device: torch.device | str = "cpu"):
        super().__init__()
        self.layout = layout
        self.register_buffer("density", torch.full((layout.cascades, layout.cells), UNKNOWN, device=device))
        bits = torch.full((layout.cascades, layout.cells // 8), 255, dtype=torch.uint8, device=device)
        self.register_buffer("bits", bits)

    @property
    def threshold(self) -> float:
        """Cells above it are occupied: the mean of what is known of the unit cube's cells, at most 0.01."""
        known = self.density[0][self.density[0] != UNKNOWN]
        return min(THRESHOLD, float(known.clamp_min(0).mean())) if len(known) else THRESHOLD

    @torch.no_grad()
    def update(self, density_fn: Density, most: int, random: torch.Generator) -> None:
        """Ask the field at one random point in each of at most `most` cells; see `is_due` for when.

        All cells where `most` suffices; else half as many at random, and half as many of the occupied ones, which all
        are that were never asked. The published rule is a quarter of all cells each, and all of them at first.
        """
        asked = self._asked(most, random)
        cells, values = asked[self.density.view(-1)[asked] >= 0], []
        for some in cells.split(POINTS_AT_ONCE):
            values.append(density_fn(self._points(some, random)).reshape(-1).float())
        found = torch.cat(values) * self.layout.smallest_step if values else self.density.new_zeros(0)
        kept = (self.density < 0) | (self.density == UNKNOWN)
        density = torch.where(kept, self.density, self.density * DECAY)
        flat = density.view(-1)
        flat[cells] = torch.where(flat[cells] == UNKNOWN, 0, flat[cells])
        flat.scatter_reduce_(0, cells, found.nan_to_num().clamp_min(0), "amax")
        self.density = density
        self._set_bits()

    @torch.no_grad()
    def mark_unseen(self, cameras: Sequence[Camera], space: Space, least: int = 2) -> None:
        """Take out for ever the cells of which fewer than `least` cameras see a corner: there floaters would grow."""
        cells = cells_of(self.layout.resolution, self.density.device)
        for cascade in range(self.layout.cascades):
            seen = self._views(cameras, space, cascade)[tuple(cells.long().unbind(1))]
            self.density[cascade].masked_fill_(seen < least, UNSEEN)
        self.bits &= packed(self.density >= 0)

    def _asked(self, most: int, random: torch.Generator) -> Tensor:
        """Numbers of the cells whose turn it is, counted through all cascades; some may come twice."""
        device, count = self.density.device, self.density.numel()
        if count <= most:
            return torch.arange(count, device=device)
        anywhere = _integers(count, most // 2, random).to(device)
        occupied = (self.density.view(-1) > self.threshold).nonzero()[:, 0]
        if len(occupied) > most // 2:
            occupied = occupied[_integers(len(occupied), most // 2, random).to(device)]
        return torch.cat([anywhere, occupied])

    def _points(self, cells: Tensor, random: torch.Generator) -> Tensor:
        """A random point in each of the cells, [N, 3]."""
        points = torch.rand(len(cells), 3, generator=random, device=random.device).to(cells.device)
        numbers = cells_of(self.layout.resolution, cells.device)
        points += numbers.index_select(0, cells & self.layout.cells - 1)  # powers of two: `%` and `//` are slow
        points /= self.layout.resolution
        if self.layout.cascades == 1:
            return points
        sides = 2.0 ** torch.arange(self.layout.cascades, device=cells.device)
        cascade = cells >> self.layout.cells.bit_length() - 1
        return points.sub_(0.5).mul_(sides[cascade][:, None]).add_(0.5)

    def _set_bits(self) -> None:
        """Compare with the threshold; what is occupied in a cascade is so in the coarser ones."""
        occupied = self.density > self.threshold
        octants = torch.arange(8, device=occupied.device)
        for finer, coarser in itertools.pairwise(occupied):
            # In Morton order 2x2x2 cells follow each other, and so do the cells of an octant and of an octant's own
            # octants. The inner cube has of each octant the one that lies opposite in it.
            pooled = (finer.view(torch.int64) != 0).view(8, -1)
            coarser.view(8, 8, -1)[octants, 7 - octants] |= pooled
        self.bits = packed(occupied)

    def _views(self, cameras: Sequence[Camera], space: Space, cascade: int) -> Tensor:
        """How many cameras see a corner of each cell, [resolution, resolution, resolution] by x, y, z."""
        resolution, device = self.layout.resolution, self.density.device
        ticks = (torch.arange(resolution + 1, device=device) / resolution - 0.5) * 2**cascade * space.side
        seen = torch.zeros([resolution] * 3, dtype=torch.int32, device=device)
        for camera in cameras:
            pose = camera.world_to_camera.to(device, torch.float32)
            rows = camera.K.to(device) @ pose[:3]  # to pixels times depth
            middle = rows[:, :3] @ space.centre.to(rows) + rows[:, 3]
            x, y, z = (rows[:, k, None] * ticks for k in range(3))
            u, v, depth = middle[:, None, None, None] + x[:, :, None, None] + y[:, None, :, None] + z[:, None, None, :]
            inside = (depth > 0) & (u >= 0) & (u < camera.width * depth) & (v >= 0) & (v < camera.height * depth)
            for axis in range(3):
                inside = inside.narrow(axis, 0, resolution) | inside.narrow(axis, 1, resolution)
            seen += inside
        return seen


def is_due(step: int) -> bool:
    """Whether a step has an update: every one at first, every 16th in the end."""
    return step % min(max(step // 16, 1), 16) == 0


@functools.cache
def cells_of(resolution: int, device: torch.device) -> Tensor:
    """The cells' numbers on the axes x, y, z, [resolution^3, 3] int16, in Morton order."""
    number = torch.arange(resolution**3, device=device)
    axes = torch.zeros(3, len(number), dtype=torch.int16, device=device)
    for bit in range(resolution.bit_length() - 1):
        for axis in range(3):
            axes[axis] |= ((number >> (3 * bit + axis) & 1) << bit).to(torch.int16)
    return axes.T.contiguous()


def packed(
    occupied: Tensor,  # [..., 8 N] bool
) -> Tensor:
    """Bits [..., N] uint8: bit k of a byte is the k-th of eight truth values."""
    # Eight bytes of 0 or 1 as one number: multiplied so, byte k moves to bit 56 + k, and no two of the products meet.
    together = occupied.view(torch.int64) * 0x0102040810204080
    return (together >> 56 & 0xFF).to(torch.uint8)


def _integers(below: int, count: int, random: torch.Generator) -> Tensor:
    return torch.randint(below, (count,), generator=random, device=random.device)
