"""Compositing: about 22 operations for each pixel that a Gaussian reaches, 45 backward (exponential included)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from anchorfield.cuda_ext.compositing import composite
from bench import _table
from bench._operations import FLOAT, Operation, Stages, backward, forward

LANES, BACKWARD_LANES = 22, 45


def operations(stages: Stages) -> Iterator[Operation]:
    """Blending forward and backward."""
    camera, bins, evaluations = stages.camera, stages.bins, stages.evaluations
    values = (stages.flat.means2d, stages.flat.conics, stages.flat.opacities, stages.colours)
    means2d, conics, opacities, colours = leaves = tuple(t.detach().requires_grad_() for t in values)

    def blend() -> tuple[Tensor, Tensor]:
        return composite(means2d, conics, opacities, colours, bins, camera.width, camera.height, torch.zeros(3))

    yield Operation(
        "compositing", forward(blend), LANES * evaluations, 4 * FLOAT * stages.pixels, evaluations=evaluations
    )
    yield Operation(
        "compositing backward",
        backward(blend()[0], leaves),
        BACKWARD_LANES * evaluations,
        4 * FLOAT * stages.pixels,
        evaluations=evaluations,
    )


if __name__ == "__main__":
    _table.main(operations)
