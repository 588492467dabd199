"""Hash grids at random positions, so that nothing is coherent, in tables that fit a cache and that do not.

The floor counts each number of table and encoding once. What limits the kernels are eight rows anywhere in a level, for
each position and level, from the second-level cache (2^15 rows) or from the third (2^19).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from anchorfield.cuda_ext.hash_grid import HashGrid, hash_grid
from bench import _table
from bench._operations import FLOAT, Operation, Stages, backward, forward

LANES, TABLE_LANES, POSITION_LANES = 60, 60, 100  # arithmetic of one position in one level
LAYOUTS = {"2^15": HashGrid(), "2^19": HashGrid.up_to(2048, log2_table_size=19)}
PRIMES = (1, 2654435761, 805459861)


def operations(stages: Stages) -> Iterator[Operation]:
    """Encoding, and its gradients to table and positions, of as many positions as there are Gaussians."""
    for name, layout in LAYOUTS.items():
        positions, table, samples, traffic = _work(stages.count, layout)
        encoded = hash_grid(positions, table, layout)
        call = forward(lambda p=positions, t=table, at=layout: hash_grid(p, t, at))  # type: ignore[misc]
        yield Operation(f"hash grid {name}", call, LANES * samples, traffic)
        for what, lanes, leaf in (("table", TABLE_LANES, table), ("positions", POSITION_LANES, positions)):
            run = backward(encoded, (leaf,))
            yield Operation(f"hash grid {name} to {what}", run, lanes * samples, traffic)


def torch_operations(stages: Stages) -> Iterator[Operation]:
    """The same, forward and backward to the table, in plain torch."""
    for name, layout in LAYOUTS.items():
        positions, table, samples, traffic = _work(stages.count, layout)
        encoded = torch_hash_grid(positions.detach(), table, layout)
        call = forward(lambda p=positions, t=table, at=layout: torch_hash_grid(p, t, at))  # type: ignore[misc]
        yield Operation(f"torch grid {name}", call, LANES * samples, traffic)
        yield Operation(f"torch grid {name} to table", backward(encoded, (table,)), TABLE_LANES * samples, traffic)


def _work(count: int, layout: HashGrid) -> tuple[Tensor, Tensor, int, float]:
    """Positions and table as leaves, pairs of position and level, bytes of positions, table and encoding."""
    g = torch.Generator().manual_seed(0)
    positions = torch.rand(count, 3, generator=g).requires_grad_()
    table = torch.randn(layout.rows, layout.features, generator=g).requires_grad_()
    samples = count * layout.levels
    touched = layout.features * min(layout.rows, 8 * samples)
    return positions, table, samples, FLOAT * (count * (3 + layout.size) + touched)


def torch_hash_grid(positions: Tensor, table: Tensor, layout: HashGrid) -> Tensor:
    """The encoding with linear interpolation, corner by corner."""
    columns = []
    for scale, side, first, end in zip(layout.scales, layout.sides, *_ends(layout), strict=True):
        at = positions.clamp(0, 1) * scale + 0.5
        cells = at.detach().floor()
        blends, vertex = at - cells, cells.long()
        total = torch.zeros(())
        for corner in itertools.product((0, 1), repeat=3):
            x, y, z = (vertex + torch.tensor(corner)).unbind(1)
            mixed = x ^ y * PRIMES[1] ^ z * PRIMES[2]
            rows = x + side * (y + side * z) if side else mixed & (end - first - 1)
            weights = torch.where(torch.tensor(corner, dtype=torch.bool), blends, 1 - blends).prod(1)
            total = total + weights[:, None] * table[first + rows]
        columns.append(total)
    return torch.cat(columns, 1)


def _ends(layout: HashGrid) -> tuple[list[int], list[int]]:
    return layout.offsets[:-1], layout.offsets[1:]


if __name__ == "__main__":
    _table.main(operations, torch_operations)
