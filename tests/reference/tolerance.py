"""How wrong a kernel may be, from arithmetic and not from taste."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

FLOOR_IN_ULPS = 4  # of the norm: a result this good is not asked to beat a reference that was lucky

Results = Mapping[str, Tensor]


def relative_error(values: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """Norm of the difference over norm of the exact result, root mean square over several draws of one case."""
    squares = []
    for value, truth in zip(values, exact, strict=True):
        assert value.shape == truth.shape, f"shape {tuple(value.shape)}, expected {tuple(truth.shape)}"
        norm = float(truth.detach().norm())
        squares.append(float((value.detach().to(torch.float64) - truth.detach()).norm()) ** 2 / (norm or 1) ** 2)
    return math.sqrt(sum(squares) / len(squares))


def assert_as_good_as_plain(kernel: Sequence[Results], plain: Sequence[Results], exact: Sequence[Results]) -> None:
    """Each of the kernel's results is at most twice as wrong as the plain reference in the kernel's own precision.

    Every sequence holds one mapping from names to results for each draw of the case: of the kernel, of the reference in
    float32, of the reference in float64. Several draws, because the errors of a single number are a lottery. A float64
    kernel is held to the same rule, with the float32 errors scaled by the ratio of the two precisions, plus once that
    error for the exact results, which are then no more exact than the kernel's.
    """
    complaints = []
    for name in exact[0]:
        values, yardsticks, truths = ([draw[name] for draw in draws] for draws in (kernel, plain, exact))
        ulp = torch.finfo(values[0].dtype).eps
        yardstick = relative_error(yardsticks, truths) * ulp / torch.finfo(torch.float32).eps
        times = 3 if values[0].dtype == torch.float64 else 2
        got, allowed = relative_error(values, truths), max(times * yardstick, FLOOR_IN_ULPS * ulp)
        if not got <= allowed:  # NaN must fail
            complaints.append(f"{name}: relative error {got:.3g}, allowed {allowed:.3g}, plain {yardstick:.3g}")
    assert not complaints, "worse than twice the plain reference:\n" + "\n".join(complaints)
