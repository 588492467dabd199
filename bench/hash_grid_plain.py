"""Hash grids beside plain C++ (`plain_hash_grid.cpp`) and plain torch, in one run: `python -m bench.hash_grid_plain`.

2^18 positions in three dimensions, anywhere and along rays, 16 levels of 2 features up to a resolution of 2048: the
encoding and its gradient to the table. Plain C++ takes and gives arrays in the order that suits it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anchorfield.cuda_ext import native
from anchorfield.cuda_ext.hash_grid import HashGrid, hash_grid
from bench import _machine
from bench._operations import backward, forward
from bench.hash_grid import torch_hash_grid

SOURCE = Path(__file__).with_name("plain_hash_grid.cpp")
COUNT, ROUNDS, TORCH_ROUNDS = 2**18, 9, 2
SIZES = (15, 19)  # of a level, as powers of two
STEP = 3**0.5 / 1024  # between the samples of a ray

Calls = tuple[Callable[[], object], Callable[[], object]]  # forward, backward


def compiled(folder: Path) -> ctypes.CDLL | None:
    """Plain C++ as a library, by the system's compiler; None where there is none."""
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None:
        return None
    library = folder / "plain.so"
    flags = ["-std=c++20", "-O3", "-march=native", "-shared", "-fPIC", "-pthread"]
    subprocess.run([compiler, *flags, str(SOURCE), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def anywhere(g: torch.Generator) -> Tensor:
    """Positions that have nothing to do with each other."""
    return torch.rand(COUNT, 3, generator=g)


def along_rays(g: torch.Generator) -> Tensor:
    """128 positions on each ray, rays in any order."""
    rays = COUNT // 128
    directions = torch.nn.functional.normalize(torch.randn(rays, 1, 3, generator=g), dim=-1)
    starts = 0.25 + 0.5 * torch.rand(rays, 1, 3, generator=g)
    steps = torch.arange(-64, 64)[:, None] * STEP
    return (starts + steps * directions).clamp(0, 1).reshape(COUNT, 3)


def ours(positions: Tensor, table: Tensor, layout: HashGrid) -> Calls:
    """The kernels, called through torch as training does."""
    encoded = hash_grid(positions, table, layout)
    return forward(lambda: hash_grid(positions, table, layout)), backward(encoded, (table,))


def in_torch(positions: Tensor, table: Tensor, layout: HashGrid) -> Calls:
    """Corner by corner."""
    encoded = torch_hash_grid(positions, table, layout)
    return forward(lambda: torch_hash_grid(positions, table, layout)), backward(encoded, (table,))


def in_plain_cpp(library: ctypes.CDLL, positions: Tensor, table: Tensor, layout: HashGrid) -> Calls:
    """Plain C++, whose encoding is checked against ours first."""
    columns, numbers = positions.T.contiguous(), table.detach()
    encoded = torch.empty(layout.levels, COUNT, 2)
    v_encoded, v_table = torch.randn_like(encoded), torch.empty_like(numbers)
    layouts = [
        torch.tensor(layout.scales, dtype=torch.float32),
        torch.tensor(layout.sides, dtype=torch.int32),
        torch.tensor(layout.offsets, dtype=torch.int32),
    ]

    def call(name: str, last: tuple[Tensor, Tensor]) -> Callable[[], object]:
        pointers = [ctypes.c_void_p(t.data_ptr()) for t in (*layouts, columns, *last)]
        arguments = [ctypes.c_int(layout.levels), *pointers[:4], ctypes.c_int64(COUNT), *pointers[4:]]
        return lambda keep=(layouts, columns, last): getattr(library, name)(*arguments, ctypes.c_int(native.threads()))  # type: ignore[misc]

    run = call("plain_forward", (numbers, encoded))
    run()
    expected = hash_grid(positions, numbers, layout).view(COUNT, layout.levels, 2).transpose(0, 1)
    torch.testing.assert_close(encoded, expected, rtol=0, atol=1e-3)
    return run, call("plain_backward", (v_encoded, v_table))


def quartiles(calls: Mapping[str, Sequence[Callable[[], object]]]) -> dict[str, list[float]]:
    """Lower quartiles of the times of all calls in milliseconds, everything in turn."""
    times: dict[str, list[list[float]]] = {name: [[] for _ in some] for name, some in calls.items()}
    for number in range(ROUNDS):
        for name, some in calls.items():
            if name == "torch" and number >= TORCH_ROUNDS:
                continue
            for run, found in zip(some, times[name], strict=True):
                begin = time.perf_counter()
                run()
                found.append(1e3 * (time.perf_counter() - begin))
    return {name: [quartile(t) for t in found] for name, found in times.items()}


def quartile(times: list[float]) -> float:
    """What a run takes while others let it."""
    return float(np.quantile(times, 0.25))


def main() -> None:
    _machine.one_torch_thread()
    print(f"{_machine.key()}, load {_machine.load():.1f}; forward + backward to the table in ms, and times ours")
    with tempfile.TemporaryDirectory() as folder:
        library = compiled(Path(folder))
        if library is None:
            print("no C++ compiler (c++, or CXX): plain C++ is left out")
        for log2_size in SIZES:
            for draw in (anywhere, along_rays):
                g = torch.Generator().manual_seed(0)
                layout = HashGrid.up_to(2048, log2_table_size=log2_size)
                positions = draw(g)
                table = torch.randn(layout.rows, 2, generator=g).requires_grad_()
                calls = {"ours": ours(positions, table, layout), "torch": in_torch(positions, table, layout)}
                if library is not None:
                    calls["plain C++"] = in_plain_cpp(library, positions, table, layout)
                found = quartiles(calls)
                line = [f"{n} {f:.1f} + {b:.1f} ({(f + b) / sum(found['ours']):.2f})" for n, (f, b) in found.items()]
                print(f"2^{log2_size} rows, {draw.__name__.replace('_', ' ')}: " + ", ".join(line), flush=True)


if __name__ == "__main__":
    main()
