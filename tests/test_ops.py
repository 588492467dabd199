"""Every operation against its reference, by gradcheck, opcheck, and with unusual and wrong input.

A new operation is one entry in OPS. Inputs are drawn in float64 but exact in float32, so that every precision computes
the same thing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.utils._pytree as pytree
from operations import OPS, Inputs, Op, Outputs
from operations._op import cotangent
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from anchorfield.cuda_ext import (
    native,
)
from reference.tolerance import assert_as_good_as_plain

pytestmark = pytest.mark.usefixtures("one_torch_thread")
EACH_OP = pytest.mark.parametrize("op", OPS.values(), ids=OPS)
EACH_CASE = pytest.mark.parametrize(("name", "case"), [(name, case) for name, op in OPS.items() for case in op.cases])


# -------------------------------------------------------------------------------------------------------- machinery
def cast(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    """The inputs with every floating tensor in `dtype`."""
    return {k: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in inputs.items()}


def evaluate(function: Callable[..., Outputs], op: Op, inputs: Inputs) -> Outputs:
    """The outputs, and the gradients to the op's inputs as v_<name>."""
    leaves = {n: inputs[n].detach().clone().requires_grad_() for n in op.gradients if inputs[n] is not None}
    outputs = function(**{**inputs, **leaves})
    results = {name: value.detach() for name, value in outputs.items()}
    if leaves:
        ends = {name: value for name, value in outputs.items() if value.requires_grad}
        starts = [cotangent(name, value) for name, value in ends.items()]
        found = torch.autograd.grad(
            list(ends.values()), list(leaves.values()), starts, allow_unused=True, materialize_grads=True
        )
        results |= {f"v_{name}": gradient for name, gradient in zip(leaves, found, strict=True)}
    return results


def evaluate_kernel(op: Op, inputs: Inputs) -> Outputs:
    """As `evaluate`, of the product's function."""
    return evaluate(op.kernel, op, op.prepare(**inputs))


@functools.cache
def references(name: str, case: str) -> tuple[list[Inputs], list[Outputs], list[Outputs]]:
    """Inputs, float32 results and float64 results of the plain reference, for each draw."""
    op = OPS[name]
    drawn = [op.draw(case, seed, op.count) for seed in range(op.draws)]
    plain, exact = (
        [evaluate(op.plain, op, cast(inputs, dtype)) for inputs in drawn] for dtype in (torch.float32, torch.float64)
    )
    return drawn, plain, exact


@pytest.fixture
def native_settings() -> Iterator[None]:
    """Puts threads and instruction set back after the test."""
    threads, best = native.threads(), native.instruction_set()
    yield
    native.set_threads(threads)
    native.set_instruction_set(best)


# ------------------------------------------------------------------------------------------------------------ tests
@EACH_CASE
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("instruction_set", native.instruction_sets())
@pytest.mark.usefixtures("native_settings")
def test_as_good_as_the_plain_reference(instruction_set: str, dtype: torch.dtype, name: str, case: str) -> None:
    native.set_instruction_set(instruction_set)
    drawn, plain, exact = references(name, case)
    results = [evaluate_kernel(OPS[name], cast(inputs, dtype)) for inputs in drawn]
    assert all(value.dtype == dtype for value in results[0].values())
    assert_as_good_as_plain(results, plain, exact)


@pytest.mark.parametrize("op", [op for op in OPS.values() if op.gradients], ids=[n for n in OPS if OPS[n].gradients])
def test_gradcheck(op: Op) -> None:
    inputs = op.prepare(**op.smooth())

    def function(*leaves: Tensor) -> tuple[Tensor, ...]:
        outputs = op.kernel(**{**inputs, **dict(zip(op.gradients, leaves, strict=True))})
        return tuple(value for value in outputs.values() if value.requires_grad)

    leaves = [inputs[name].clone().requires_grad_() for name in op.gradients]
    assert torch.autograd.gradcheck(function, leaves)


