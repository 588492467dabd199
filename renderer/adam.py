"""The optimiser of every method: Adam over named parameters whose rows can come and go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from anchorfield.cuda_ext.adam import adam_step


class Adam:
    """Adam (Kingma and Ba 2015) with one learning rate per parameter, or per column of a parameter.

    `rows`, set before `step`, restricts a step to some rows of the parameters that have as many (the sparse form);
    it is cleared by the step.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], rates: Mapping[str, float | Tensor], eps: float = 1e-15):
        self.parameters = dict(parameters)
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
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            sparse = self.rows is not None and parameter.shape[:1] == self.rows.shape
            adam_step(
                parameter,
                parameter.grad,
                *self.moments[name],
                lr=self.rates[name],
                step=self.count,
                eps=self.eps,
                rows=self.rows if sparse else None,
            )
        self.rows = None

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
