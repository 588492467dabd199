"""The compiled module: which instruction set and how many threads its kernels use."""

from __future__ import annotations

import time

from anchorfield.cuda_ext import _kernels


def instruction_set() -> str:
    """The instruction set in use, chosen when the module loads: the best that the processor runs."""
    return str(_kernels.instruction_set())


def instruction_sets() -> list[str]:
    """The instruction sets that this processor runs, best last."""
    return list(_kernels.instruction_sets())


def set_instruction_set(name: str) -> None:
    """Use another of `instruction_sets()`; for tests and benchmarks."""
    if not _kernels.set_instruction_set(name):
        raise ValueError(f"instruction set: expected one of {', '.join(instruction_sets())}, got '{name}'")


def threads() -> int:
    """Threads that the kernels use; as many as there are processors for this process, unless set."""
    return int(_kernels.threads())


def set_threads(count: int) -> None:
    """Use `count` >= 1 threads. Results do not depend on it."""
    if count < 1:
        raise ValueError(f"threads: expected at least 1, got {count}")
    _kernels.set_threads(count)


def keep_freed_memory() -> None:
    """Let the process keep up to 1 GiB of freed memory for the next step; about 7 % of a step at 540x960."""
    _kernels.keep_freed_memory()


def cuda_built() -> bool:
    """Whether this build carries CUDA kernels."""
    return hasattr(_kernels, "cuda")


def fma_rate(seconds: float = 0.2) -> float:
    """Fused multiply-adds that all threads together reach now, in float32 operations per second (two for each).

    The ceiling of compute-bound kernels; runs for about `seconds`.
    """
    rounds, begin = 100_000, time.perf_counter()
    _kernels.fma_rate(rounds)
    rounds = max(rounds, int(rounds * seconds / (time.perf_counter() - begin)))
    return float(_kernels.fma_rate(rounds))
