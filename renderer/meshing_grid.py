"""Where a function on a grid is zero: marching cubes over tiles, of which only one is dense at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anchorfield.renderer.meshing import Mesh

TILE = 64  # cells along a tile's side
_NEAR_ZERO = 1e-4  # values nearer to zero are moved away from it: every vertex then lies inside one edge of the grid

Corner = tuple[int, int, int]
Sampler = Callable[[Corner, Corner], NDArray[np.float32]]


def zero_surface(
    sample: Sampler, tiles: Iterable[Corner], cells: Corner, origin: NDArray[np.float64], spacing: float, threads: int
) -> Mesh:
    """The surface between positive values (outside) and negative ones (inside).

    `sample(first, count)` gives the values [count] at grid points from `first` on, NaN where nothing is known; cells
    with an unknown corner stay open. `tiles` are the tiles (in units of TILE cells) that may hold a surface, of a grid
    of `cells` cells whose point (0, 0, 0) lies at `origin`.
    """

    def of_tile(tile: Corner) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        first = (tile[0] * TILE, tile[1] * TILE, tile[2] * TILE)
        return _marched(sample(first, _points(first, cells)), first)

    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(of_tile, tiles))
    starts = np.cumsum([0] + [len(vertices) for vertices, _ in parts])
    vertices = np.concatenate([np.empty((0, 3))] + [vertices for vertices, _ in parts])
    faces = np.concatenate(
        [np.empty((0, 3), np.int64)] + [part + start for (_, part), start in zip(parts, starts, strict=False)]
    )
    return _welded(vertices, faces, cells, origin, spacing)


def field_surface(
    field: Callable[[Tensor], Tensor], low: NDArray[np.float64], spacing: float, cells: Corner
) -> Iterator[Mesh | None]:
    """The surface where `field` of world points [N, 3] falls below zero, on a grid from `low` on.

    Yields None after each tile but the last, then the mesh.
    """
    tiles = [(int(x), int(y), int(z)) for x, y, z in np.ndindex(*(-(-size // TILE) for size in cells))]
    known: dict[Corner, NDArray[np.float32]] = {}

    def sample(first: Corner, count: Corner) -> NDArray[np.float32]:
        axes = [
            torch.arange(start, start + size) * spacing + offset
            for start, size, offset in zip(first, count, low, strict=True)
        ]
        with torch.no_grad():
            slabs = [
                field(torch.stack(torch.meshgrid(x[None], axes[1], axes[2], indexing="ij"), -1).reshape(-1, 3).float())
                for x in axes[0]
            ]
        return torch.cat(slabs).reshape(count).float().cpu().numpy()

    for tile in tiles:
        first = (tile[0] * TILE, tile[1] * TILE, tile[2] * TILE)
        values = sample(first, _points(first, cells))
        if values.min() < 0 < values.max():
            known[first] = values
        yield None
    places = [(x // TILE, y // TILE, z // TILE) for x, y, z in known]
    yield zero_surface(lambda first, count: known[first], places, cells, low, spacing, 1)


def _points(first: Corner, cells: Corner) -> Corner:
    """How many grid points a tile has along each axis."""
    x, y, z = (min(TILE, size - start) + 1 for start, size in zip(first, cells, strict=True))
    return x, y, z


def _marched(values: NDArray[np.float32], first: Corner) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices in grid units and faces of one tile."""
    nothing = np.empty((0, 3)), np.empty((0, 3), np.int64)
    if min(values.shape) < 2:
        return nothing
    known = np.isfinite(values)
    filled = np.where(known, values, np.float32(1))
    filled[np.abs(filled) < _NEAR_ZERO] = _NEAR_ZERO
    if not (filled.min() < 0 < filled.max()):
        return nothing
    from skimage.measure import marching_cubes

    vertices, faces, _, _ = marching_cubes(filled, 0.0, gradient_direction="descent")  # type: ignore[no-untyped-call]
    whole = np.ones(tuple(size - 1 for size in values.shape), bool)
    for corner in np.ndindex(2, 2, 2):
        whole &= known[tuple(slice(c, size - 1 + c) for c, size in zip(corner, values.shape, strict=True))]
    cell = np.floor(vertices[faces].mean(axis=1)).astype(np.int64)
    kept = faces[whole[tuple(np.minimum(cell, np.array(whole.shape) - 1).T)]]
    return vertices.astype(np.float64) + first, kept.astype(np.int64)


def _welded(
    vertices: NDArray[np.float64],
    faces: NDArray[np.int64],
    cells: Corner,
    origin: NDArray[np.float64],
    spacing: float,
) -> Mesh:
    """One vertex for every edge of the grid that the surface cuts: tiles then hang together."""
    used = np.unique(faces)
    number = np.zeros(len(vertices), np.int64)
    number[used] = np.arange(len(used))
    vertices, faces = vertices[used], number[faces]
    whole = np.floor(vertices + 1e-5).astype(np.int64)  # the edge's lower end
    axis = np.argmax(vertices - whole, axis=1)
    size = np.array(cells, np.int64) + 1
    edge = ((whole[:, 0] * size[1] + whole[:, 1]) * size[2] + whole[:, 2]) * 3 + axis
    _, kept, same = np.unique(edge, return_index=True, return_inverse=True)
    faces = same.reshape(-1)[faces]
    distinct = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    return Mesh(
        np.asarray(vertices[kept] * spacing + origin, np.float32), np.ascontiguousarray(faces[distinct], np.int32)
    )
