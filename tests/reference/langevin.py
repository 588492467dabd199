"""The exploration noise of 3D Gaussian Splatting as Markov Chain Monte Carlo (arxiv.org/abs/2404.09591)."""

from __future__ import annotations

import torch
from torch import Tensor

from reference.projection import covariances


def perturb_means(
    means: Tensor, quats: Tensor, log_scales: Tensor, logit_opacities: Tensor, noise: Tensor, strength: float
) -> Tensor:
    """The means after a step of noise along each Gaussian's own shape, large only for transparent ones."""
    gate = torch.sigmoid(-100 * (torch.sigmoid(logit_opacities) - 0.005))
    sigma = covariances(quats, log_scales.exp())
    return means + (sigma @ noise[:, :, None])[:, :, 0] * gate[:, None] * strength
