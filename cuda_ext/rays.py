"""Compositing of packed samples along rays, and the distortion of their weights.

Samples are packed: those of ray r are starts[r] to starts[r + 1] - 1, front to back, as `marching.march` gives them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from anchorfield.cuda_ext import _kernels
from anchorfield.cuda_ext._checks import check, check_kind

TRANSMITTANCE_MIN = 1e-4
"""Samples with less light left in front of them are left out."""
MOST_CHANNELS = 32


def composite_rays(
    optical: Tensor,  # [S] optical thickness, density times length; at least 0
    values: Tensor,  # [S, C] colours, depths, anything that blends; C = 1 to 32
    starts: Tensor,  # [R + 1] int32
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted sums of each ray's values [R, C], the light that passes it [R], and each sample's weight [S].

    A weight is w_i = T_i (1 - exp(-x_i)) with T_i = exp(-sum of x in front). Samples with T_i < 1e-4 have weight 0 and
    no gradient, and the light that passes is what is left in front of the first of them, so that a ray's weights and
    its light add up to 1. Differentiable in `optical` and `values`, from all three results.
    """
    sizes = check(optical=(optical, ("S",)), values=(values, ("S", "C")))
    if not 1 <= sizes["C"] <= MOST_CHANNELS:
        raise ValueError(f"values: expected 1 to {MOST_CHANNELS} channels, got {sizes['C']}")
    _check_starts(starts, optical.device)
    sums, transmittance, weights, _ = _composite_rays(optical, values, starts)
    return sums, transmittance, weights


def distortion(
    weights: Tensor,  # [S]
    t0: Tensor,  # [S] ascending along each ray
    t1: Tensor,  # [S]
    starts: Tensor,  # [R + 1] int32
) -> Tensor:
    """How far apart the samples that count lie, for each ray, [R] (Barron et al. 2022, equation 15).

    sum_ij w_i w_j |m_i - m_j| + sum_i w_i^2 (t1_i - t0_i) / 3 with m_i = (t0_i + t1_i) / 2. Differentiable in `weights`
    only. The paper's distances are normalised; so may t0 and t1 be.
    """
    check(weights=(weights, ("S",)), t0=(t0, ("S",)), t1=(t1, ("S",)))
    _check_starts(starts, weights.device)
    losses: Tensor = _distortion(weights, t0.detach(), t1.detach(), starts)
    return losses


def _check_starts(starts: Tensor, device: torch.device) -> None:
    check_kind("starts", starts, torch.int32, ("R + 1",), device)
    if len(starts) == 0:
        raise ValueError("starts: expected one number more than there are rays, got none")


# What the operations return, for torch's tracing and for those that fill it.
def _empty_sums(optical: Tensor, values: Tensor, starts: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rays = starts.shape[0] - 1
    sums, transmittance = values.new_empty((rays, values.shape[1])), values.new_empty(rays)
    return sums, transmittance, values.new_empty(optical.shape), starts.new_empty(rays)


def _empty_gradients(values: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return values.new_empty(values.shape[0]), values.new_empty(values.shape)


def _empty_losses(weights: Tensor, t0: Tensor, t1: Tensor, starts: Tensor) -> Tensor:
    return weights.new_empty(starts.shape[0] - 1)


def _dense(*tensors: Tensor) -> list[Tensor]:
    return [t.detach().contiguous() for t in tensors]


@torch.library.custom_op("anchorfield::composite_rays", mutates_args=(), device_types="cpu")
def _composite_rays(optical: Tensor, values: Tensor, starts: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    outputs = _empty_sums(optical, values, starts)
    _kernels.composite_rays(*_dense(optical, values, starts), *outputs)
    return outputs


@torch.library.custom_op("anchorfield::composite_rays_backward", mutates_args=(), device_types="cpu")
def _composite_rays_backward(
    values: Tensor,
    starts: Tensor,
    transmittance: Tensor,
    weights: Tensor,
    ends: Tensor,
    v_sums: Tensor,
    v_transmittance: Tensor,
    v_weights: Tensor,
) -> tuple[Tensor, Tensor]:
    outputs = _empty_gradients(values)
    saved = _dense(values, starts, transmittance, weights, ends)
    _kernels.composite_rays_backward(*saved, *_dense(v_sums, v_transmittance, v_weights), *outputs)
    return outputs


def _setup(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(output[3])
    ctx.save_for_backward(*inputs[1:], *output[1:])


def _saved(ctx: Any) -> list[Tensor]:
    # Kept in the graph only for second derivatives, which are then refused aloud instead of left out.
    return [t if torch.is_grad_enabled() else t.detach() for t in ctx.saved_tensors]


def _backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    return *_composite_rays_backward(*_saved(ctx), *gradients[:3]), None


@torch.library.custom_op("anchorfield::distortion", mutates_args=(), device_types="cpu")
def _distortion(weights: Tensor, t0: Tensor, t1: Tensor, starts: Tensor) -> Tensor:
    losses = _empty_losses(weights, t0, t1, starts)
    _kernels.distortion(*_dense(weights, t0, t1, starts), losses)
    return losses


@torch.library.custom_op("anchorfield::distortion_backward", mutates_args=(), device_types="cpu")
def _distortion_backward(weights: Tensor, t0: Tensor, t1: Tensor, starts: Tensor, v_losses: Tensor) -> Tensor:
    v_weights = weights.new_empty(weights.shape)
    _kernels.distortion_backward(*_dense(weights, t0, t1, starts, v_losses), v_weights)
    return v_weights


@_distortion_backward.register_fake
def _(weights: Tensor, *_: Tensor) -> Tensor:
    return weights.new_empty(weights.shape)


def _distortion_setup(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward_of_distortion(ctx: Any, v_losses: Tensor) -> tuple[Tensor | None, ...]:
    return _distortion_backward(*_saved(ctx), v_losses), None, None, None


_composite_rays.register_fake(_empty_sums)
_composite_rays.register_autograd(_backward, setup_context=_setup)
_composite_rays_backward.register_fake(_empty_gradients)
_distortion.register_fake(_empty_losses)
_distortion.register_autograd(_backward_of_distortion, setup_context=_distortion_setup)
