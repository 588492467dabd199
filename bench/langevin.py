"""Exploration noise of MCMC: reads a Gaussian's shape and a random vector, moves its mean."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from anchorfield.cuda_ext.langevin import perturb_means
from bench import _table
from bench._operations import FLOAT, Operation, Stages

LANES = 90  # of one Gaussian


def operations(stages: Stages) -> Iterator[Operation]:
    """One move of all Gaussians."""
    gaussians, count = stages.made.gaussians, stages.count
    means, noise = gaussians.means.clone(), torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    shape = (gaussians.quats, gaussians.log_scales, gaussians.logit_opacities)
    yield Operation(
        "exploration", lambda: perturb_means(means, *shape, noise, 1e-9), LANES * count, (3 + 8 + 3 + 3) * FLOAT * count
    )


if __name__ == "__main__":
    _table.main(operations)
