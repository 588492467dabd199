"""From the words of the command line to options, with a method's settings as flat flags of `train`."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro
from tyro.conf import arg

from anchorfield.app.options import Train

if TYPE_CHECKING:
    from anchorfield.app.job import Job

T = TypeVar("T")
WIDTH = 100  # columns of help where there is no terminal


def parse(cls: type[T], verb: str, arguments: list[str]) -> T:
    """The verb's options; leaves with exit code 2 and the nearest known flag where one is unknown."""
    _check_flags(cls, arguments)
    os.environ.setdefault("COLUMNS", str(WIDTH))
    config = (tyro.conf.HelptextFromCommentsOff,)
    return tyro.cli(cls, prog=f"anchorfield {verb}", args=arguments, config=config)


def _check_flags(cls: type, arguments: list[str]) -> None:
    known = {"help"}
    for field in dataclasses.fields(cls):
        name = field.name.replace("_", "-")
        known |= {name, f"no-{name}"} if field.type in (bool, "bool") else {name}
    for argument in arguments:
        if argument == "--":
            return
        name = argument[2:].split("=")[0].replace("_", "-")
        if argument.startswith("--") and name not in known:
            from anchorfield.renderer.errors import UsageError

            raise UsageError(f"unknown flag --{name}.{nearest_hint(name, known, '--')}")


def train_options(arguments: list[str]) -> tuple[Job | None, dict[str, Any], Train]:
    """The job that gives the defaults, the method's settings that are given, and the other options."""
    from anchorfield.app import job
    from anchorfield.app import settings as flat

    base = _base_job(arguments)
    method = value_of(arguments, "method") or (base.method if base else job.DEFAULT_METHOD)
    defaults = base.settings if base and base.method == method else job.default_settings(method)
    found = [s for s in flat.flatten(defaults, lambda flag: value_of(arguments, flag)) if s.flag != "seed"]
    arguments = _canonical_choices(arguments, found)
    options: Any = parse(with_settings(Train, found), "train", arguments)
    names = {s.flag: s.flag.replace("-", "_") for s in found if _given(arguments, s.flag)}
    settings = {flag: getattr(options, name) for flag, name in names.items()}
    if options.source is None and base is None:
        from anchorfield.renderer.errors import UsageError

        raise UsageError("say what to train on: anchorfield train SRC, a folder with a capture")
    return base, settings, options


def _base_job(arguments: list[str]) -> Job | None:
    """The configuration that --config names, or that of the run that is resumed."""
    from anchorfield.app import job

    config, out = value_of(arguments, "config"), value_of(arguments, "out") or value_of(arguments, "o")
    if config:
        return job.read(Path(config))
    kept = Path(out) / "config.json" if out and "--resume" in arguments else None
    return job.read(kept) if kept and kept.is_file() else None


def with_settings(cls: type, settings: list[Any]) -> type:
    """The options of a verb joined by the flat settings of a method."""
    taken = {field.name for field in dataclasses.fields(cls)}
    fields = []
    for setting in settings:
        name = setting.flag.replace("-", "_")
        if name in taken:
            raise TypeError(f"the setting {'.'.join(setting.path)} has the name of an option of the command line")
        fields.append(
            (name, Annotated[setting.annotation, arg(help=setting.help)], dataclasses.field(default=setting.default))
        )
    return dataclasses.make_dataclass("TrainWithSettings", fields, bases=(cls,), frozen=True)


def _canonical_choices(arguments: list[str], settings: list[Any]) -> list[str]:
    """The arguments with names of choices as the parser knows them; an unknown one names the nearest."""
    from anchorfield.app import settings as flat

    result = list(arguments)
    for setting in settings:
        for index, argument in enumerate(arguments):
            name, separator, value = argument.partition("=")
            if name.replace("_", "-") not in (f"--{setting.flag}",):
                continue
            if separator:
                result[index] = f"{name}={flat.checked_choice(setting, value)}"
            elif index + 1 < len(arguments):
                result[index + 1] = flat.checked_choice(setting, arguments[index + 1])
    return result


def value_of(arguments: list[str], flag: str) -> str | None:
    """The value behind a flag, before anything is parsed."""
    names = {f"--{flag}", f"--{flag.replace('-', '_')}", f"-{flag}" if len(flag) == 1 else f"--{flag}"}
    for index, argument in enumerate(arguments):
        name, separator, value = argument.partition("=")
        if name in names:
            return value if separator else (arguments[index + 1] if index + 1 < len(arguments) else None)
    return None


def _given(arguments: list[str], flag: str) -> bool:
    names = {argument.split("=")[0].replace("_", "-") for argument in arguments if argument.startswith("--")}
    return f"--{flag}" in names or f"--no-{flag}" in names


def colour(text: str | None) -> tuple[float, float, float] | None:
    """A colour in 0..1 from its name or three numbers; None where nothing was said."""
    from anchorfield.renderer.errors import UsageError

    if text is None or text in ("white", "black"):
        return {None: None, "white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}[text]
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--background is white, black or three numbers like 0.5,0.5,0.5; got '{text}'") from None
    if not all(0 <= part <= 1 for part in (red, green, blue)):
        raise UsageError(f"--background: the numbers must lie in 0..1, got '{text}'")
    return red, green, blue


def nearest_hint(name: str, known: Any, prefix: str = "") -> str:
    """' Did you mean X?'; loads what it needs only when something is wrong."""
    from anchorfield.app.settings import nearest

    return nearest(name, known, prefix)
