"""The compiled module: which instruction set and how many threads its kernels use."""

from __future__ import annotations

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


def cuda_built() -> bool:
    """Whether this build carries CUDA kernels."""
    return False
