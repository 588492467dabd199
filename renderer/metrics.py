"""Measures of how close a render is to a photograph; values in [0, 1]."""

from __future__ import annotations

import math

from torch import Tensor

from anchorfield.cuda_ext.ssim import ssim as _ssim


def psnr(
    image: Tensor,  # [H, W, 3]
    photo: Tensor,  # [H, W, 3]
    mask: Tensor | None = None,  # [H, W] bool, True where pixels count
) -> float:
    """Peak signal-to-noise ratio, -10 log10 of the mean squared error over pixels and channels, dB; inf for equals."""
    error = (image.double() - photo.double()).square()
    mean = float((error if mask is None else error[mask]).mean())
    return -10 * math.log10(mean) if mean > 0 else math.inf


def ssim(image: Tensor, photo: Tensor) -> float:
    """Mean structural similarity: 11x11 Gaussian window of sigma 1.5, zero padding, over pixels and channels."""
    return float(_ssim(image.contiguous(), photo.contiguous()))
