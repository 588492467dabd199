"""What the machine reaches now: fused multiply-adds, memory bandwidth, memory."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch

from anchorfield.cuda_ext import native

STREAM = 2**24  # numbers of an array that the bandwidth is measured on: 64 MiB, more than a cache holds
MOST_THREADS = 64  # that share such an array


class Ceiling(NamedTuple):
    """Rates of all threads together."""

    flops: float  # float32 operations per second, two for a fused multiply-add
    bandwidth: float  # bytes per second of a + s b -> c (triad)

    def floor(self, lanes: float, traffic: float) -> float:
        """Least seconds for `lanes` operations on one number each and `traffic` bytes through the memory."""
        return max(2 * lanes / self.flops, traffic / self.bandwidth)


class Stream:
    """The arrays that the bandwidth is measured on, made once: fresh pages would cost more than what is measured."""

    def __init__(self, size: int = STREAM):
        self.arrays = [torch.rand(size) for _ in range(3)]
        self.pool = ThreadPoolExecutor(MOST_THREADS)

    def triad(self) -> float:
        """Bytes per second of a + s b -> c, as many threads as the kernels use."""
        return self._rate(3, lambda a, b, c: torch.add(a, b, alpha=3.0, out=c))

    def read(self) -> float:
        """Bytes per second of reading two arrays."""
        return self._rate(2, lambda a, b, c: torch.dot(a, b))

    def _rate(self, arrays: int, work: Callable[..., Any]) -> float:
        threads = min(native.threads(), MOST_THREADS)
        parts = list(zip(*(array.chunk(threads) for array in self.arrays), strict=True))
        begin = time.perf_counter()
        list(self.pool.map(lambda part: work(*part), parts))
        return 4 * arrays * len(self.arrays[0]) / (time.perf_counter() - begin)


def ceiling(stream: Stream, repeats: int = 3) -> Ceiling:
    """The present ceiling in a few hundredths of a second: the median of what is measured now."""
    flops = statistics.median(native.fma_rate(0.01) for _ in range(repeats))
    return Ceiling(flops, statistics.median(stream.triad() for _ in range(repeats)))


def one_torch_thread() -> None:
    """As the application sets it: the cores belong to the kernels."""
    torch.set_num_threads(1)
    native.keep_freed_memory()


def key() -> str:
    """Machines whose ratios compare: instruction set and threads."""
    return f"{native.instruction_set()}, {native.threads()} threads"


def load() -> float:
    """Running processes, mean of the last minute; nan where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
