"""View-dependent colour from spherical harmonics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from anchorfield.cuda_ext import _kernels
from anchorfield.cuda_ext._checks import check, check_kind


def spherical_harmonics(
    sh: Tensor,  # [N, K, 3] K = 1, 4, 9 or 16
    means: Tensor,  # [N, 3] world
    centre: Tensor,  # [3] the camera's
    degree: int,
    visible: Tensor,  # [N] bool
) -> Tensor:
    """Colours max(0, sum_k Y_k(d) sh_k + 0.5) along d from `centre` to `means`, [N, 3]; zero where not visible.

    Only bands up to `degree` (0 to 3) are used. Differentiable in `sh`, `means` and `centre`. Basis: Kerbl et al. 2023.
    """
    sizes = check(sh=(sh, ("N", "K", 3)), means=(means, ("N", 3)), centre=(centre, (3,)))
    check_kind("visible", visible, torch.bool, (sizes["N"],), means.device)
    if not (0 <= degree <= 3 and (degree + 1) ** 2 <= sizes["K"]):
        raise ValueError(f"degree: expected 0 to 3 with (degree + 1)^2 <= {sizes['K']} coefficients, got {degree}")
    colours: Tensor = _spherical_harmonics(sh, means, centre, visible, degree)
    return colours


@torch.library.custom_op("anchorfield::spherical_harmonics", mutates_args=(), device_types="cpu")
def _spherical_harmonics(sh: Tensor, means: Tensor, centre: Tensor, visible: Tensor, degree: int) -> Tensor:
    inputs = [t.detach().contiguous() for t in (sh, means, centre, visible)]
    colours = means.new_empty((means.shape[0], 3))
    _kernels.spherical_harmonics(*inputs, degree, colours)
    return colours


@_spherical_harmonics.register_fake
def _(sh: Tensor, means: Tensor, *_: Any) -> Tensor:
    return means.new_empty((means.shape[0], 3))


@torch.library.custom_op("anchorfield::spherical_harmonics_backward", mutates_args=(), device_types="cpu")
def _spherical_harmonics_backward(
    sh: Tensor, means: Tensor, centre: Tensor, visible: Tensor, degree: int, colours: Tensor, v_colours: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    inputs = [t.contiguous() for t in (sh, means, centre, visible)]
    outputs = [torch.empty_like(t) for t in inputs[:3]]
    _kernels.spherical_harmonics_backward(*inputs, degree, colours.contiguous(), v_colours.contiguous(), *outputs)
    return outputs[0], outputs[1], outputs[2]


@_spherical_harmonics_backward.register_fake
def _(sh: Tensor, means: Tensor, centre: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(sh), torch.empty_like(means), torch.empty_like(centre)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.degree = inputs
    ctx.save_for_backward(*tensors, output)


def _backward(ctx: Any, v_colours: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, colours = [t.detach() for t in ctx.saved_tensors]
    return (*_spherical_harmonics_backward(*tensors, ctx.degree, colours, v_colours), None, None)


_spherical_harmonics.register_autograd(_backward, setup_context=_setup)
