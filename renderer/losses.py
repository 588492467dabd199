"""Losses between a render and a photograph."""

from __future__ import annotations

from torch import Tensor

from anchorfield.cuda_ext.ssim import l1_and_ssim


def photometric(
    image: Tensor,  # [H, W, 3]
    photo: Tensor,  # [H, W, 3]
    mask: Tensor | None = None,  # [H, W] bool, True where pixels count
    ssim_weight: float = 0.2,
) -> dict[str, Tensor]:
    """(1 - w) L1 + w (1 - SSIM) as two named terms (Kerbl et al. 2023, equation 7); masked pixels are equal in both."""
    l1, similarity = l1_and_ssim(image, photo, mask)
    return {"l1": (1 - ssim_weight) * l1, "ssim": ssim_weight * (1 - similarity)}
