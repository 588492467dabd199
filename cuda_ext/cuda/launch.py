"""How kernels are queued on a CUDA device, and what they hand back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from anchorfield.cuda_ext import _kernels

Implementations = dict[Any, Callable[..., Any]]  # of registered operations

native: Any = getattr(_kernels, "cuda", None)  # None where the build carries no CUDA kernels


@contextmanager
def queue(device: torch.device) -> Iterator[int]:
    """The handle of the current stream of `device`, which is the current device meanwhile."""
    with torch.cuda.device(device):
        yield torch.cuda.current_stream().cuda_stream


def run(name: str, *arguments: Any) -> None:
    """Queue a kernel. Tensors travel as DLPack capsules made without any exchange between streams."""
    tensors = [a for a in tree_leaves(arguments) if isinstance(a, Tensor)]
    if any(t.dtype == torch.float64 for t in tensors):
        raise TypeError(f"{name}: expected float32 tensors on a CUDA device, got float64; use .float() or the CPU")
    with queue(tensors[0].device) as stream:
        getattr(native, name)(*capsules(arguments), stream)


def capsules(arguments: Any) -> Any:
    """The arguments with capsules in place of the tensors."""
    return tree_map_only(Tensor, lambda t: t.detach().__dlpack__(stream=-1), arguments)


def read_back(totals: Tensor) -> Callable[[], list[int]]:
    """Start copying two integers to the host; the function returned waits for them alone, not for later work."""
    host = torch.empty(2, dtype=torch.int64, pin_memory=True)
    with torch.cuda.device(totals.device):
        host.copy_(totals, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()

    def wait() -> list[int]:
        arrived.synchronize()
        return [int(number) for number in host]

    return wait


def dense(*tensors: Tensor) -> list[Tensor]:
    """The tensors without their graph, each in one piece of memory."""
    return [t.detach().contiguous() for t in tensors]
