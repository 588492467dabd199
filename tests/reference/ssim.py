"""Structural similarity by convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

RADIUS, SIGMA = 5, 1.5
C1, C2 = 0.01**2, 0.03**2


def window(like: Tensor) -> Tensor:
    """The 11 x 11 Gaussian window, sums to 1."""
    x = torch.arange(-RADIUS, RADIUS + 1, dtype=like.dtype)
    weights = (-(x**2) / (2 * SIGMA**2)).exp()
    weights = weights / weights.sum()
    return weights[:, None] * weights[None, :]


def ssim_map(image: Tensor, target: Tensor) -> Tensor:
    """SSIM of every pixel and channel, [H, W, C]; what lies outside the images counts as zero."""
    kernel = window(image)[None, None]

    def blur(values: Tensor) -> Tensor:
        return F.conv2d(values.permute(2, 0, 1)[:, None], kernel, padding=RADIUS)[:, 0].permute(1, 2, 0)

    mean_x, mean_y = blur(image), blur(target)
    variance_x = blur(image * image) - mean_x * mean_x
    variance_y = blur(target * target) - mean_y * mean_y
    covariance = blur(image * target) - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    return likeness / ((mean_x**2 + mean_y**2 + C1) * (variance_x + variance_y + C2))


def ssim(image: Tensor, target: Tensor) -> Tensor:
    """Mean SSIM of two images [H, W, C]."""
    return ssim_map(image, target).mean()


def l1_and_ssim(image: Tensor, target: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean absolute difference over the pixels in `mask`, and mean SSIM of images that are zero elsewhere."""
    if mask is None:
        return (image - target).abs().mean(), ssim(image, target)
    weights = mask[..., None].to(image.dtype)
    image, target = image * weights, target * weights
    count = max(int(mask.sum()), 1) * image.shape[2]
    return (image - target).abs().sum() / count, ssim(image, target)
