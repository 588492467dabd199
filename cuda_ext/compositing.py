"""Front-to-back alpha compositing of projected Gaussians."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from anchorfield.cuda_ext import _kernels
from anchorfield.cuda_ext._checks import check, check_size
from anchorfield.cuda_ext.binning import Bins


def composite(
    means2d: Tensor,  # [N, 2] pixels
    conics: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    features: Tensor,  # [N, C] colours, depths, anything that blends
    bins: Bins,
    width: int,
    height: int,
    background: Tensor | None = None,  # [C], zero where None
    absgrad_probe: Tensor | None = None,  # [N, 2]
) -> tuple[Tensor, Tensor]:
    """Blend features front to back: image [H, W, C] over the background, and alpha [H, W].

    At a pixel centre, alpha_i = min(0.99, opacity exp(-sigma)); less than 1/255 is skipped, and nothing is added once
    the transmittance in front is at most 1e-4. Differentiable in all tensors. The gradient that `absgrad_probe`
    receives is not of its value (which is never read): it is the sum over pixels of
    |dL/dmeans2d| (AbsGS, Ye et al. 2024).
    """
    check(
        means2d=(means2d, ("N", 2)),
        conics=(conics, ("N", 3)),
        opacities=(opacities, ("N",)),
        features=(features, ("N", "C")),
        **({} if background is None else {"background": (background, ("C",))}),
        **({} if absgrad_probe is None else {"absgrad_probe": (absgrad_probe, ("N", 2))}),
    )
    check_size(width, height)
    if background is None:
        background = features.new_zeros(features.shape[1])
    image, transmittance, _ = _composite(
        means2d, conics, opacities, features, background, absgrad_probe, list(bins), width, height
    )
    return image, 1 - transmittance


def contributions(means2d: Tensor, conics: Tensor, opacities: Tensor, bins: Bins, width: int, height: int) -> Tensor:
    """Each Gaussian's blend weight summed over the image's pixels, [N]. No gradient."""
    check(means2d=(means2d, ("N", 2)), conics=(conics, ("N", 3)), opacities=(opacities, ("N",)))
    check_size(width, height)
    weights: Tensor = _contributions(means2d.detach(), conics.detach(), opacities.detach(), list(bins), width, height)
    return weights


@torch.library.custom_op("anchorfield::contributions", mutates_args=(), device_types="cpu")
def _contributions(
    means2d: Tensor, conics: Tensor, opacities: Tensor, bins: list[Tensor], width: int, height: int
) -> Tensor:
    weights = torch.zeros_like(opacities, memory_format=torch.contiguous_format)
    inputs = [t.contiguous() for t in (means2d, conics, opacities)]
    _kernels.contributions(*inputs, *bins, width, height, weights)
    return weights


@_contributions.register_fake
def _(means2d: Tensor, conics: Tensor, opacities: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(opacities, memory_format=torch.contiguous_format)


@torch.library.custom_op("anchorfield::composite", mutates_args=(), device_types="cpu")
def _composite(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    features: Tensor,
    background: Tensor,
    absgrad_probe: Tensor | None,
    bins: list[Tensor],
    width: int,
    height: int,
) -> tuple[Tensor, Tensor, Tensor]:
    inputs = [t.detach().contiguous() for t in (means2d, conics, opacities, features, background)]
    image = features.new_empty((height, width, features.shape[1]))
    transmittance = features.new_empty((height, width))
    trail = features.new_empty(_kernels.trail_size(len(bins[0])))
    _kernels.composite(*inputs, *bins, width, height, image, transmittance, trail)
    return image, transmittance, trail


@_composite.register_fake
def _(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    features, bins, width, height = inputs[3], *inputs[-3:]
    image = features.new_empty((height, width, features.shape[1]))
    return image, features.new_empty((height, width)), features.new_empty(_kernels.trail_size(len(bins[0])))


@torch.library.custom_op("anchorfield::composite_backward", mutates_args=(), device_types="cpu")
def _composite_backward(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    features: Tensor,
    background: Tensor,
    bins: list[Tensor],
    width: int,
    height: int,
    trail: Tensor,
    v_image: Tensor,
    v_transmittance: Tensor,
    absolute: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    inputs = [t.contiguous() for t in (means2d, conics, opacities, features, background)]
    outputs = [torch.empty_like(t) for t in inputs[:4]]
    probe = torch.empty_like(inputs[0]) if absolute else inputs[0].new_zeros(0)
    arrays = [t.contiguous() for t in (trail, v_image, v_transmittance)]
    _kernels.composite_backward(*inputs, *bins, width, height, *arrays, *outputs, probe if absolute else None)
    return outputs[0], outputs[1], outputs[2], outputs[3], probe


@_composite_backward.register_fake
def _(*inputs: Any) -> tuple[Tensor, ...]:
    probe = torch.empty_like(inputs[0]) if inputs[-1] else inputs[0].new_empty(0)
    return (*[torch.empty_like(t) for t in inputs[:4]], probe)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, probe, bins, ctx.width, ctx.height = inputs
    ctx.has_probe = probe is not None
    ctx.set_materialize_grads(False)  # that of the trail would be larger than the image
    ctx.save_for_backward(*tensors, *bins, *output[1:])


def _backward(ctx: Any, v_image: Tensor | None, v_transmittance: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    saved = [t.detach() for t in ctx.saved_tensors]
    inputs, bins, (transmittance, trail) = saved[:5], saved[5:11], saved[11:]
    if v_image is None:
        v_image = transmittance.new_zeros(*transmittance.shape, inputs[3].shape[1])
    if v_transmittance is None:
        v_transmittance = torch.zeros_like(transmittance)
    *gradients, probe = _composite_backward(
        *inputs, bins, ctx.width, ctx.height, trail, v_image, v_transmittance, ctx.has_probe
    )
    background = (v_image * transmittance[..., None]).sum((0, 1)) if ctx.needs_input_grad[4] else None
    return (*gradients, background, probe if ctx.has_probe else None, [None] * len(bins), None, None)


_composite.register_autograd(_backward, setup_context=_setup)
