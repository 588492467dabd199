"""Structural similarity with its gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from anchorfield.cuda_ext import _kernels
from anchorfield.cuda_ext._checks import check


def ssim(
    image: Tensor,  # [H, W, C]
    target: Tensor,  # [H, W, C]
) -> Tensor:
    """Mean structural similarity over pixels and channels, a scalar; differentiable in `image`.

    Wang et al. 2004: 11x11 Gaussian window of sigma 1.5, C1 = 0.01^2, C2 = 0.03^2 for values in [0, 1], zero padding.
    """
    sizes = check(image=(image, ("H", "W", "C")), target=(target, ("H", "W", "C")))
    if min(sizes.values()) < 1:
        raise ValueError(f"image: expected at least one pixel and channel, got [{', '.join(map(str, image.shape))}]")
    mean: Tensor = _ssim(image, target)[0]
    return mean


@torch.library.custom_op("anchorfield::ssim", mutates_args=(), device_types="cpu")
def _ssim(image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    # The gradient is made here, where the windowed moments are at hand; the backward pass only scales it.
    mean = image.new_empty(())
    v_image = torch.empty(image.shape, dtype=image.dtype, device=image.device)
    _kernels.ssim(image.detach().contiguous(), target.detach().contiguous(), mean, v_image)
    return mean, v_image


@_ssim.register_fake
def _(image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    return image.new_empty(()), torch.empty(image.shape, dtype=image.dtype, device=image.device)


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, v_mean: Tensor, _: Tensor) -> tuple[Tensor, None]:
    (v_image,) = ctx.saved_tensors
    return v_image * v_mean, None


_ssim.register_autograd(_backward, setup_context=_setup)
