"""Projection: reads 11 numbers of a Gaussian and writes 9; backward reads those and 8 gradients and writes 11."""

from __future__ import annotations

from collections.abc import Iterator

from anchorfield.renderer.splatting import flattened
from bench import _table
from bench._operations import FLOAT, Operation, Stages, backward, forward

LANES, BACKWARD_LANES = 150, 350  # arithmetic of one Gaussian, counted in the formulas


def operations(stages: Stages) -> Iterator[Operation]:
    """Projection forward and backward."""
    gaussians, camera, count = stages.gaussians, stages.camera, stages.count
    inputs = (gaussians.means, gaussians.quats, gaussians.log_scales, gaussians.logit_opacities)
    yield Operation(
        "projection", forward(lambda: flattened(gaussians, camera)), LANES * count, (11 + 9) * FLOAT * count
    )
    yield Operation(
        "projection backward",
        backward(stages.flat[:4], inputs),
        BACKWARD_LANES * count,
        (11 + 8 + 11) * FLOAT * count,
    )


if __name__ == "__main__":
    _table.main(operations)
