"""The exploration noise of 3D Gaussian splatting as Markov chain Monte Carlo."""

from __future__ import annotations

import torch
from torch import Tensor

from anchorfield.cuda_ext import _kernels
from anchorfield.cuda_ext._checks import check


def perturb_means(
    means: Tensor,  # [N, 3] changed in place
    quats: Tensor,  # [N, 4] wxyz
    log_scales: Tensor,  # [N, 3]
    logit_opacities: Tensor,  # [N]
    noise: Tensor,  # [N, 3] standard normal
    strength: float,
) -> None:
    """Move means by Sigma noise sigmoid(-100 (opacity - 0.005)) strength, so that nearly dead Gaussians explore.

    Kheradmand et al. 2024, equation 9: the noise follows each Gaussian's own covariance Sigma.
    """
    check(
        means=(means, ("N", 3)),
        quats=(quats, ("N", 4)),
        log_scales=(log_scales, ("N", 3)),
        logit_opacities=(logit_opacities, ("N",)),
        noise=(noise, ("N", 3)),
    )
    if not means.is_contiguous():
        raise ValueError(f"means: expected a contiguous tensor to change in place, got strides {means.stride()}")
    _perturb_means(means, quats, log_scales, logit_opacities, noise, strength)


@torch.library.custom_op("anchorfield::perturb_means", mutates_args=("means",), device_types="cpu")
def _perturb_means(
    means: Tensor, quats: Tensor, log_scales: Tensor, logit_opacities: Tensor, noise: Tensor, strength: float
) -> None:
    inputs = [t.detach().contiguous() for t in (quats, log_scales, logit_opacities, noise)]
    _kernels.perturb_means(means.detach(), *inputs, strength)
