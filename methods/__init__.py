"""One file per method; the folder is the registry: a method's name is its file's name.

Each file names its settings class in `METHOD` and starts with a docstring whose first line describes the method.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil

from anchorfield.methods._method import (
    CanStart,
    Fit,
    HasDensity,
    HasDistance,
    HasGaussians,
    HasMesh,
    HasPlan,
    HasStrips,
    HasTrainingTensors,
    IgnoresPoints,
    Method,
    Model,
    State,
    check_ranges,
)
from anchorfield.renderer.errors import UsageError

__all__ = [
    "CanStart",
    "Fit",
    "HasDensity",
    "HasDistance",
    "HasGaussians",
    "HasMesh",
    "HasPlan",
    "HasStrips",
    "HasTrainingTensors",
    "IgnoresPoints",
    "Method",
    "Model",
    "State",
    "check_ranges",
    "describe",
    "load",
    "names",
]


def names() -> list[str]:
    """The methods that are installed, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load(name: str) -> type[Method]:
    """The settings class of the method called `name`; raises UsageError naming the nearest known one."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise UsageError(f"unknown method '{name}'.{hint} Known methods: {', '.join(names())}.")
    method: type[Method] = importlib.import_module(f"{__name__}.{name}").METHOD
    return method


def describe(name: str) -> str:
    """The first line of the method's own description."""
    load(name)
    return (importlib.import_module(f"{__name__}.{name}").__doc__ or "").strip().splitlines()[0]
