"""Multiresolution hash grids (Mueller et al. 2022), vertex by vertex; with simplices, and with rows that are chosen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

PRIMES = (1, 2654435761, 805459861, 3674653429)
ENTRY_PRIMES = (2246822519, 3266489917, 668265263, 374761393)


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
    @property
    def dimensions(self) -> int: ...
    @property
    def probes(self) -> int: ...
    @property
    def log2_index_size(self) -> int: ...


def scale_of(grid: Settings, level: int) -> float:
    """Cells of a level along an axis."""
    scale = float(grid.base_resolution * grid.per_level_scale**level - 1)
    d = grid.dimensions
    return scale / (d + 1) ** (1 / (2 * d)) if grid.interpolation == "simplex" else scale


def side_of(grid: Settings, level: int) -> int:
    """Vertices along an axis that positions in [0, 1] touch, or more."""
    if grid.interpolation == "simplex":
        return math.ceil(math.sqrt(grid.dimensions + 1) * (scale_of(grid, level) + 0.5)) + 2
    return math.ceil(scale_of(grid, level)) + 2


def is_dense(grid: Settings, level: int, dimensions: int) -> bool:
    """Whether each vertex has a row of its own."""
    return bool(side_of(grid, level) ** dimensions <= 2**grid.log2_table_size)


def rows_of(grid: Settings, level: int, dimensions: int) -> int:
    """Rows that a level has in the table."""
    vertices = side_of(grid, level) ** dimensions
    return math.ceil(vertices / 8) * 8 if is_dense(grid, level, dimensions) else 2**grid.log2_table_size


def mixed(vertex: tuple[int, ...], primes: tuple[int, ...]) -> int:
    """A hash of 32 bits."""
    number = 0
    for c, prime in zip(vertex, primes, strict=False):
        number ^= (c * prime) % 2**32
    return number


def row_of(grid: Settings, level: int, vertex: tuple[int, ...]) -> int:
    """The row of a vertex (of those to choose from the first), counted from the first of its level."""
    if is_dense(grid, level, len(vertex)):
        return sum(c * side_of(grid, level) ** axis for axis, c in enumerate(vertex))
    return grid.probes * mixed(vertex, PRIMES) % 2**grid.log2_table_size


def entry_of(grid: Settings, vertex: tuple[int, ...]) -> int:
    """Where a hashed vertex finds its choice, counted from the first of its level."""
    return mixed(vertex, ENTRY_PRIMES) // 2 ** (32 - grid.log2_index_size)


def in_cells(grid: Settings, level: int, positions: Tensor) -> Tensor:
    """Where the positions lie among a level's vertices, skewed for simplices."""
    at = positions.clamp(0, 1) * scale_of(grid, level) + 0.5
    if grid.interpolation == "simplex":
        at = at + (math.sqrt(grid.dimensions + 1) - 1) / grid.dimensions * at.sum(1, keepdim=True)
    return at


def weighted_vertices(grid: Settings, level: int, positions: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The vertices around the positions, [N, dimensions], one after the other, and their weights, [N]."""
    at = in_cells(grid, level, positions)
    cells = at.detach().floor()
    rest = at - cells
    if grid.interpolation == "simplex":
        order = rest.detach().argsort(dim=1, descending=True, stable=True)
        falling = rest.gather(1, order)
        vertex = cells.long()
        yield vertex, 1 - falling[:, 0]
        for k in range(grid.dimensions):
            vertex = vertex + torch.nn.functional.one_hot(order[:, k], grid.dimensions)
            yield vertex, falling[:, k] - falling[:, k + 1] if k + 1 < grid.dimensions else falling[:, k]
        return
    blends = rest**2 * (3 - 2 * rest) if grid.interpolation == "smoothstep" else rest
    for corner in itertools.product((0, 1), repeat=grid.dimensions):
        sides = [blends[:, k] if upper else 1 - blends[:, k] for k, upper in enumerate(corner)]
        yield cells.long() + torch.tensor(corner), torch.stack(sides).prod(0)


def hash_grid(
    positions: Tensor,
    table: Tensor,
    layout: Settings,
    choice: Tensor | None = None,
    probabilities: Tensor | None = None,
) -> Tensor:
    """Features of all levels interpolated at the positions, [N, levels * F].

    With probabilities, those of the chosen rows, but with the gradients of the expected ones.
    """
    count, dimensions = positions.shape
    columns, first, first_entry = [], 0, 0
    for level in range(layout.levels):
        hashed = not is_dense(layout, level, dimensions)
        total = torch.zeros(count, table.shape[1], dtype=table.dtype)
        for vertices, weights in weighted_vertices(layout, level, positions):
            at = [tuple(vertex) for vertex in vertices.tolist()]
            rows = torch.tensor([first + row_of(layout, level, vertex) for vertex in at], dtype=torch.int64)
            entries = torch.tensor([first_entry + entry_of(layout, vertex) for vertex in at], dtype=torch.int64)
            features = table[rows + choice[entries] if hashed and choice is not None else rows]
            if hashed and probabilities is not None:
                near = table[rows[:, None] + torch.arange(layout.probes)]
                expected = (probabilities[entries][..., None] * near).sum(1)
                features = features.detach() + expected - expected.detach()
            total = total + weights[:, None] * features
        columns.append(total)
        first += rows_of(layout, level, dimensions)
        first_entry += 2**layout.log2_index_size if hashed else 0
    return torch.cat(columns, 1)
