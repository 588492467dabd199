"""The photometric loss with its gradient: 110 multiply-adds of windowed moments and 66 of their gradients a number."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from anchorfield.renderer.losses import photometric
from bench import _table
from bench._operations import FLOAT, Operation, Stages

LANES = (
    5 * 2 * 11 + 3 * 2 * 11 + 30
)  # of one pixel's channel: five windowed moments, three windowed gradients, the rest


def operations(stages: Stages) -> Iterator[Operation]:
    """Loss and gradient of an image."""
    random = torch.Generator().manual_seed(0)
    size = (stages.camera.height, stages.camera.width, 3)
    image = torch.rand(size, generator=random).requires_grad_()
    photo = (image.detach() + 0.1 * torch.randn(size, generator=random)).clamp(0, 1)

    def run() -> tuple[Tensor, ...]:
        return torch.autograd.grad(torch.stack(list(photometric(image, photo).values())).sum(), image)

    numbers = 3 * stages.pixels
    yield Operation("loss with gradient", run, LANES * numbers, 3 * FLOAT * numbers)


if __name__ == "__main__":
    _table.main(operations)
