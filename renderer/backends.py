"""Which implementation renders Gaussians in this process: our kernels, or gsplat's on CUDA.

A backend belongs to the machine and not to a method: methods call `renderer.splatting.splat` and never ask.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from anchorfield.renderer.errors import MissingBackend, UsageError

NATIVE, GSPLAT, AUTO = "native", "gsplat", "auto"
NAMES = (AUTO, NATIVE, GSPLAT)
GSPLAT_VERSION = "1.5.3"  # the one whose conventions are documented and tested

_current = NATIVE


def current() -> str:
    """The backend in use, "native" or "gsplat"."""
    return _current


def resolved(name: str) -> str:
    """The backend that `name` stands for; raises MissingBackend where it does not run here.

    "auto" is always "native": what is installed beside us must not change a result.
    """
    if name not in NAMES:
        raise UsageError(f"--backend: expected one of {', '.join(NAMES)}, got '{name}'")
    if name != GSPLAT:
        return NATIVE
    if problem := _gsplat_problem():
        raise MissingBackend(f"--backend gsplat: {problem}. --backend native runs on any machine")
    return GSPLAT


@contextmanager
def using(name: str) -> Iterator[str]:
    """Render with this backend inside the block; gives its resolved name."""
    global _current
    before, _current = _current, resolved(name)
    try:
        yield _current
    finally:
        _current = before


def _gsplat_problem() -> str | None:
    """Why gsplat does not run here and what to do; None where it does."""
    install = f"pip install gsplat=={GSPLAT_VERSION}"
    try:
        version = importlib.metadata.version("gsplat")
        importlib.import_module("gsplat")
    except importlib.metadata.PackageNotFoundError:
        return f"gsplat is not installed: {install}"
    except Exception as problem:  # a package that was built for another torch raises other errors than ImportError
        return f"gsplat is installed, but its import fails ({type(problem).__name__}: {problem}): {install}"
    if not torch.cuda.is_available():
        return f"gsplat {version} renders on CUDA only, and torch finds no CUDA device: install torch with CUDA"
    return None
