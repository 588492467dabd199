"""Adam in one pass over memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from anchorfield.cuda_ext import _kernels
from anchorfield.cuda_ext._checks import check, check_mask


def adam_step(
    parameters: Sequence[Tensor],  # [N, ...] each
    gradients: Sequence[Tensor],  # as parameters
    moments1: Sequence[Tensor],  # as parameters
    moments2: Sequence[Tensor],  # as parameters
    *,
    lr: Sequence[float | Tensor],  # for each parameter one rate, or [D] one for each of the D numbers of a row
    step: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-15,
    rows: Tensor | None = None,  # [N] bool
) -> None:
    """One step of Adam in place, with bias correction for `step` (from 1), on all rows or on the chosen ones.

    Kingma and Ba 2015. Rows that are not chosen keep parameter and moments; with `rows`, all parameters have N rows.
    Arrays changed must be contiguous.
    """
    if step < 1:
        raise ValueError(f"step: expected 1 or more, got {step}")
    arrays = list(zip(parameters, gradients, moments1, moments2, strict=True))
    rates = [_rates(*tensors, rate, rows) for tensors, rate in zip(arrays, lr, strict=True)]
    some = [i for i, parameter in enumerate(parameters) if parameter.numel()]
    if some:
        lists = [[values[i] for i in some] for values in (parameters, gradients, moments1, moments2, rates)]
        _adam_step(*lists, None if rows is None else rows.contiguous(), step, [beta1, beta2, eps])


def _rates(
    parameter: Tensor, gradient: Tensor, moment1: Tensor, moment2: Tensor, lr: float | Tensor, rows: Tensor | None
) -> Tensor:
    """Check what belongs to one parameter; the rate of each of its columns."""
    shape = tuple(parameter.shape)
    check(parameter=(parameter, shape), gradient=(gradient, shape), moment1=(moment1, shape), moment2=(moment2, shape))
    for name, tensor in (("parameter", parameter), ("moment1", moment1), ("moment2", moment2)):
        if not tensor.is_contiguous():
            raise ValueError(f"{name}: expected a contiguous tensor to change in place, got strides {tensor.stride()}")
    if rows is not None:
        check_mask("rows", rows, shape[:1], parameter.device)
    columns = math.prod(shape[1:])
    rates = lr if isinstance(lr, Tensor) else parameter.new_full((columns,), lr)
    check(lr=(rates, (columns,)), parameter=(parameter, shape))
    return rates


@torch.library.custom_op(
    "anchorfield::adam_step", mutates_args=("parameters", "moments1", "moments2"), device_types="cpu"
)
def _adam_step(
    parameters: list[Tensor],
    gradients: list[Tensor],
    moments1: list[Tensor],
    moments2: list[Tensor],
    rates: list[Tensor],
    rows: Tensor | None,
    step: int,
    numbers: list[float],
) -> None:
    _kernels.adam_step(
        [parameter.detach() for parameter in parameters],
        [gradient.detach().contiguous() for gradient in gradients],
        moments1,
        moments2,
        [rate.contiguous() for rate in rates],
        rows,
        step,
        *numbers,
    )
