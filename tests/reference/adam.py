"""Adam with bias correction, on all rows or on some."""

from __future__ import annotations

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
