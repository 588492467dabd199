"""Adam in one pass over memory."""

from __future__ import annotations

import torch
from torch import Tensor

from anchorfield.cuda_ext import _kernels
from anchorfield.cuda_ext._checks import check, check_mask


def adam_step(
    parameter: Tensor,  # [N, ...]
    gradient: Tensor,  # as parameter
    moment1: Tensor,  # as parameter
    moment2: Tensor,  # as parameter
    *,
    lr: float | Tensor,  # one rate, or [D] one for each of the D numbers of a row
    step: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-15,
    rows: Tensor | None = None,  # [N] bool
) -> None:
    """One step of Adam in place, with bias correction for `step` (from 1), on all rows or on the chosen ones.

    Kingma and Ba 2015. Rows that are not chosen keep parameter and moments. Arrays changed must be contiguous.
    """
    shape = tuple(parameter.shape)
    check(parameter=(parameter, shape), gradient=(gradient, shape), moment1=(moment1, shape), moment2=(moment2, shape))
    if step < 1:
        raise ValueError(f"step: expected 1 or more, got {step}")
    for name, tensor in (("parameter", parameter), ("moment1", moment1), ("moment2", moment2)):
        if not tensor.is_contiguous():
            raise ValueError(f"{name}: expected a contiguous tensor to change in place, got strides {tensor.stride()}")
    if parameter.numel() == 0:
        return
    count = shape[0] if shape else 1
    columns = parameter.numel() // count
    rates = lr if isinstance(lr, Tensor) else parameter.new_full((columns,), lr)
    check(lr=(rates, (columns,)), parameter=(parameter, shape))
    if rows is not None:
        check_mask("rows", rows, (count,), parameter.device)
        rows = rows.contiguous()
    _adam_step(parameter, gradient, moment1, moment2, rates, rows, [step, count], [beta1, beta2, eps])


@torch.library.custom_op("anchorfield::adam_step", mutates_args=("parameter", "moment1", "moment2"), device_types="cpu")
def _adam_step(
    parameter: Tensor,
    gradient: Tensor,
    moment1: Tensor,
    moment2: Tensor,
    rates: Tensor,
    rows: Tensor | None,
    counts: list[int],
    numbers: list[float],
) -> None:
    step, count = counts
    _kernels.adam_step(
        parameter.detach(),
        gradient.detach().contiguous(),
        moment1,
        moment2,
        rates.contiguous(),
        rows,
        count,
        step,
        *numbers,
    )
