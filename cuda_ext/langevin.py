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
    strength: float,
    seed: int,
) -> None:
    """Move means by Sigma n sigmoid(-100 (opacity - 0.005)) strength, n standard normal: nearly dead Gaussians explore.

    Kheradmand et al. 2024, equation 9: the noise follows each Gaussian's own covariance Sigma. The numbers depend on
    `seed` (0 to 2^63 - 1) and the Gaussian's index alone: Philox4x32-10 (Salmon et al. 2011), Box and Muller.
    """
    check(
        means=(means, ("N", 3)),
        quats=(quats, ("N", 4)),
        log_scales=(log_scales, ("N", 3)),
        logit_opacities=(logit_opacities, ("N",)),
    )
    if not means.is_contiguous():
        raise ValueError(f"means: expected a contiguous tensor to change in place, got strides {means.stride()}")
    _perturb_means(means, quats, log_scales, logit_opacities, strength, seed)


@torch.library.custom_op("anchorfield::perturb_means", mutates_args=("means",), device_types="cpu")
def _perturb_means(
    means: Tensor, quats: Tensor, log_scales: Tensor, logit_opacities: Tensor, strength: float, seed: int
) -> None:
    inputs = [t.detach().contiguous() for t in (quats, log_scales, logit_opacities)]
    _kernels.perturb_means(means.detach(), *inputs, strength, seed)
