"""A method's settings as flat flags and as JSON.

A setting is a field of the method's frozen dataclass, or of a dataclass nested in it. Its flag is the field's name
where that is unique, else the names of the way to it joined by dashes. A field whose type is a union of dataclasses is
a choice by class name (`--strategy mcmc`); the fields of the chosen class are settings too.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from anchorfield.renderer.errors import DataError, UsageError

T = TypeVar("T")
MOST_NAMED = 16  # names in a message
TYPE = "type"  # the key that holds a choice's name in JSON


@dataclass(frozen=True)
class Setting:
    """One flag of the command line."""

    path: tuple[str, ...]  # field names from the settings class down
    annotation: Any  # type of the value; for a choice a Literal of the names
    default: Any
    help: str
    flag: str = ""  # without the leading dashes


def alternatives(annotation: Any) -> dict[str, type | None]:
    """The classes a field chooses from by name (None for no value); empty where the field is a plain value."""
    members = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    if not any(dataclasses.is_dataclass(member) for member in members):
        return {}
    return {choice_name(None if member is type(None) else member): _class_or_none(member) for member in members}


def choice_name(cls: type | None) -> str:
    """How a class is called on the command line and in JSON: `AbsGrad` is absgrad."""
    return "none" if cls is None else cls.__name__.lower()


def canonical(name: str) -> str:
    """A choice as the user may write it (`abs-grad`, `AbsGrad`) in the form of `choice_name`."""
    return name.lower().replace("-", "").replace("_", "")


def flatten(settings: Any, pick: Callable[[str], str | None] = lambda flag: None) -> list[Setting]:
    """Every setting below `settings` with its defaults; `pick(flag)` says which choice the user made, if any."""
    found = list(_walk(settings, (), pick))
    last_names = [setting.path[-1] for setting in found]
    return [dataclasses.replace(s, flag=_flag(s.path, last_names.count(s.path[-1]) > 1)) for s in found]


def build(settings: T, values: Mapping[tuple[str, ...], Any]) -> T:
    """`settings` with the values at the given paths; choices among them replace what was there."""
    return typing.cast(T, _build(settings, values, ()))


def apply(settings: T, flags: Mapping[str, Any]) -> T:
    """`settings` with values by flag, choices by name; raises UsageError naming the nearest known flag."""
    flags = {name.replace("_", "-"): value for name, value in flags.items()}
    known = {setting.flag: setting for setting in flatten(settings, lambda flag: flags.get(flag))}
    for flag in flags:
        if flag not in known:
            raise UsageError(f"unknown setting '{flag}'.{nearest(flag, known)}")
    chosen = {flag: checked_choice(known[flag], value) for flag, value in flags.items()}
    return build(settings, {known[flag].path: value for flag, value in chosen.items()})


def to_json(settings: Any) -> dict[str, Any]:
    """Settings as plain JSON values; nested dataclasses carry their name under "type"."""
    result: dict[str, Any] = {}
    for field in _fields(type(settings)):
        value = getattr(settings, field.name)
        nested = dataclasses.is_dataclass(value) and not isinstance(value, type)
        result[field.name] = {TYPE: choice_name(type(value)), **to_json(value)} if nested else _plain(value)
    return result


def from_json(cls: type[T], values: Any, where: str) -> T:
    """The settings that `to_json` wrote; raises DataError naming `where` and the nearest known setting."""
    if not isinstance(values, dict):
        raise DataError(f"{where}: expected an object with the settings of {cls.__name__}, got {type(values).__name__}")
    known = {field.name: field for field in _fields(cls)}
    annotations = _annotations(cls)
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        if name == TYPE:
            continue
        if name not in known:
            raise DataError(f"{where}: unknown setting '{name}'.{nearest(name, known)}")
        arguments[name] = _value_from_json(annotations[name], value, f"{where}: {name}")
    return construct(cls, arguments, DataError, where)


def construct(cls: type[T], arguments: Mapping[str, Any], error: type[UsageError] | type[DataError], where: str) -> T:
    """`cls(**arguments)`; what its own checks refuse becomes `error`."""
    try:
        return cls(**arguments)
    except (ValueError, TypeError) as problem:
        raise error(f"{where}: {problem}") from problem


def nearest(name: str, known: typing.Iterable[str], prefix: str = "") -> str:
    """' Did you mean X?', or some known names where none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f" Did you mean {prefix}{near[0]}?"
    more = ", ..." if len(names) > MOST_NAMED else ""
    return f" Known: {', '.join(prefix + known_name for known_name in names[:MOST_NAMED])}{more}."


