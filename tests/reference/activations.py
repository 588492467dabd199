"""What raw parameters of Gaussians stand for, on average."""

from __future__ import annotations

from torch import Tensor


def mean_activations(log_scales: Tensor, logit_opacities: Tensor) -> tuple[Tensor, Tensor]:
    """Mean scale and mean opacity; 0 of no Gaussians."""
    count = max(len(log_scales), 1)
    return log_scales.exp().sum() / (3 * count), logit_opacities.sigmoid().sum() / count
