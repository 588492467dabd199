"""Loss, optimisers and exploration on a CUDA device."""

from __future__ import annotations

import torch
from torch import Tensor

from anchorfield.cuda_ext import activations, adam, langevin, ssim
from anchorfield.cuda_ext.cuda import launch


def _masked(image: Tensor, mask: Tensor | None) -> Tensor:
    """Zero where the mask hides a pixel, whatever stands there."""
    return image.detach().contiguous() if mask is None else image.detach().masked_fill(~mask[..., None], 0)


def _share(mask: Tensor | None) -> Tensor | float:
    """By what the mean difference over all pixels is multiplied to be that over the pixels which count."""
    return 1.0 if mask is None else mask.numel() / mask.sum().clamp_min(1)


def photometric(
    image: Tensor, target: Tensor, mask: Tensor | None, differentiable: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean absolute difference, mean SSIM, and what backward wants to know; see `ssim.l1_and_ssim`."""
    height, width, _ = image.shape
    maps = ssim.empty_outputs(image, True)[2]  # room for [3, H, W, C]
    means, partial = image.new_empty(2), image.new_empty((launch.native.photometric_rows(width, height), 2))
    launch.run("photometric", _masked(image, mask), _masked(target, mask), means, maps, partial)
    return means[1] * _share(mask), means[0].clone(), maps if differentiable else image.new_empty(0)


def photometric_backward(
    image: Tensor, target: Tensor, mask: Tensor | None, maps: Tensor, v_l1: Tensor, v_ssim: Tensor
) -> Tensor:
    """Gradient to the image from those to the two means."""
    v_image = torch.empty(image.shape, dtype=image.dtype, device=image.device)
    v_means = torch.stack([v_ssim, v_l1 * _share(mask)])
    launch.run("photometric_backward", _masked(image, mask), _masked(target, mask), maps, v_means, v_image)
    return v_image if mask is None else v_image.masked_fill_(~mask[..., None], 0)


def adam_step(
    parameters: list[Tensor],
    gradients: list[Tensor],
    moments1: list[Tensor],
    moments2: list[Tensor],
    rates: list[Tensor],
    rows: Tensor | None,
    step: int,
    numbers: list[float],
) -> None:
    """See `adam.adam_step`."""
    for parameter, gradient, moment1, moment2, rate in zip(
        parameters, gradients, moments1, moments2, rates, strict=True
    ):
        dense = gradient.detach().contiguous(), moment1, moment2, rate.contiguous()
        launch.run("adam_step", parameter, *dense, rows, parameter.shape[0], step, *numbers)


def perturb_means(
    means: Tensor, quats: Tensor, log_scales: Tensor, logit_opacities: Tensor, strength: float, seed: int
) -> None:
    """See `langevin.perturb_means`."""
    launch.run("perturb_means", means, *launch.dense(quats, log_scales, logit_opacities), strength, seed)


def mean_activations(log_scales: Tensor, logit_opacities: Tensor) -> tuple[Tensor, Tensor]:
    """See `activations.mean_activations`; torch's own kernels serve."""
    if log_scales.shape[0] == 0:
        return log_scales.new_zeros(()), log_scales.new_zeros(())
    return log_scales.exp().mean(), logit_opacities.sigmoid().mean()


def mean_activations_backward(
    log_scales: Tensor, logit_opacities: Tensor, v_scale: Tensor, v_opacity: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients to the raw values."""
    opacities = logit_opacities.sigmoid()
    count = max(log_scales.shape[0], 1)
    return log_scales.exp() * (v_scale / (3 * count)), opacities * (1 - opacities) * (v_opacity / count)


def adam_step_touched(
    parameters: list[Tensor],
    gradients: list[Tensor],
    moments1: list[Tensor],
    moments2: list[Tensor],
    counts: list[Tensor],
    rates: list[Tensor],
    scales: Tensor,
    numbers: list[float],
) -> None:
    """See `adam.adam_step_touched`."""
    lists = (parameters, gradients, moments1, moments2, counts, rates)
    for parameter, gradient, moment1, moment2, count, rate in zip(*lists, strict=True):
        dense = gradient.detach().contiguous(), moment1, moment2, count, rate.contiguous()
        launch.run("adam_step_touched", parameter, *dense, scales, *numbers)


IMPLEMENTATIONS: launch.Implementations = {
    ssim._photometric: photometric,
    ssim._photometric_backward: photometric_backward,
    adam._adam_step: adam_step,
    langevin._perturb_means: perturb_means,
    activations._mean_activations: mean_activations,
    activations._mean_activations_backward: mean_activations_backward,
    adam._adam_step_touched: adam_step_touched,
}