def field_help(cls: Any) -> dict[str, str]:
    """The docstring under each field of a dataclass."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            texts.update(_docstrings(typing.cast(type, base)))
    return texts


def _docstrings(cls: type) -> dict[str, str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):  # classes made at run time have no source
        return {}
    body = typing.cast(ast.ClassDef, tree.body[0]).body
    texts = {}
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_text(text):
            value = typing.cast(ast.Constant, typing.cast(ast.Expr, text).value).value
            texts[field.target.id] = " ".join(str(value).split())
    return texts


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _walk(settings: Any, path: tuple[str, ...], pick: Callable[[str], str | None]) -> Iterator[Setting]:
    annotations, texts = _annotations(type(settings)), field_help(type(settings))
    for field in _fields(type(settings)):
        here, value = (*path, field.name), getattr(settings, field.name)
        choices, text = alternatives(annotations[field.name]), texts.get(field.name, "")
        if not choices:
            yield Setting(here, annotations[field.name], value, text)
            continue
        if len(choices) > 1:
            default = choice_name(_class_of(value))
            yield Setting(here, typing.Literal[tuple(choices)], default, text)
            picked = canonical(pick(_flag(here, False)) or default)
            if picked != default and picked in choices:  # an unknown choice is refused by the parser
                value = _default(choices[picked], _flag(here, False))
        if value is not None:
            yield from _walk(value, here, pick)


def _build(settings: Any, values: Mapping[tuple[str, ...], Any], path: tuple[str, ...]) -> Any:
    annotations, changes = _annotations(type(settings)), dict[str, Any]()
    for field in _fields(type(settings)):
        here, value = (*path, field.name), getattr(settings, field.name)
        choices = alternatives(annotations[field.name])
        if not choices:
            changes[field.name] = values.get(here, value)
            continue
        picked = values.get(here, choice_name(_class_of(value)))
        if picked != choice_name(_class_of(value)):
            value = _default(choices[picked], _flag(here, False))
        changes[field.name] = None if value is None else _build(value, values, here)
    return construct(type(settings), changes, UsageError, "settings")


def _value_from_json(annotation: Any, value: Any, where: str) -> Any:
    choices = alternatives(annotation)
    if not choices:
        return tuple(value) if isinstance(value, list) else value
    if value is None and "none" in choices:
        return None
    name = value.get(TYPE) if isinstance(value, dict) else None
    cls = choices.get(name) if isinstance(name, str) else None
    if cls is None:
        raise DataError(f"{where}: '{name}' is not one of {', '.join(choices)}")
    return from_json(cls, value, where)


def checked_choice(setting: Setting, value: Any) -> Any:
    """`value`, where the setting is a choice in its known form; raises UsageError naming the nearest choice."""
    if typing.get_origin(setting.annotation) is not typing.Literal:
        return value
    names = typing.get_args(setting.annotation)
    name = canonical(value) if isinstance(value, str) and value not in names else value
    if name not in names:
        raise UsageError(f"--{setting.flag}: unknown value '{value}'.{nearest(str(value), map(str, names))}")
    return name


def _flag(path: tuple[str, ...], qualified: bool) -> str:
    return "-".join(path if qualified else path[-1:]).replace("_", "-")


def _fields(cls: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(cls) if field.init]


def _annotations(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _class_or_none(member: Any) -> type | None:
    return None if member is type(None) else member


def _class_of(value: Any) -> type | None:
    return None if value is None else type(value)


def _default(cls: type | None, where: str) -> Any:
    return None if cls is None else construct(cls, {}, UsageError, f"--{where}")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
