"""Front-to-back blending of 2D Gaussians: one dense image of weights per Gaussian."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MIN_ALPHA = 1 / 255
MAX_ALPHA = 0.99
MIN_TRANSMITTANCE = 1e-4


def pixel_centres(width: int, height: int, like: Tensor) -> Tensor:
    """[H, W, 2] positions (x, y)."""
    x = torch.arange(width, dtype=like.dtype) + 0.5
    y = torch.arange(height, dtype=like.dtype) + 0.5
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def exponents(means: Tensor, conics: Tensor, pixels: Tensor) -> Tensor:
    """sigma = 1/2 d^T K d per pixel; `means` [..., 2] and `conics` [..., 3] broadcast against `pixels` [H, W, 2]."""
    dx, dy = (means - pixels).unbind(-1)
    a, b, c = conics.unbind(-1)
    return 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy


def blend_weights(
    means2d: Tensor, conics: Tensor, opacities: Tensor, order: Tensor, width: int, height: int
) -> tuple[Tensor, Tensor]:
    """The weight image of each Gaussian, [N, H, W], and the transmittance left, [H, W].

    `means2d` may be [N, 2] or, to ask for gradients per pixel, [N, H, W, 2].
    """
    if means2d.ndim == 2:
        means2d = means2d[:, None, None]
    sigma = exponents(means2d, conics[:, None, None], pixel_centres(width, height, means2d))
    alphas = (opacities[:, None, None] * (-sigma).exp()).clamp(max=MAX_ALPHA)
    transmittance = torch.ones(height, width, dtype=means2d.dtype)
    weights: list[Tensor] = [transmittance] * len(alphas)
    for n in order.tolist():
        counts = (alphas[n] >= MIN_ALPHA) & (transmittance > MIN_TRANSMITTANCE)
        weights[n] = torch.where(counts, alphas[n], 0) * transmittance
        transmittance = transmittance - weights[n]
    return torch.stack(weights) if weights else alphas, transmittance


def composite(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    features: Tensor,
    order: Tensor,
    width: int,
    height: int,
    background: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Image [H, W, C] and alpha [H, W] of Gaussians drawn in `order` (indices, nearest first)."""
    weights, transmittance = blend_weights(means2d, conics, opacities, order, width, height)
    image = torch.einsum("nhw,nc->hwc", weights, features)
    if background is not None:
        image = image + transmittance[..., None] * background
    return image, 1 - transmittance


def absgrad(
    v_image: Tensor,
    v_alpha: Tensor,
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    features: Tensor,
    order: Tensor,
    width: int,
    height: int,
    background: Tensor | None = None,
) -> Tensor:
    """Sum over pixels of |dL/dmeans2d|, [N, 2]: every pixel gets its own copy of the means."""
    means = means2d.detach()[:, None, None].expand(-1, height, width, -1).clone().requires_grad_()
    image, alpha = composite(means, conics, opacities, features, order, width, height, background)
    (v_means,) = torch.autograd.grad([image, alpha], [means], [v_image, v_alpha], allow_unused=True)
    return torch.zeros_like(means2d) if v_means is None else v_means.abs().sum((1, 2))


def contributions(means2d: Tensor, conics: Tensor, opacities: Tensor, order: Tensor, width: int, height: int) -> Tensor:
    """Sum over pixels of each Gaussian's blend weight, [N]."""
    return blend_weights(means2d, conics, opacities, order, width, height)[0].sum((1, 2))


def decisions_are_safe(
    means2d: Tensor, conics: Tensor, opacities: Tensor, order: Tensor, width: int, height: int, rounding: float
) -> Tensor:
    """Which Gaussians stay on the same side of every threshold if each step is off by `rounding`, relatively; [N] bool.

    Finite precision may otherwise turn one comparison round, and a jump of 1/255 drowns the rounding errors under test.
    """
    pixels = pixel_centres(width, height, means2d)
    sigma = exponents(means2d[:, None, None], conics[:, None, None], pixels)
    log_alphas = opacities.log()[:, None, None] - sigma
    errors = rounding_of_exponents(means2d, conics, width, height, rounding)
    near_cap = (log_alphas - math.log(MAX_ALPHA)).abs() < errors
    near_cut = (log_alphas - math.log(MIN_ALPHA)).abs() < errors

    transmittance = torch.ones(height, width, dtype=means2d.dtype)
    slack = torch.zeros_like(transmittance)  # relative, of the transmittance
    safe = torch.ones(len(opacities), dtype=torch.bool)
    for n in order.tolist():
        live = transmittance > MIN_TRANSMITTANCE * (1 - slack)
        alpha = log_alphas[n].exp().clamp(max=MAX_ALPHA)
        alpha = torch.where((alpha >= MIN_ALPHA) & (transmittance > MIN_TRANSMITTANCE), alpha, 0)
        # what is left, 1 - alpha, has the absolute error of alpha
        slack = slack + torch.where(alpha > 0, (errors[n] * alpha + rounding) / (1 - alpha), 0)
        transmittance = transmittance * (1 - alpha)
        near_stop = ((transmittance / MIN_TRANSMITTANCE).log().abs() < slack) & (alpha > 0)
        safe[n] = not ((near_cut[n] | near_cap[n]) & live | near_stop).any()
    return safe


def rounding_of_exponents(means2d: Tensor, conics: Tensor, width: int, height: int, rounding: float) -> Tensor:
    """How far arithmetic of relative error `rounding` may be off in sigma, per pixel, [N, H, W].

    sigma is a difference of terms that may be far larger than itself.
    """
    dx, dy = (means2d[:, None, None] - pixel_centres(width, height, means2d)).unbind(-1)
    a, b, c = conics[:, None, None].unbind(-1)
    return rounding * (1 + 0.5 * (a * dx * dx + c * dy * dy) + (b * dx * dy).abs())
