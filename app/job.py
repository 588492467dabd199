"""A training job as data: what `config.json` holds and what runs unchanged anywhere."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anchorfield import methods
from anchorfield.app import files
from anchorfield.app import settings as flat
from anchorfield.methods import Method
from anchorfield.renderer.backends import GSPLAT, NATIVE
from anchorfield.renderer.errors import DataError, UsageError

FORMAT = 1
DEFAULT_MINUTES = 10.0
DEFAULT_METHOD = "gaussian_splatting"

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Job:
    """What to train, on what, for how long."""

    source: Path  # the capture
    method: str
    settings: Method  # holds the seed
    steps: int | None = None  # either a number of steps
    minutes: float | None = None  # or minutes of training
    downscale: int = 1
    split: str = "auto"
    background: Colour | None = None  # None: as the capture's reader chooses
    backend: str = NATIVE  # who renders, resolved: never "auto"

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise UsageError("a training budget is either steps or minutes: give one of --steps and --minutes")
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"--steps must be at least 1, got {self.steps}")
        if self.minutes is not None and not (self.minutes > 0 and math.isfinite(self.minutes)):
            raise UsageError(f"--minutes must be a positive number, got {self.minutes}")
        if self.backend not in (NATIVE, GSPLAT):
            raise UsageError(f"backend: expected {NATIVE} or {GSPLAT}, got '{self.backend}'")
        if self.downscale < 1:
            raise UsageError(f"--downscale must be at least 1, got {self.downscale}")

    @property
    def seed(self) -> int:
        """The seed of the method's random numbers."""
        return self.settings.seed

    def progress(self, step: int, seconds: float) -> float:
        """The share of the budget that is spent, in [0, 1]."""
        spent = step / self.steps if self.steps is not None else seconds / (60 * (self.minutes or 0))
        return min(1.0, spent)

    def to_json(self) -> dict[str, Any]:
        """The content of `config.json`."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        background = None if self.background is None else list(self.background)
        return {
            "format": FORMAT,
            **fields,
            "source": str(self.source),
            "settings": flat.to_json(self.settings),
            "background": background,
        }


def default_settings(method: str) -> Method:
    """The settings of a method as it comes; raises UsageError naming the nearest known method."""
    return methods.load(method)()


def read(path: Path) -> Job:
    """The job in a `config.json`; raises DataError in words."""
    content = files.read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{path} is not the config.json of a run in format {FORMAT}")
    known = {"format", *(field.name for field in dataclasses.fields(Job))}
    for name in content:
        if name not in known:
            raise DataError(f"{path}: unknown entry '{name}'.{flat.nearest(name, known)}")
    try:
        return _from_json(content, str(path))
    except (KeyError, TypeError, ValueError) as problem:
        raise DataError(f"{path}: missing or wrong entry: {problem}") from problem
    except UsageError as problem:
        raise DataError(f"{path}: {problem}") from problem


def _from_json(content: dict[str, Any], where: str) -> Job:
    background = content["background"]
    return Job(
        source=Path(content["source"]),
        method=content["method"],
        settings=flat.from_json(methods.load(content["method"]), content["settings"], where),
        steps=content["steps"],
        minutes=content["minutes"],
        downscale=int(content["downscale"]),
        split=content["split"],
        background=None if background is None else (float(background[0]), float(background[1]), float(background[2])),
        backend=str(content.get("backend", NATIVE)),
    )
