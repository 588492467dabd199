"""Values of operations: whatever a script or a caller gives, as the type that a field has, or refused in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, get_args

import numpy as np
import torch

from anchorfield.renderer.cameras import NEAR, Camera
from anchorfield.renderer.errors import UsageError

Vector: TypeAlias = tuple[float, float, float]
Quaternion: TypeAlias = tuple[float, float, float, float]
Points: TypeAlias = tuple[tuple[float, float], ...]
Matrix: TypeAlias = tuple[Quaternion, Quaternion, Quaternion, Quaternion]

LARGEST = 1e9  # of any number in an operation
MOST_POINTS = 20_000  # of a lasso or a brush stroke
MOST_PIXELS = 16_384  # of a side of a camera's image
LONGEST_TEXT = 4096


def converted(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type `hint`; raises UsageError saying where, what was expected and what came."""
    if get_args(hint) and all(isinstance(choice, str) for choice in get_args(hint)):
        if not isinstance(value, str) or value not in get_args(hint):
            raise UsageError(f"{where}: expected one of {', '.join(get_args(hint))}, got {short(value)}")
        return value
    convert: Callable[[Any, str], Any] = CONVERTERS[hint]
    return convert(value, where)


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise UsageError(f"{where}: expected a number, got {short(value)}")
    if not -LARGEST <= value <= LARGEST:  # also refuses nan
        raise UsageError(f"{where}: expected a number of at most {LARGEST:g} in size, got {short(value)}")
    return float(value)


def _numbers(count: int) -> Callable[[Any, str], tuple[float, ...]]:
    def convert(value: Any, where: str) -> tuple[float, ...]:
        if isinstance(value, torch.Tensor | np.ndarray):
            value = value.tolist()
        if not isinstance(value, list | tuple) or len(value) != count:
            raise UsageError(f"{where}: expected a list of {count} numbers, got {short(value)}")
        return tuple(_number(entry, where) for entry in value)

    return convert


def _points(value: Any, where: str) -> Points:
    if isinstance(value, torch.Tensor | np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise UsageError(f"{where}: expected a list of [x, y], got {short(value)}")
    if len(value) > MOST_POINTS:
        raise UsageError(f"{where}: expected at most {MOST_POINTS:,} points, got {len(value):,}")
    pair = _numbers(2)
    return tuple((x, y) for x, y in (pair(entry, where) for entry in value))


def _matrix(value: Any, where: str) -> tuple[tuple[float, ...], ...]:
    if isinstance(value, torch.Tensor | np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple) or len(value) != 4:
        raise UsageError(f"{where}: expected 4 rows of 4 numbers, got {short(value)}")
    row = _numbers(4)
    return tuple(row(entry, where) for entry in value)


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{where}: expected true or false, got {short(value)}")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_TEXT or "\0" in value:
        raise UsageError(f"{where}: expected a text of at most {LONGEST_TEXT:,} characters, got {short(value)}")
    return value


def _camera(value: Any, where: str) -> Camera:
    """A camera, or the object that describes one."""
    if isinstance(value, Camera):
        value = plain(value)
    names = ("world_to_camera", "fx", "fy", "cx", "cy", "width", "height", "near")
    if isinstance(value, Mapping):
        value = {"near": NEAR, **value}  # scripts of before there was one are without
    if not isinstance(value, Mapping) or set(value) != set(names):
        raise UsageError(f"{where}: expected an object with {', '.join(names)}, got {short(value)}")
    pose = torch.tensor(_matrix(value["world_to_camera"], f"{where}.world_to_camera"), dtype=torch.float32)
    rotation = pose[:3, :3].double()
    if not torch.allclose(rotation @ rotation.T, torch.eye(3).double(), rtol=0, atol=1e-3):
        raise UsageError(f"{where}.world_to_camera: expected a rotation and a translation, without scale or shear")
    numbers = {name: _number(value[name], f"{where}.{name}") for name in names[1:]}
    for name in ("fx", "fy", "near"):
        if numbers[name] <= 0:
            raise UsageError(f"{where}.{name}: expected more than 0, got {numbers[name]:g}")
    for name in ("width", "height"):
        if not 1 <= numbers[name] <= MOST_PIXELS or numbers[name] % 1:
            raise UsageError(f"{where}.{name}: expected a whole number, 1 to {MOST_PIXELS}, got {numbers[name]:g}")
    size = (int(numbers["width"]), int(numbers["height"]))
    return Camera(pose, numbers["fx"], numbers["fy"], numbers["cx"], numbers["cy"], *size, numbers["near"])


CONVERTERS: dict[Any, Callable[[Any, str], Any]] = {
    float: _number,
    bool: _flag,
    str: _text,
    Vector: _numbers(3),
    Quaternion: _numbers(4),
    Points: _points,
    Matrix: _matrix,
    Camera: _camera,
}


def plain(value: Any) -> Any:
    """`value` as JSON knows it; nothing is rounded."""
    if isinstance(value, Camera):
        names = ("fx", "fy", "cx", "cy", "width", "height", "near")
        pose = value.world_to_camera.detach().cpu().double().tolist()
        return {"world_to_camera": pose} | {name: getattr(value, name) for name in names}
    return [plain(entry) for entry in value] if isinstance(value, tuple) else value


def short(value: Any) -> str:
    """`value` in a message, of any size."""
    try:
        text = repr(value)
    except Exception:  # whatever an object or a huge integer makes of itself
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
