"""What is known of an operation: the kernel, its reference, and what to feed them."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from reference.made_scenes import float32_exact, generator

OFF_ZERO = 1e-5  # rounding of a hidden unit or an opacity's logit is less; those nearer to zero may differ in sign
Inputs = dict[str, Any]
Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class Op:
    """An operation, its reference, and what to feed them."""

    kernel: Callable[..., Outputs]  # the product's function, outputs by name
    plain: Callable[..., Outputs]  # the reference, the same outputs by name
    draw: Callable[[str, int, int], Inputs]  # (case, seed, count) -> inputs, float64
    cases: tuple[str, ...]
    smooth: Callable[[], Inputs]  # few numbers, away from every kink, for finite differences
    gradients: tuple[str, ...] = ()  # the inputs that it differentiates
    rows: tuple[str, ...] = ()  # the inputs with one row per Gaussian; none: no empty input
    wide: tuple[str, ...] = ()  # the inputs that may have any number of columns
    prepare: Callable[..., Inputs] = field(default=lambda **inputs: inputs)  # inputs -> arguments of the kernel
    count: int = 1200  # Gaussians of a case
    draws: int = 10  # of every case
    many: int = 3000  # enough to be spread over several threads


def cotangent(name: str, value: Tensor) -> Tensor:
    """A random gradient to the output `name`, the same for all precisions."""
    drawn = torch.randn(value.shape, generator=generator(zlib.crc32(name.encode())), dtype=torch.float64)
    return float32_exact(drawn).to(value.dtype)
