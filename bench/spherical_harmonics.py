"""Spherical harmonics of degree 3: reads 48 coefficients of a Gaussian in view; backward writes as many for all."""

from __future__ import annotations

from collections.abc import Iterator

from bench import _table
from bench._operations import FLOAT, Operation, Stages, backward, colours, forward

LANES, BACKWARD_LANES = 80, 200  # arithmetic of one Gaussian in view


def operations(stages: Stages) -> Iterator[Operation]:
    """Colours forward and backward."""
    gaussians, seen, count = stages.gaussians, stages.visible, stages.count
    flat = type(stages.flat)(*(t.detach() for t in stages.flat))
    output = colours(gaussians, stages.camera, flat)
    yield Operation(
        "harmonics",
        forward(lambda: colours(gaussians, stages.camera, flat)),
        LANES * seen,
        FLOAT * ((48 + 3) * seen + 3 * count),
    )
    yield Operation(
        "harmonics backward",
        backward(output, (gaussians.sh, gaussians.means)),
        BACKWARD_LANES * seen,
        FLOAT * ((48 + 3 + 3 + 3) * seen + (48 + 3) * count),
    )


if __name__ == "__main__":
    _table.main(operations)
