"""Exploration noise of MCMC: reads a Gaussian's shape and a random vector, moves its mean."""

from __future__ import annotations

from collections.abc import Iterator

from anchorfield.cuda_ext.langevin import perturb_means
from bench import _table
from bench._operations import FLOAT, Operation, Stages

LANES = 90  # of one Gaussian


def operations(stages: Stages) -> Iterator[Operation]:
    """One move of all Gaussians."""
    gaussians, count = stages.made.gaussians, stages.count
    means = gaussians.means.clone()
    shape = (gaussians.quats, gaussians.log_scales, gaussians.logit_opacities)
    yield Operation(
        "exploration", lambda: perturb_means(means, *shape, 1e-9, seed=0), LANES * count, (3 + 8 + 3) * FLOAT * count
    )


if __name__ == "__main__":
    _table.main(operations)
