"""What must hold of perceptrons whatever the numbers: layers, first weights, which gradients are computed."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from test_ops import native_settings
from torch import Tensor

from anchorfield.cuda_ext import native
from anchorfield.cuda_ext.mlp import MlpLayout, mlp
from reference import mlp as plain
from reference.made_scenes import generator, uniform

__all__ = ["native_settings"]  # a fixture
pytestmark = pytest.mark.usefixtures("one_torch_thread")
DENSITY, COLOUR = MlpLayout(32, 16), MlpLayout(32, 3, hidden=2)


def test_layers_of_the_usual_perceptrons() -> None:
    assert DENSITY.layers == [(64, 32), (16, 64)]
    assert COLOUR.layers == [(64, 32), (64, 64), (3, 64)]
    assert (DENSITY.size, COLOUR.size) == (3072, 6336)


def test_first_weights_are_uniform_and_repeat() -> None:
    weights = COLOUR.initial(generator(1))
    assert torch.equal(weights, COLOUR.initial(generator(1)))
    at = 0
    for out, into in COLOUR.layers:
        reach, part = math.sqrt(6 / (out + into)), weights[at : at + out * into]
        at += out * into
        assert float(part.abs().max()) <= reach
        # five standard deviations of the mean and of the mean square
        assert abs(float(part.mean())) < 5 * reach / math.sqrt(3 * len(part))
        assert abs(float((part**2).mean()) / reach**2 - 1 / 3) < 5 * math.sqrt(4 / 45 / len(part))
    assert at == COLOUR.size


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("inputs", 0, "1 to 256"),
        ("inputs", 257, "1 to 256"),
        ("outputs", 0, "1 to 256"),
        ("width", 48, "16, 32, 64 or 128"),
        ("hidden", 0, "1 to 4"),
        ("hidden", 5, "1 to 4"),
    ],
)
def test_wrong_settings_are_refused_with_words(setting: str, value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=f"{setting}: expected {expected}, got {value}"):
        dataclasses.replace(DENSITY, **{setting: value})


@pytest.mark.parametrize("count", [1, 3, 95, 96, 97, 384, 389])
@pytest.mark.parametrize("sizes", [(7, 5), (16, 16), (33, 4)])
def test_rows_are_independent(count: int, sizes: tuple[int, int]) -> None:
    """Whatever stands beside a row in its block: outputs and gradients are those of the row alone, bit for bit."""
    layout = MlpLayout(*sizes, width=16, hidden=2)
    weights = layout.initial(generator(1))
    inputs = uniform(generator(2), -1, 1, 400, layout.inputs).float()
    v = torch.randn(400, layout.outputs, generator=generator(3))

    def evaluated(rows: slice) -> tuple[Tensor, Tensor]:
        leaf = inputs[rows].clone().requires_grad_()
        outputs = mlp(leaf, weights, layout)
        return outputs.detach(), torch.autograd.grad(outputs, leaf, v[rows])[0]

    for all_rows, some in zip(evaluated(slice(None)), evaluated(slice(count)), strict=True):
        assert torch.equal(all_rows[:count], some)


def test_units_that_are_zero_pass_no_gradient() -> None:
    """Negative inputs leave every unit of a perceptron with positive weights at zero."""
    inputs = -torch.rand(5, 32, generator=generator(1)).requires_grad_()
    weights = torch.rand(DENSITY.size, generator=generator(2)).requires_grad_()
    outputs = mlp(inputs, weights, DENSITY)
    assert not outputs.any()
    assert not any(gradient.any() for gradient in torch.autograd.grad(outputs.sum(), (inputs, weights)))


@pytest.mark.parametrize("wanted", ["inputs", "weights"])
def test_a_gradient_alone_is_that_of_both(wanted: str) -> None:
    values = {"inputs": uniform(generator(4), -1, 1, 500, 32).float(), "weights": COLOUR.initial(generator(5))}

    def gradients(names: list[str]) -> dict[str, Tensor]:
        leaves = {n: value.clone().requires_grad_(n in names) for n, value in values.items()}
        mlp(**leaves, layout=COLOUR).square().sum().backward()
        return {n: leaf.grad for n, leaf in leaves.items() if leaf.grad is not None}

    alone = gradients([wanted])
    assert list(alone) == [wanted]
    assert torch.equal(alone[wanted], gradients(list(values))[wanted])


@pytest.mark.usefixtures("native_settings")
def test_many_rows_are_summed_as_precisely_as_few() -> None:
    """The error of the gradient to the weights is a few ulps, and the same for any number of threads."""
    layout = MlpLayout(4, 4, width=16)
    weights = layout.initial(generator(1))
    inputs = uniform(generator(2), 0, 1, 60_000, 4).float()  # more runs than pieces
    results = []
    for threads in (1, 3):
        native.set_threads(threads)
        leaf = weights.clone().requires_grad_()
        results.append(torch.autograd.grad(mlp(inputs, leaf, layout).square().sum() / 2, leaf)[0])
    assert torch.equal(*results)
    exact = weights.double().requires_grad_()
    (expected,) = torch.autograd.grad(plain.mlp(inputs.double(), exact, layout).square().sum() / 2, exact)
    # sums of 384 numbers of one sign round by sqrt(384) / 2 ulps, their totals once
    assert float((results[0] - expected).norm() / expected.norm()) < math.sqrt(384) * torch.finfo(torch.float32).eps


def test_second_derivatives_are_refused() -> None:
    inputs = torch.ones(2, 32, requires_grad=True)
    weights = DENSITY.initial(generator(1)).requires_grad_()
    (slope,) = torch.autograd.grad(mlp(inputs, weights, DENSITY).sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        slope.sum().backward()
