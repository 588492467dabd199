"""Small multilayer perceptrons without biases, as hash grid fields use them (Mueller et al. 2022)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from anchorfield.cuda_ext import _kernels
from anchorfield.cuda_ext._checks import check

WIDTHS = (16, 32, 64, 128)


@dataclasses.dataclass(frozen=True)
class MlpLayout:
    """The layers of a perceptron: `hidden` of `width` units, each with ReLU, and the outputs, as they are."""

    inputs: int
    """Numbers that come in, 1 to 256."""
    outputs: int
    """Numbers that come out, 1 to 256."""
    width: int = 64
    """Units of a hidden layer: 16, 32, 64 or 128."""
    hidden: int = 1
    """Hidden layers, 1 to 4."""

    def __post_init__(self) -> None:
        """Refuse what the kernels cannot do."""
        _expect("inputs", self.inputs, "1 to 256", 1 <= self.inputs <= 256)
        _expect("outputs", self.outputs, "1 to 256", 1 <= self.outputs <= 256)
        _expect("width", self.width, "16, 32, 64 or 128", self.width in WIDTHS)
        _expect("hidden", self.hidden, "1 to 4", 1 <= self.hidden <= 4)

    @property
    def layers(self) -> list[tuple[int, int]]:
        """Outputs and inputs of each layer, from first to last."""
        sizes = [self.inputs, *[self.width] * self.hidden, self.outputs]
        return list(zip(sizes[1:], sizes[:-1], strict=True))

    @property
    def size(self) -> int:
        """Numbers of all weights: layer after layer, each [out, in]."""
        return sum(out * into for out, into in self.layers)

    def initial(self, generator: torch.Generator | None = None) -> Tensor:
        """Weights to begin with, [size] float32, uniform in +-sqrt(6 / (in + out)) (Glorot and Bengio 2010)."""
        device = None if generator is None else generator.device
        drawn = [torch.rand(out * into, generator=generator, device=device) for out, into in self.layers]
        reaches = [math.sqrt(6 / (out + into)) for out, into in self.layers]
        return torch.cat([(2 * share - 1) * reach for share, reach in zip(drawn, reaches, strict=True)])


def _expect(name: str, got: object, expected: str, fulfilled: bool) -> None:
    if not fulfilled:
        raise ValueError(f"{name}: expected {expected}, got {got}")


def mlp(
    inputs: Tensor,  # [N, layout.inputs]
    weights: Tensor,  # [layout.size]
    layout: MlpLayout,
) -> Tensor:
    """What the perceptron says of each row, [N, layout.outputs].

    Differentiable (once) in `inputs` and `weights`; a unit that is not above zero passes no gradient.
    """
    check(inputs=(inputs, ("N", layout.inputs)), weights=(weights, (layout.size,)))
    outputs: Tensor = _mlp(inputs, weights, layout.outputs, layout.width, layout.hidden)
    return outputs


# What the operations return, for torch's tracing and for those that fill it.
def _empty_outputs(inputs: Tensor, weights: Tensor, outputs: int, *_: Any) -> Tensor:
    return inputs.new_empty((inputs.shape[0], outputs))


def _empty_gradients(
    inputs: Tensor, weights: Tensor, v_outputs: Tensor, width: int, hidden: int, wanted: list[bool]
) -> tuple[Tensor, Tensor]:
    v_inputs, v_weights = (
        t.new_empty(t.shape if want else (0,)) for t, want in zip((inputs, weights), wanted, strict=True)
    )
    return v_inputs, v_weights


@torch.library.custom_op("anchorfield::mlp", mutates_args=(), device_types="cpu")
def _mlp(inputs: Tensor, weights: Tensor, outputs: int, width: int, hidden: int) -> Tensor:
    result = _empty_outputs(inputs, weights, outputs)
    _kernels.mlp(*[t.detach().contiguous() for t in (inputs, weights)], width, hidden, result)
    return result


# Gradients to inputs and weights; those that are not `wanted` have no numbers.
@torch.library.custom_op("anchorfield::mlp_backward", mutates_args=(), device_types="cpu")
def _mlp_backward(
    inputs: Tensor, weights: Tensor, v_outputs: Tensor, width: int, hidden: int, wanted: list[bool]
) -> tuple[Tensor, Tensor]:
    results = _empty_gradients(inputs, weights, v_outputs, width, hidden, wanted)
    arrays = [t.detach().contiguous() for t in (inputs, weights, v_outputs)]
    _kernels.mlp_backward(*arrays, width, hidden, *_only(wanted, results))
    return results


def _only(wanted: list[bool], results: tuple[Tensor, Tensor]) -> list[Tensor | None]:
    return [result if want else None for result, want in zip(results, wanted, strict=True)]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, _, ctx.width, ctx.hidden = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, v_outputs: Tensor) -> tuple[Tensor | None, ...]:
    # Kept in the graph only for second derivatives, which are then refused aloud instead of left out.
    inputs, weights = (t if torch.is_grad_enabled() else t.detach() for t in ctx.saved_tensors)
    wanted = list(ctx.needs_input_grad[:2])
    results = _mlp_backward(inputs, weights, v_outputs, ctx.width, ctx.hidden, wanted)
    return (*_only(wanted, results), None, None, None)


_mlp.register_fake(_empty_outputs)
_mlp_backward.register_fake(_empty_gradients)
_mlp.register_autograd(_backward, setup_context=_setup)
