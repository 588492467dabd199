"""Adam: reads parameter, gradient and two moments of 59 numbers a Gaussian in view, writes three of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

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


if __name__ == "__main__":
    _table.main(operations)