class Recorder(TorchDispatchMode):
    """Remembers the product's registered operations as they are called, with copies of their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "anchorfield":
            copied = pytree.tree_map_only(Tensor, own_copy, (args, kwargs or {}))
            self.calls[str(func)] = (func, *copied)
        return func(*args, **(kwargs or {}))


def own_copy(value: Tensor) -> Tensor:
    """The same numbers in a leaf of its own."""
    return value.detach().clone().requires_grad_(value.requires_grad)


@EACH_OP
def test_opcheck(op: Op) -> None:
    """Schema, fake implementation, autograd and compilation of each registered operation, backward ones included."""
    with Recorder() as recorder:
        evaluate_kernel(op, cast(op.smooth(), torch.float32))
    assert recorder.calls
    for function, args, kwargs in recorder.calls.values():
        torch.library.opcheck(function, args, kwargs)


@EACH_OP
@pytest.mark.usefixtures("native_settings")
def test_independent_of_the_number_of_threads(op: Op) -> None:
    inputs = cast(op.draw(op.cases[0], 0, op.many), torch.float32)
    native.set_threads(1)
    expected = evaluate_kernel(op, inputs)
    for threads in (2, 3):
        native.set_threads(threads)
        for name, value in evaluate_kernel(op, inputs).items():
            assert torch.equal(value, expected[name]), f"{name} changes with {threads} threads"


@pytest.mark.parametrize("op", [op for op in OPS.values() if op.rows], ids=[n for n in OPS if OPS[n].rows])
def test_empty(op: Op) -> None:
    inputs = cast(op.smooth(), torch.float32)
    empty = {name: inputs[name][:0] if name in op.rows else value for name, value in inputs.items()}
    got, expected = evaluate_kernel(op, empty), evaluate(op.plain, op, empty)
    assert {k: v.shape for k, v in got.items()} == {k: v.shape for k, v in expected.items()}
    assert all(torch.isfinite(value).all() for value in got.values())


def strided(value: Any) -> Any:
    """The same numbers with gaps between them in memory."""
    if not isinstance(value, Tensor):
        return value
    return torch.stack([value, torch.zeros_like(value)], -1)[..., 0] if value.ndim else value


@EACH_OP
def test_non_contiguous(op: Op) -> None:
    inputs = op.prepare(**cast(op.draw(op.cases[0], 0, 10), torch.float32))
    gaps = {name: strided(value) for name, value in inputs.items()}
    assert not all(v.is_contiguous() for v in gaps.values() if isinstance(v, Tensor))
    expected = op.kernel(**inputs)
    for name, value in op.kernel(**gaps).items():
        assert torch.equal(value, expected[name]), name


CORRUPTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "an axis too many": lambda t: t[None],
    "an axis too few": lambda t: t.select(-1, 0),
    "too wide": lambda t: torch.cat([t, t], -1),
    "integers": lambda t: t.to(torch.int64),
    "another precision": lambda t: t.to(torch.float64) if t.is_floating_point() else t.to(torch.float32),
    "another device": lambda t: t.to("meta"),
}
RELATIVE = {"another precision", "another device"}  # than the other tensors, where there are any
CORRUPTED = [
    (name, argument, corruption)
    for name, op in OPS.items()
    for tensors in [[k for k, v in op.prepare(**cast(op.smooth(), torch.float32)).items() if isinstance(v, Tensor)]]
    for argument in tensors
    for corruption in CORRUPTIONS
    if not (corruption == "too wide" and argument in op.wide)
    if not (corruption in RELATIVE and len(tensors) == 1)
]


@pytest.mark.parametrize(("name", "argument", "corruption"), CORRUPTED)
def test_wrong_input_is_refused_with_words(name: str, argument: str, corruption: str) -> None:
    op = OPS[name]
    inputs = op.prepare(**cast(op.smooth(), torch.float32))
    wrong = {**inputs, argument: CORRUPTIONS[corruption](inputs[argument])}
    with pytest.raises((ValueError, TypeError), match=r"(?s)expected.*got") as caught:
        op.kernel(**wrong)
    # the first argument sets the measure for the others: a fault in it may show in one of them
    assert argument in str(caught.value) or argument == next(iter(inputs))
