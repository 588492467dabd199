"""Means of what raw scales and opacities stand for, as losses want them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from anchorfield.cuda_ext import _kernels
from anchorfield.cuda_ext._checks import check


def mean_activations(
    log_scales: Tensor,  # [N, 3]
    logit_opacities: Tensor,  # [N]
) -> tuple[Tensor, Tensor]:
    """Mean standard deviation and mean opacity, two scalars (0 of none); differentiable."""
    check(log_scales=(log_scales, ("N", 3)), logit_opacities=(logit_opacities, ("N",)))
    scale, opacity = _mean_activations(log_scales, logit_opacities)
    return scale, opacity


@torch.library.custom_op("anchorfield::mean_activations", mutates_args=(), device_types="cpu")
def _mean_activations(log_scales: Tensor, logit_opacities: Tensor) -> tuple[Tensor, Tensor]:
    inputs = [t.detach().contiguous() for t in (log_scales, logit_opacities)]
    means = log_scales.new_empty(()), log_scales.new_empty(())
    _kernels.mean_activations(*inputs, *means)
    return means


@_mean_activations.register_fake
def _(log_scales: Tensor, logit_opacities: Tensor) -> tuple[Tensor, Tensor]:
    return log_scales.new_empty(()), log_scales.new_empty(())


@torch.library.custom_op("anchorfield::mean_activations_backward", mutates_args=(), device_types="cpu")
def _mean_activations_backward(
    log_scales: Tensor, logit_opacities: Tensor, v_scale: Tensor, v_opacity: Tensor
) -> tuple[Tensor, Tensor]:
    inputs = [t.contiguous() for t in (log_scales, logit_opacities, v_scale, v_opacity)]
    outputs = torch.empty_like(inputs[0]), torch.empty_like(inputs[1])
    _kernels.mean_activations_backward(*inputs, *outputs)
    return outputs


@_mean_activations_backward.register_fake
def _(log_scales: Tensor, logit_opacities: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return (
        torch.empty_like(log_scales, memory_format=torch.contiguous_format),
        torch.empty_like(logit_opacities, memory_format=torch.contiguous_format),
    )


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, v_scale: Tensor, v_opacity: Tensor) -> tuple[Tensor, Tensor]:
    log_scales, logit_opacities = [t.detach() for t in ctx.saved_tensors]
    gradients: tuple[Tensor, Tensor] = _mean_activations_backward(log_scales, logit_opacities, v_scale, v_opacity)
    return gradients


_mean_activations.register_autograd(_backward, setup_context=_setup)
