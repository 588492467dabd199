"""What the machine offers and what this process uses of it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from typing import Any


def version() -> str:
    """The installed version of anchorfield, "unknown" where only the sources are on the path."""
    try:
        return importlib.metadata.version("anchorfield")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def single_torch_thread() -> None:
    """Leave the cores to our own kernels: torch's OpenMP workers spin between operations and would steal them.

    Also lets the process keep the memory that one step frees for the next.
    """
    import torch

    from anchorfield.cuda_ext import native

    torch.set_num_threads(1)
    native.keep_freed_memory()


def resident_bytes() -> int:
    """Memory that this process holds now; its peak where the system does not tell the present figure."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return peak_bytes()


def peak_bytes() -> int:
    """The most memory this process ever held; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def memory() -> dict[str, int]:
    """Bytes of main memory: total and free for new work (an empty mapping where the system does not tell)."""
    try:
        with open("/proc/meminfo") as file:
            rows = {row.split(":")[0]: int(row.split()[1]) * 1024 for row in file if row.split()[-1] == "kB"}
        return {"total": rows["MemTotal"], "free": rows["MemAvailable"]}
    except (OSError, KeyError):
        return {}


def cpu_name() -> str:
    """The processor's own name, else its architecture."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [row.split(":", 1)[1].strip() for row in file if row.startswith("model name")]
        return names[0] if names else platform.machine()
    except OSError:
        return platform.processor() or platform.machine()


def kernels() -> dict[str, Any]:
    """The compiled kernels in use; {"error": why} where they cannot be loaded."""
    try:
        from anchorfield.cuda_ext import native

        return {
            "instruction_set": native.instruction_set(),
            "instruction_sets": list(native.instruction_sets()),
            "threads": native.threads(),
            "cuda_built": native.cuda_built(),
        }
    except (ImportError, AttributeError, OSError) as problem:
        return {"error": f"{type(problem).__name__}: {problem}"}


def environment() -> dict[str, Any]:
    """What a result depends on besides its settings; recorded with every run."""
    import torch

    return {
        "anchorfield": version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": cpu_name(),
        "cores": usable_cores(),
        "memory": memory(),
        "kernels": kernels(),
    }


def usable_cores() -> int:
    """Processor cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def human_bytes(count: float) -> str:
    """A size for people: 23.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def human_time(seconds: float) -> str:
    """A duration for people: 1:05:09 or 3:20."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
