"""The photometric terms: mean absolute difference and structural similarity, with their gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from anchorfield.cuda_ext import _kernels
from anchorfield.cuda_ext._checks import check, check_kind


def l1_and_ssim(
    image: Tensor,  # [H, W, C]
    target: Tensor,  # [H, W, C]
    mask: Tensor | None = None,  # [H, W] bool, True where pixels count
) -> tuple[Tensor, Tensor]:
    """Mean absolute difference and mean structural similarity, two scalars; differentiable in `image`.

    Wang et al. 2004: 11x11 Gaussian window of sigma 1.5, C1 = 0.01^2, C2 = 0.03^2 for values in [0, 1], zero padding,
    mean over all pixels and channels. Pixels that do not count are zero in both images, and left out of the difference.
    """
    sizes = check(image=(image, ("H", "W", "C")), target=(target, ("H", "W", "C")))
    if min(sizes.values()) < 1:
        raise ValueError(f"image: expected at least one pixel and channel, got [{', '.join(map(str, image.shape))}]")
    if mask is not None:
        check_kind("mask", mask, torch.bool, (sizes["H"], sizes["W"]), image.device)
    l1, similarity, _ = _photometric(image, target, mask, image.requires_grad and torch.is_grad_enabled())
    return l1, similarity


def ssim(
    image: Tensor,  # [H, W, C]
    target: Tensor,  # [H, W, C]
) -> Tensor:
    """Mean structural similarity alone; see `l1_and_ssim`."""
    return l1_and_ssim(image, target)[1]


@torch.library.custom_op("anchorfield::photometric", mutates_args=(), device_types="cpu")
def _photometric(
    image: Tensor, target: Tensor, mask: Tensor | None, differentiable: bool
) -> tuple[Tensor, Tensor, Tensor]:
    l1, similarity, maps = empty_outputs(image, differentiable)
    inputs = [t.detach().contiguous() for t in (image, target)]
    _kernels.photometric(
        *inputs, None if mask is None else mask.contiguous(), l1, similarity, maps if differentiable else None
    )
    return l1, similarity, maps


@_photometric.register_fake
def _outputs_fake(
    image: Tensor, target: Tensor, mask: Tensor | None, differentiable: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return empty_outputs(image, differentiable)


def empty_outputs(image: Tensor, differentiable: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The two means, and for each row of the image three of derivatives by windowed moments, padded to 16 numbers."""
    height, length = image.shape[0], image.shape[1] * image.shape[2]
    maps = (height, 3, (length + 15) // 16 * 16) if differentiable else (0,)
    return image.new_empty(()), image.new_empty(()), image.new_empty(maps)


@torch.library.custom_op("anchorfield::photometric_backward", mutates_args=(), device_types="cpu")
def _photometric_backward(
    image: Tensor, target: Tensor, mask: Tensor | None, maps: Tensor, v_l1: Tensor, v_ssim: Tensor
) -> Tensor:
    inputs = [image.contiguous(), target.contiguous(), None if mask is None else mask.contiguous()]
    v_image = torch.empty(image.shape, dtype=image.dtype, device=image.device)
    _kernels.photometric_backward(*inputs, maps, v_l1, v_ssim, v_image)
    return v_image


@_photometric_backward.register_fake
def _(image: Tensor, *_: Any) -> Tensor:
    return torch.empty(image.shape, dtype=image.dtype, device=image.device)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    image, target, ctx.mask, _ = inputs
    ctx.save_for_backward(image, target, output[2])
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)  # that of the maps would be as large as they are


def _backward(ctx: Any, v_l1: Tensor | None, v_ssim: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    image, target, maps = [t.detach() for t in ctx.saved_tensors]
    v_means = [maps.new_zeros(()) if v is None else v for v in (v_l1, v_ssim)]
    return _photometric_backward(image, target, ctx.mask, maps, *v_means), None, None, None


_photometric.register_autograd(_backward, setup_context=_setup)
