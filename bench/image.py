"""A rendered image, and with its gradients: what other programs are compared by."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from anchorfield.renderer.splatting import splat
from bench import _table, binning, compositing, projection, spherical_harmonics
from bench._operations import Operation, Stages, forward


def operations(stages: Stages) -> Iterator[Operation]:
    """Image alone, and image with the gradients of all parameters."""
    parts = [
        part for group in (projection, spherical_harmonics, binning, compositing) for part in group.operations(stages)
    ]
    ahead = tuple(part for part in parts if not part.name.endswith("backward"))
    v_image = upstream(stages)
    yield Operation("image", forward(lambda: image(stages)), evaluations=stages.evaluations, parts=ahead)
    yield Operation(
        "image with gradients",
        lambda: torch.autograd.grad(image(stages), leaves(stages), v_image),
        evaluations=stages.evaluations,
        parts=tuple(parts),
    )


def image(stages: Stages) -> Tensor:
    """The view over black, [H, W, 3]."""
    return splat(stages.gaussians, stages.camera, torch.zeros(3), depth=False).rgb


def leaves(stages: Stages) -> tuple[Tensor, ...]:
    """The parameters that get gradients."""
    gaussians = stages.gaussians
    return gaussians.means, gaussians.log_scales, gaussians.quats, gaussians.logit_opacities, gaussians.sh


def upstream(stages: Stages) -> Tensor:
    """A gradient of the image."""
    size = (stages.camera.height, stages.camera.width, 3)
    return torch.randn(size, generator=torch.Generator().manual_seed(0))


if __name__ == "__main__":
    _table.main(operations)
