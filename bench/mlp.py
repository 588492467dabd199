"""Perceptrons of hash grid fields: density 32 -> 64 -> 16, colour 32 -> 64 -> 64 -> 3, as many rows as Gaussians.

The floor counts each weight once for each row, twice backward: that hidden units are computed again is not work that
must be. Also the harmonics that the colour's perceptron sees directions by.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from anchorfield.cuda_ext.directions import spherical_harmonics_basis
from anchorfield.cuda_ext.mlp import MlpLayout, mlp
from bench import _table
from bench._operations import FLOAT, Operation, Stages, backward, forward

LAYOUTS = {"density": MlpLayout(32, 16), "colour": MlpLayout(32, 3, hidden=2)}
BASIS_LANES, BASIS_BACKWARD_LANES = 40, 110  # of one direction, degree 3


def operations(stages: Stages) -> Iterator[Operation]:
    """Perceptrons and the basis, forward and backward to all that they differentiate."""
    g = torch.Generator().manual_seed(0)
    count = stages.count
    for name, layout in LAYOUTS.items():
        inputs = torch.randn(count, layout.inputs, generator=g).requires_grad_()
        weights = layout.initial(g).requires_grad_()
        call = forward(lambda x=inputs, w=weights, at=layout: mlp(x, w, at))  # type: ignore[misc]
        products, passing = layout.size * count, FLOAT * (layout.inputs + layout.outputs) * count
        yield Operation(f"{name} perceptron", call, products, passing)
        run = backward(mlp(inputs, weights, layout), (inputs, weights))
        yield Operation(f"{name} perceptron backward", run, 2 * products, passing + FLOAT * layout.inputs * count)
    axes = torch.nn.functional.normalize(torch.randn(count, 3, generator=g)).requires_grad_()
    call = forward(lambda: spherical_harmonics_basis(axes, 3))
    yield Operation("harmonics basis", call, BASIS_LANES * count, (3 + 16) * FLOAT * count)
    run = backward(spherical_harmonics_basis(axes, 3), (axes,))
    yield Operation("harmonics basis backward", run, BASIS_BACKWARD_LANES * count, (6 + 16) * FLOAT * count)


if __name__ == "__main__":
    _table.main(operations)
