"""Losses between a render and a photograph."""

from __future__ import annotations

from torch import Tensor

from anchorfield.cuda_ext.ssim import ssim


def photometric(
    image: Tensor,  # [H, W, 3]
    photo: Tensor,  # [H, W, 3]
    mask: Tensor | None = None,  # [H, W] bool, True where pixels count
    ssim_weight: float = 0.2,
) -> dict[str, Tensor]:
    """(1 - w) L1 + w (1 - SSIM) as two named terms (Kerbl et al. 2023, equation 7); masked pixels are equal in both."""
    if mask is not None:
        image, photo = image * mask[..., None], photo * mask[..., None]
    l1 = (image - photo).abs()
    mean = l1.mean() if mask is None else l1.sum() / (3 * mask.sum().clamp_min(1))
    return {"l1": (1 - ssim_weight) * mean, "ssim": ssim_weight * (1 - ssim(image, photo))}
