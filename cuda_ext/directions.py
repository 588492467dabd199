"""Spherical harmonics of directions: how neural fields encode where one looks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from anchorfield.cuda_ext import _kernels
from anchorfield.cuda_ext._checks import check


def spherical_harmonics_basis(
    directions: Tensor,  # [N, 3] unit vectors
    degree: int,
) -> Tensor:
    """The real spherical harmonics to `degree` (0 to 3) at the directions, [N, (degree + 1)^2].

    Order and signs are those of splats: bands l = 0, 1, ..., m = -l..l (Kerbl et al. 2023). Differentiable (once) in
    `directions`; the gradient is that of the polynomials, which is not tangent to the sphere.
    """
    check(directions=(directions, ("N", 3)))
    if not 0 <= degree <= 3:
        raise ValueError(f"degree: expected 0 to 3, got {degree}")
    values: Tensor = _basis(directions, degree)
    return values


# What the operations return, for torch's tracing and for those that fill it.
def _empty_values(directions: Tensor, degree: int) -> Tensor:
    return directions.new_empty((directions.shape[0], (degree + 1) ** 2))


def _empty_gradient(directions: Tensor, *_: Any) -> Tensor:
    return directions.new_empty(directions.shape)


@torch.library.custom_op("anchorfield::harmonics_basis", mutates_args=(), device_types="cpu")
def _basis(directions: Tensor, degree: int) -> Tensor:
    values = _empty_values(directions, degree)
    _kernels.harmonics_basis(directions.detach().contiguous(), degree, values)
    return values


@torch.library.custom_op("anchorfield::harmonics_basis_backward", mutates_args=(), device_types="cpu")
def _basis_backward(directions: Tensor, v_values: Tensor, degree: int) -> Tensor:
    v_directions = _empty_gradient(directions)
    inputs = [t.detach().contiguous() for t in (directions, v_values)]
    _kernels.harmonics_basis_backward(*inputs, degree, v_directions)
    return v_directions


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    directions, ctx.degree = inputs
    ctx.save_for_backward(directions)


def _backward(ctx: Any, v_values: Tensor) -> tuple[Tensor | None, ...]:
    # Kept in the graph only for second derivatives, which are then refused aloud instead of left out.
    (directions,) = (t if torch.is_grad_enabled() else t.detach() for t in ctx.saved_tensors)
    return _basis_backward(directions, v_values, ctx.degree), None


_basis.register_fake(_empty_values)
_basis_backward.register_fake(_empty_gradient)
_basis.register_autograd(_backward, setup_context=_setup)
