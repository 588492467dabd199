"""Adam with bias correction, on all rows or on some."""

from __future__ import annotations

import torch
from torch import Tensor


def adam_step(
    parameter: Tensor,
    gradient: Tensor,
    moment1: Tensor,
    moment2: Tensor,
    *,
    lr: float | Tensor,
    step: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-15,
    rows: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The parameter and the moments after step number `step` (1 is the first); rows not in `rows` stay as they are.

    `lr` is one number or one per column of parameter.reshape(N, -1).
    """
    shape = parameter.shape
    old = [t.reshape(len(t), shape[1:].numel()) for t in (parameter, moment1, moment2)]
    g = gradient.reshape(old[0].shape)
    m1 = beta1 * old[1] + (1 - beta1) * g
    m2 = beta2 * old[2] + (1 - beta2) * g * g
    denominator = (m2 / (1 - beta2**step)).sqrt() + eps
    new = [old[0] - lr * (m1 / (1 - beta1**step)) / denominator, m1, m2]
    if rows is not None:
        new = [n.where(rows[:, None], o) for n, o in zip(new, old, strict=True)]
    p, m1, m2 = (n.reshape(shape) for n in new)
    return p, m1, m2


def adam_step_touched(
    parameter: Tensor,
    gradient: Tensor,
    moment1: Tensor,
    moment2: Tensor,
    counts: Tensor,
    *,
    lr: float | Tensor,
    beta1: float = 0.9,
    beta2: float = 0.99,
    eps: float = 1e-15,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Parameter, moments and counts after a step of the numbers whose gradient is not zero."""
    if isinstance(lr, Tensor):
        lr = lr.reshape(parameter.shape[1:])
    touched = gradient != 0
    after = counts + touched.to(counts.dtype)
    t = after.clamp_min(1).to(torch.float64)
    corrections = [(1 - beta**t).to(parameter.dtype) for beta in (beta1, beta2)]
    m1 = beta1 * moment1 + (1 - beta1) * gradient
    m2 = beta2 * moment2 + (1 - beta2) * gradient * gradient
    new = parameter - lr * (m1 / corrections[0]) / ((m2 / corrections[1]).sqrt() + eps)
    p, m1, m2 = (n.where(touched, o) for n, o in ((new, parameter), (m1, moment1), (m2, moment2)))
    return p, m1, m2, after
