"""The optimiser of every method: Adam over named parameters whose rows can come and go."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from anchorfield.cuda_ext.adam import adam_step


class Adam:
    """Adam (Kingma and Ba 2015) with one learning rate per parameter, or per column of a parameter.

    `rows`, set before `step`, restricts a step to some rows of the parameters named in `by_row`, or of all (the sparse
    form); it is cleared by the step.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        rates: Mapping[str, float | Tensor],
        eps: float = 1e-15,
        by_row: Collection[str] | None = None,
    ):
        self.parameters = dict(parameters)
        self.by_row = frozenset(self.parameters if by_row is None else by_row)
        self.rates = dict(rates)
        self.eps = eps
        self.count = 0
        self.moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in self.parameters.items()}
        self.rows: Tensor | None = None

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Descend along the gradients that are there."""
        self.count += 1
        graded = [name for name, parameter in self.parameters.items() if parameter.grad is not None]
        sparse = [name for name in graded if self.rows is not None and name in self.by_row]
        self._step([name for name in graded if name not in sparse], None)
        self._step(sparse, self.rows)
        self.rows = None

    def _step(self, names: Sequence[str], rows: Tensor | None) -> None:
        parameters = [self.parameters[name] for name in names]
        adam_step(
            parameters,
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [self.moments[name][0] for name in names],
            [self.moments[name][1] for name in names],
            lr=[self.rates[name] for name in names],
            step=self.count,
            eps=self.eps,
            rows=rows,
        )

    def replace(self, name: str, values: Tensor, moment1: Tensor, moment2: Tensor) -> nn.Parameter:
        """Put `values` in the place of parameter `name`, with its moments; returns the new parameter."""
        parameter = nn.Parameter(values.contiguous())
        self.parameters[name] = parameter
        self.moments[name] = (moment1.contiguous(), moment2.contiguous())
        return parameter

    def state(self) -> dict[str, Any]:
        """Step count and moments, by parameter name; tensors are the live ones."""
        return {"count": self.count, "moments": {name: {"1": m, "2": v} for name, (m, v) in self.moments.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`; raises KeyError where a parameter is missing."""
        self.count = int(state["count"])
        self.moments = {
            name: (state["moments"][name]["1"].clone(), state["moments"][name]["2"].clone()) for name in self.parameters
        }
