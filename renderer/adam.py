"""The optimiser of every method: Adam over named parameters whose rows can come and go."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from anchorfield.cuda_ext.adam import adam_step, adam_step_touched


class Adam:
    """Adam (Kingma and Ba 2015) with one learning rate per parameter, or per column of a parameter.

    `rows`, set before `step`, restricts a step to some rows of the parameters named in `by_row`, or of all (the sparse
    form); it is cleared by the step. Of the parameters named in `touched`, tables whose rows neither come nor go, only
    numbers whose gradient is not zero are stepped, each with its own count of steps.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        rates: Mapping[str, float | Tensor],
        eps: float = 1e-15,
        by_row: Collection[str] | None = None,
        touched: Collection[str] = (),
        betas: tuple[float, float] = (0.9, 0.999),
    ):
        self.parameters = dict(parameters)
        self.by_row = frozenset(self.parameters if by_row is None else by_row)
        self.rates = dict(rates)
        self.eps, self.betas = eps, betas
        self.count = 0
        self.moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in self.parameters.items()}
        self.counts = {name: torch.zeros_like(self.parameters[name], dtype=torch.int16) for name in touched}
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
        touched = [name for name in graded if name in self.counts]
        sparse = [name for name in graded if self.rows is not None and name in self.by_row and name not in touched]
        self._step([name for name in graded if name not in sparse and name not in touched], None)
        self._step(sparse, self.rows)
        self._step_touched(touched)
        self.rows = None

    def _step(self, names: Sequence[str], rows: Tensor | None) -> None:
        adam_step(*self._lists(names), **self._settings(names), step=self.count, rows=rows)

    def _step_touched(self, names: Sequence[str]) -> None:
        adam_step_touched(*self._lists(names), [self.counts[name] for name in names], **self._settings(names))

    def _lists(self, names: Sequence[str]) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """Parameters, gradients and both moments."""
        parameters = [self.parameters[name] for name in names]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        moment1, moment2 = ([self.moments[name][k] for name in names] for k in (0, 1))
        return [*parameters], gradients, moment1, moment2

    def _settings(self, names: Sequence[str]) -> dict[str, Any]:
        beta1, beta2 = self.betas
        return {"lr": [self.rates[name] for name in names], "beta1": beta1, "beta2": beta2, "eps": self.eps}

    def replace(self, name: str, values: Tensor, moment1: Tensor, moment2: Tensor) -> nn.Parameter:
        """Put `values` in the place of parameter `name`, with its moments; returns the new parameter."""
        if name in self.counts:
            raise ValueError(
                f"replace: expected a parameter that is not among `touched`, got '{name}'; make a new Adam"
            )
        parameter = nn.Parameter(values.contiguous())
        self.parameters[name] = parameter
        self.moments[name] = (moment1.contiguous(), moment2.contiguous())
        return parameter

    def state(self) -> dict[str, Any]:
        """Step count, and moments and numbers' counts by parameter name; tensors are the live ones."""
        moments = {name: {"1": m, "2": v} for name, (m, v) in self.moments.items()}
        for name, counts in self.counts.items():
            moments[name]["counts"] = counts
        return {"count": self.count, "moments": moments}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`; raises KeyError where a parameter is missing."""
        self.count = int(state["count"])
        self.moments = {
            name: (state["moments"][name]["1"].clone(), state["moments"][name]["2"].clone()) for name in self.parameters
        }
        self.counts = {name: state["moments"][name]["counts"].clone() for name in self.counts}
