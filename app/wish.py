"""What a caller asks for, laid over the run that goes on, a configuration, or the defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anchorfield.app import job
from anchorfield.app import settings as flat
from anchorfield.app.job import Colour, Job
from anchorfield.methods import Method
from anchorfield.renderer.backends import AUTO, resolved
from anchorfield.renderer.errors import DataError, UsageError


@dataclass(frozen=True)
class Wish:
    """What the caller asked for; None where nothing was said."""

    source: Path | None
    method: str | None
    settings: Method | Mapping[str, Any] | None
    seed: int | None
    steps: int | None
    minutes: float | None
    downscale: int | None
    split: str | None
    background: Colour | None
    backend: str | None = None

    def fresh(self, base: Job | None) -> Job:
        """The job with the caller's wishes over those of `base` over the defaults."""
        method = self.method or (base.method if base else job.DEFAULT_METHOD)
        settings = base.settings if base and base.method == method else job.default_settings(method)
        source = self.source or (base.source if base else None)
        if source is None:
            raise UsageError("say what to train on: a folder with a capture")
        steps, minutes = self._budget(base)
        return Job(
            source=source.resolve(),
            method=method,
            settings=self._over(settings),
            steps=steps,
            minutes=minutes,
            downscale=_first(self.downscale, base.downscale if base else None, 1),
            split=_first(self.split, base.split if base else None, "auto"),
            background=_first(self.background, base.background if base else None, None),
            backend=resolved(_first(self.backend, base.backend if base else None, AUTO)),
        )

    def resumed(self, previous: Job) -> Job:
        """The job of a run that goes on; only its budget may change."""
        if self.method not in (None, previous.method):
            raise DataError(
                f"the run is of method '{previous.method}' and cannot go on as '{self.method}':"
                " train it anew with another -o"
            )
        asked = dataclasses.replace(self.fresh(previous), steps=previous.steps, minutes=previous.minutes)
        difference = _difference(asked.to_json(), previous.to_json())
        if difference:
            raise UsageError(f"a resumed run keeps its {difference}; only --steps or --minutes may change")
        steps, minutes = self._budget(previous)
        return dataclasses.replace(previous, steps=steps, minutes=minutes)

    def _budget(self, base: Job | None) -> tuple[int | None, float | None]:
        if self.steps is not None or self.minutes is not None:
            return self.steps, self.minutes
        return (base.steps, base.minutes) if base else (None, job.DEFAULT_MINUTES)

    def _over(self, settings: Method) -> Method:
        if isinstance(self.settings, Mapping):
            settings = flat.apply(settings, self.settings)
        elif self.settings is not None:
            settings = self.settings
        if self.seed is not None:
            settings = dataclasses.replace(settings, seed=self.seed)  # type: ignore[type-var]
        return settings


def _difference(asked: Mapping[str, Any], kept: Mapping[str, Any]) -> str | None:
    """The first entry in which two configurations differ, in words."""
    for name, value in kept.items():
        if asked[name] == value:
            continue
        if name == "settings":
            setting = next(key for key in value if asked[name].get(key) != value[key])
            return f"setting {setting} ({value[setting]}, asked for {asked[name].get(setting)})"
        return f"{name} ({value}, asked for {asked[name]})"
    return None


def _first(*values: Any) -> Any:
    """The first value that is not None; None where all are."""
    return next((value for value in values if value is not None), None)
