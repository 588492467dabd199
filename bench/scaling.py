"""How a training step grows with the Gaussians and shrinks with the threads.

python -m bench.scaling [--gaussians N ...] [--threads T ...] [--size WxH]
"""

from __future__ import annotations

import argparse
import os

import numpy as np

from anchorfield.cuda_ext import native
from bench import _table, memory, training_step
from bench._machine import one_torch_thread
from bench._operations import Stages
from bench._scenes import made

COUNTS = [10_000, 30_000, 100_000, 300_000, 1_000_000, 2_000_000, 5_000_000]
SIZED_FOR, MOST_SIZED = 100_000, 1_000_000  # Gaussians as large as in a scene of the first, up to the second


def by_threads(count: int, size: tuple[int, int], threads: list[int]) -> list[str]:
    """A line for each number of threads."""
    scene, lines, single = made(count, *size), [], 0.0
    usual = native.threads()
    for number in threads:
        native.set_threads(number)
        row = _table.measured([training_step.alone], scene, 3, 0.5)[0]
        single = single or row.ms * number
        lines.append(f"{number:>3} threads {row.ms:9.1f} ms, {single / row.ms:.2f} times one thread's rate")
    native.set_threads(usual)
    return lines


def by_count(count: int, size: tuple[int, int]) -> str:
    """A line for one number of Gaussians, with the memory of a process of its own."""
    if not memory.fits(count, *size):
        return f"{count:>10,}: skipped, it may not fit into the free memory"
    blocks = block_evaluations(count, size)
    row = _table.measured([training_step.alone], made(count, *size), 3, 0.3)[0]
    peak = memory.peak(count, *size)
    return (
        f"{count:>10,} {row.ms:9.1f} ms, {1e6 * row.ms / count:7.0f} ns a Gaussian,"
        f" {blocks / 1e6:6.2f} million blocks met, {1e6 * row.ms / blocks:5.1f} ns a block, peak {peak / 1e6:,.0f} MB"
    )


def by_evaluations(count: int, size: tuple[int, int]) -> str:
    """A line for one number of Gaussians that do not shrink: evaluations grow with them."""
    scene = made(count, *size, sized_for=SIZED_FOR)
    evaluations = Stages(scene).evaluations
    row = _table.measured([training_step.alone], scene, 3, 0.3)[0]
    each = 1e9 * row.ms / evaluations
    return f"{count:>10,} {row.ms:9.1f} ms, {evaluations / 1e6:8,.0f} million evaluations, {each:5.0f} ps each"


def block_evaluations(count: int, size: tuple[int, int]) -> int:
    """4x4 blocks that Gaussians reach: what compositing evaluates, where no pixel is opaque."""
    return int(np.bitwise_count(Stages(made(count, *size)).bins.blocks.numpy()).sum())


def main() -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gaussians", type=int, nargs="*", default=COUNTS)
    parser.add_argument("--threads", type=int, nargs="*", default=[t for t in (1, 2, 4, 8) if t <= cores])
    parser.add_argument("--size", type=_table.size, default=(540, 960))
    arguments = parser.parse_args()
    one_torch_thread()
    print(_table.machine_line())
    print(f"training step, 100,000 Gaussians, {arguments.size[0]}x{arguments.size[1]}")
    print("\n".join(by_threads(100_000, arguments.size, arguments.threads)), flush=True)
    print(f"training step, {native.threads()} threads, {arguments.size[0]}x{arguments.size[1]}")
    for count in arguments.gaussians:
        print(by_count(count, arguments.size), flush=True)
    print(f"the same, Gaussians as large as in a scene of {SIZED_FOR:,}: evaluations grow with the count")
    for count in arguments.gaussians:
        if SIZED_FOR <= count <= MOST_SIZED:
            print(by_evaluations(count, arguments.size), flush=True)


if __name__ == "__main__":
    main()
