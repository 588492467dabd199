"""Adam: reads parameter, gradient and two moments of 59 numbers a Gaussian in view, writes three of them.

Of what a gradient touches: the gradient of a whole hash table; parameter, moments and a count of two bytes of what is
touched.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from anchorfield.cuda_ext.hash_grid import HashGrid, hash_grid
from anchorfield.renderer.adam import Adam
from anchorfield.renderer.types import PARAMETERS
from bench import _table
from bench._operations import FLOAT, Operation, Stages

NUMBERS = 3 + 3 + 4 + 1 + 48
LANES = 14  # of one number


def operations(stages: Stages) -> Iterator[Operation]:
    """A sparse step on the Gaussians in view."""
    parameters = {name: nn.Parameter(getattr(stages.gaussians, name).detach().clone()) for name in PARAMETERS}
    for parameter in parameters.values():
        parameter.grad = torch.full_like(parameter, 1e-3)
    optimiser = Adam(parameters, dict.fromkeys(PARAMETERS, 1e-9))
    visible = stages.flat.visible

    def run() -> None:
        optimiser.rows = visible
        optimiser.step()

    numbers = NUMBERS * stages.visible
    yield Operation("Adam", run, LANES * numbers, (4 + 3) * FLOAT * numbers)
    yield touched(stages)


def touched(stages: Stages) -> Operation:
    """A step of the table of a hash grid that was read at as many random positions as there are Gaussians."""
    g = torch.Generator().manual_seed(0)
    layout = HashGrid.up_to(2048, log2_table_size=19)
    table = nn.Parameter(torch.randn(layout.rows, layout.features, generator=g))
    encoded = hash_grid(torch.rand(stages.count, 3, generator=g), table, layout)
    encoded.backward(torch.randn(encoded.shape, generator=g))
    assert table.grad is not None
    optimiser = Adam({"table": table}, {"table": 1e-9}, touched=["table"], betas=(0.9, 0.99))
    for _ in range(3):
        optimiser.step()
    numbers = int((table.grad != 0).sum())
    traffic = FLOAT * table.numel() + (6 * FLOAT + 2 * 2) * numbers
    return Operation("Adam of touched", optimiser.step, LANES * numbers, traffic)


if __name__ == "__main__":
    _table.main(operations)
