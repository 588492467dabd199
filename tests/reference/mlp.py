"""Perceptrons without biases, layer by layer."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Layers(Protocol):
    """Of a perceptron only its sizes count."""

    @property
    def inputs(self) -> int: ...
    @property
    def outputs(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def hidden(self) -> int: ...


def sums(inputs: Tensor, weights: Tensor, layout: Layers) -> list[Tensor]:
    """What each layer's units sum up, before anything is rectified."""
    results, at = [], 0
    for layer in range(layout.hidden + 1):
        into = layout.width if layer else layout.inputs
        out = layout.width if layer < layout.hidden else layout.outputs
        matrix = weights[at : at + out * into].reshape(out, into)
        at += out * into
        results.append((results[-1].relu() if results else inputs) @ matrix.T)
    return results


def mlp(inputs: Tensor, weights: Tensor, layout: Layers) -> Tensor:
    """The outputs [N, layout.outputs]."""
    return sums(inputs, weights, layout)[-1]


def margin(inputs: Tensor, weights: Tensor, layout: Layers) -> Tensor:
    """How far from zero the hidden unit of each row is that is nearest to it, [N]."""
    return torch.cat(sums(inputs, weights, layout)[:-1], 1).abs().amin(1)
