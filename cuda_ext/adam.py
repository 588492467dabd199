"""Adam in one pass over memory, of all numbers of chosen rows or of the numbers that a gradient touches."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from anchorfield.cuda_ext import _kernels
from anchorfield.cuda_ext._checks import check, check_kind


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
    _check_contiguous(parameter=parameter, moment1=moment1, moment2=moment2)
    if rows is not None:
        check_kind("rows", rows, torch.bool, shape[:1], parameter.device)
    columns = math.prod(shape[1:])
    rates = lr if isinstance(lr, Tensor) else parameter.new_full((columns,), lr)
    check(lr=(rates, (columns,)), parameter=(parameter, shape))
    return rates


def _check_contiguous(**changed: Tensor) -> None:
    for name, tensor in changed.items():
        if not tensor.is_contiguous():
            raise ValueError(f"{name}: expected a contiguous tensor to change in place, got strides {tensor.stride()}")


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


# ------------------------------------------------------------------------------------- numbers that a gradient touches
MOST_STEPS = 2**15 - 1  # that int16 counts


def adam_step_touched(
    parameters: Sequence[Tensor],  # any shape each
    gradients: Sequence[Tensor],  # as parameters
    moments1: Sequence[Tensor],  # as parameters
    moments2: Sequence[Tensor],  # as parameters
    counts: Sequence[Tensor],  # int16, as parameters: the steps that each number has taken
    *,
    lr: Sequence[float | Tensor],  # for each parameter one rate, or [D] one for each of the D numbers of a row
    beta1: float = 0.9,
    beta2: float = 0.99,
    eps: float = 1e-15,
) -> None:
    """One step of Adam in place of those numbers whose gradient is not exactly zero; the others stay as they are.

    So tables of features are trained of which a step reads a part (Mueller et al. 2022): neither moments nor the bias
    correction move on while a number is not used. Each number counts its own steps, because the numbers of a row need
    not be touched together. A count takes two bytes: it stops where both corrections have become 1, after 1,725 steps
    for the betas above in float32. Betas for which this is beyond 32,767 steps are refused. Arrays changed must be
    contiguous.
    """
    arrays = list(zip(parameters, gradients, moments1, moments2, strict=True))
    rates = [_rates(*tensors, rate, None) for tensors, rate in zip(arrays, lr, strict=True)]
    for parameter, count in zip(parameters, counts, strict=True):
        check_kind("counts", count, torch.int16, tuple(parameter.shape), parameter.device)
        _check_contiguous(counts=count)
    some = [i for i, parameter in enumerate(parameters) if parameter.numel()]
    if some:
        lists = [[values[i] for i in some] for values in (parameters, gradients, moments1, moments2, counts, rates)]
        scales = _scales(beta1, beta2, parameters[some[0]].dtype, parameters[some[0]].device)
        _adam_step_touched(*lists, scales, [beta1, beta2, eps])


@functools.lru_cache(maxsize=8)
def _scales(beta1: float, beta2: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """1 / (1 - beta^t) of both betas for t = 1, 2, ... until both are 1, [T, 2]."""
    betas = torch.tensor([beta1, beta2], dtype=torch.float64)
    steps = max(_steps_to_one("beta1", beta1, dtype), _steps_to_one("beta2", beta2, dtype))
    powers = betas ** torch.arange(1, steps + 1, dtype=torch.float64)[:, None]
    return (1 / (1 - powers)).to(device=device, dtype=dtype)


def _steps_to_one(name: str, beta: float, dtype: torch.dtype) -> int:
    """The first power of beta that is nothing beside 1."""
    nothing = math.log(torch.finfo(dtype).eps / 4)
    most = math.exp(nothing / MOST_STEPS)
    if not 0 <= beta <= most:
        raise ValueError(f"{name}: expected 0 to {most:.6f}, so that {MOST_STEPS} steps are enough, got {beta}")
    return max(1, math.ceil(nothing / math.log(beta))) if beta else 1


@torch.library.custom_op(
    "anchorfield::adam_step_touched",
    mutates_args=("parameters", "moments1", "moments2", "counts"),
    device_types="cpu",
)
def _adam_step_touched(
    parameters: list[Tensor],
    gradients: list[Tensor],
    moments1: list[Tensor],
    moments2: list[Tensor],
    counts: list[Tensor],
    rates: list[Tensor],
    scales: Tensor,
    numbers: list[float],
) -> None:
    _kernels.adam_step_touched(
        [parameter.detach() for parameter in parameters],
        [gradient.detach().contiguous() for gradient in gradients],
        moments1,
        moments2,
        counts,
        [rate.contiguous() for rate in rates],
        scales,
        *numbers,
    )
