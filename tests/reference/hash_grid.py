"""Multiresolution hash grids (Mueller et al. 2022), vertex by vertex."""

from __future__ import annotations

import itertools
import math
from typing import Protocol

import torch
from torch import Tensor

PRIMES = (1, 2654435761, 805459861, 3674653429)


class Settings(Protocol):
    """The settings of a grid, of which everything else follows."""

    @property
    def levels(self) -> int: ...
    @property
    def log2_table_size(self) -> int: ...
    @property
    def base_resolution(self) -> int: ...
    @property
    def per_level_scale(self) -> float: ...
    @property
    def interpolation(self) -> str: ...


def scale_of(grid: Settings, level: int) -> float:
    """Cells of a level along an axis."""
    return float(grid.base_resolution * grid.per_level_scale**level - 1)


def side_of(grid: Settings, level: int) -> int:
    """Vertices along an axis that positions in [0, 1] touch."""
    return math.ceil(scale_of(grid, level)) + 2


def is_dense(grid: Settings, level: int, dimensions: int) -> bool:
    """Whether each vertex has a row of its own."""
    return bool(side_of(grid, level) ** dimensions <= 2**grid.log2_table_size)


def rows_of(grid: Settings, level: int, dimensions: int) -> int:
    """Rows that a level has in the table."""
    vertices = side_of(grid, level) ** dimensions
    return math.ceil(vertices / 8) * 8 if is_dense(grid, level, dimensions) else 2**grid.log2_table_size


def row_of(grid: Settings, level: int, vertex: tuple[int, ...]) -> int:
    """The row of a vertex, counted from the first of its level."""
    if is_dense(grid, level, len(vertex)):
        return sum(c * side_of(grid, level) ** axis for axis, c in enumerate(vertex))
    row = 0
    for c, prime in zip(vertex, PRIMES, strict=False):
        row ^= (c * prime) % 2**32
    return row % 2**grid.log2_table_size


def in_cells(grid: Settings, level: int, positions: Tensor) -> Tensor:
    """Where the positions lie among a level's vertices."""
    return positions.clamp(0, 1) * scale_of(grid, level) + 0.5


def hash_grid(positions: Tensor, table: Tensor, layout: Settings) -> Tensor:
    """Features of all levels interpolated at the positions, [N, levels * F]."""
    count, dimensions = positions.shape
    columns, first = [], 0
    for level in range(layout.levels):
        at = in_cells(layout, level, positions)
        cells = at.detach().floor()
        blends = at - cells
        if layout.interpolation == "smoothstep":
            blends = blends**2 * (3 - 2 * blends)
        total = torch.zeros(count, table.shape[1], dtype=table.dtype)
        for corner in itertools.product((0, 1), repeat=dimensions):
            vertices = (cells.long() + torch.tensor(corner)).tolist()
            rows = [first + row_of(layout, level, tuple(vertex)) for vertex in vertices]
            sides = [blends[:, k] if upper else 1 - blends[:, k] for k, upper in enumerate(corner)]
            weights = torch.stack(sides).prod(0)
            total = total + weights[:, None] * table[torch.tensor(rows, dtype=torch.int64)]
        columns.append(total)
        first += rows_of(layout, level, dimensions)
    return torch.cat(columns, 1)
