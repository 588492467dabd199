"""The CUDA side on the CPU: its sources compiled with a stand-in for CUDA, and its Python half fed with CPU tensors."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from anchorfield.cuda_ext import cuda
from anchorfield.cuda_ext.cuda import launch, splats

BUILD = Path(__file__).resolve().parents[2] / "build" / "dev"


@functools.cache
def compiled() -> Any:
    """The module that `make setup` configured, compiled now; takes seconds the first time."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    cmake = shutil.which("cmake", path=path)
    if cmake is None or not (BUILD / "CMakeCache.txt").exists():
        pytest.skip("needs the build folder of `make setup` and CMake")
    command = [cmake, "--build", str(BUILD), "--target", "_cuda_on_cpu", "--parallel", "2"]
    done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, f"the CUDA sources do not compile for the CPU:\n{done.stdout}{done.stderr}"
    (file,) = (BUILD / "tests" / "cuda_on_cpu").glob("_cuda_on_cpu*.so")
    spec = importlib.util.spec_from_file_location("_cuda_on_cpu", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GUARD = 256  # bytes on either side of every array that a kernel gets
SIGNALLING = 0x7FA00000  # what they hold: NaN to those who read there, and another NaN once it has been added to


def fenced(tensor: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """A copy of the tensor, and the guards before and behind it."""
    size = tensor.numel() * tensor.element_size()
    whole = torch.full(((size + 2 * GUARD) // 4 + 1,), SIGNALLING, dtype=torch.int32).view(torch.uint8)
    inside = whole[GUARD : GUARD + size].view(tensor.dtype).view(tensor.shape)
    return inside.copy_(tensor.detach()), (whole[:GUARD], whole[GUARD + size :])


def run_fenced(run: Callable[..., None], name: str, *arguments: Any) -> None:
    """As `run`, on fenced copies: fails where a kernel writes beyond an array."""
    flat, shape = tree_flatten(arguments)
    copies = {k: fenced(a) for k, a in enumerate(flat) if isinstance(a, Tensor)}
    before = {k: [guard.clone() for guard in guards] for k, (_, guards) in copies.items()}
    run(name, *tree_unflatten([copies[k][0] if k in copies else a for k, a in enumerate(flat)], shape))
    for k, (inside, guards) in copies.items():
        intact = all(map(torch.equal, guards, before[k]))
        assert intact, f"{name} writes beyond its argument {k}, {list(inside.shape)}"
        flat[k].detach().copy_(inside)


class Redirected(TorchDispatchMode):
    """Sends the product's registered operations to the CUDA implementations, whatever the device."""

    def __init__(self) -> None:
        super().__init__()
        self.called: set[str] = set()
        self.functions = {op._opoverload: function for op, function in cuda.IMPLEMENTATIONS.items()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace != "anchorfield":
            return func(*args, **(kwargs or {}))
        self.called.add(func._schema.name.removeprefix("anchorfield::"))
        return self.functions[func](*args, **(kwargs or {}))


@contextlib.contextmanager
def stand_in() -> Iterator[None]:
    """The Python half of the CUDA side uses the stand-in, and memory is full of NaN until it is written."""

    def read_back(totals: Tensor) -> Callable[[], list[int]]:
        return lambda: [int(number) for number in totals]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "native", compiled())
        patch.setattr(launch, "queue", lambda device: contextlib.nullcontext(0))
        patch.setattr(launch, "read_back", read_back)
        patch.setattr(splats, "_rooms", {})
        patch.setattr(launch, "run", functools.partial(run_fenced, launch.run))
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = True
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(False)
            compiled().turn_round(False)


@contextlib.contextmanager
def on_the_cpu() -> Iterator[Redirected]:
    """Every operation of the product runs its CUDA kernels, on the stand-in."""
    with stand_in(), Redirected() as mode:
        yield mode
