"""What an editor can do: one frozen dataclass per operation, the same in Python and in a script.

Everything is checked when an operation is made, so that whoever applies it need not: numbers are finite and within
bounds, names are known. Positions are in the frame of the Gaussians, pixels in that of the operation's camera.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, TypeAlias, get_args, get_type_hints

import numpy as np
import torch

from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import UsageError
from anchorfield.scenes.similarity import decomposed

Mode = Literal["set", "add", "remove", "intersect"]
Attribute = Literal["opacity", "size", "elongation", "distance", "red", "green", "blue", "x", "y", "z"]
Kind = Literal["floaters", "dust", "needles", "outside"]
Vector: TypeAlias = tuple[float, float, float]
Quaternion: TypeAlias = tuple[float, float, float, float]
Points: TypeAlias = tuple[tuple[float, float], ...]
Matrix: TypeAlias = tuple[Quaternion, Quaternion, Quaternion, Quaternion]

LARGEST = 1e9  # of any number in an operation
MOST_POINTS = 20_000  # of a lasso or a brush stroke
MOST_PIXELS = 16_384  # of a side of a camera's image
LONGEST_TEXT = 4096


@dataclass(frozen=True)
class Operation:
    """One step of editing. Its name in a script is the class's, in words joined by underscores."""

    name: ClassVar[str] = "operation"

    def __init_subclass__(cls) -> None:
        cls.name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    def __post_init__(self) -> None:
        hints = _hints(type(self))
        for field in fields(self):
            value = _converted(hints[field.name], getattr(self, field.name), f"{self.name}: {field.name}")
            object.__setattr__(self, field.name, value)
        self.check()

    def check(self) -> None:
        """Raise UsageError where values do not go together."""

    def to_json(self) -> dict[str, Any]:
        """What `operation_from_json` reads."""
        return {"operation": self.name} | {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    def _within(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if not low <= value <= high:
            raise UsageError(f"{self.name}: {name}: expected {low:g} to {high:g}, got {value:g}")


@dataclass(frozen=True)
class Selecting(Operation):
    """An operation that changes what is selected, and by `mode` how it joins what was selected before."""

    mode: Mode = "set"


@dataclass(frozen=True)
class OnScreen(Selecting):
    """A selection on a camera's picture; with `front_only`, of what the camera sees first."""

    camera: Camera = None  # type: ignore[assignment]  # has no default: checked when made
    front_only: bool = False


@dataclass(frozen=True)
class SelectRectangle(OnScreen):
    """Gaussians whose centres show between two corners."""

    x0: float = 0.0
    y0: float = 0.0
    x1: float = 0.0
    y1: float = 0.0


@dataclass(frozen=True)
class SelectLasso(OnScreen):
    """Gaussians whose centres show inside a closed line; what it encloses twice is outside."""

    points: Points = ()

    def check(self) -> None:
        """A line needs three points to enclose something."""
        if len(self.points) < 3:
            raise UsageError(f"{self.name}: points: expected 3 or more, got {len(self.points)}")


@dataclass(frozen=True)
class SelectBrush(OnScreen):
    """Gaussians whose centres show within `radius` pixels of a stroke."""

    points: Points = ()
    radius: float = 20.0

    def check(self) -> None:
        """A stroke has a point and a width."""
        if not self.points:
            raise UsageError(f"{self.name}: points: expected 1 or more, got 0")
        self._within("radius", 0, MOST_PIXELS)


@dataclass(frozen=True)
class SelectSphere(Selecting):
    """Gaussians whose centres lie in a ball."""

    centre: Vector = (0.0, 0.0, 0.0)
    radius: float = 1.0

    def check(self) -> None:
        """A ball has a size."""
        self._within("radius", 0, LARGEST)


@dataclass(frozen=True)
class SelectBox(Selecting):
    """Gaussians whose centres lie in a turned box."""

    centre: Vector = (0.0, 0.0, 0.0)
    half_extents: Vector = (1.0, 1.0, 1.0)
    wxyz: Quaternion = (1.0, 0.0, 0.0, 0.0)

    def check(self) -> None:
        """A box has sides and a rotation."""
        _check_box(self.name, self.half_extents, self.wxyz)


@dataclass(frozen=True)
class SelectPlane(Selecting):
    """Gaussians whose centres lie on the side of a plane that its normal points to."""

    point: Vector = (0.0, 0.0, 0.0)
    normal: Vector = (0.0, 1.0, 0.0)

    def check(self) -> None:
        """A normal has a direction."""
        if math.hypot(*self.normal) < 1e-9:
            raise UsageError(f"{self.name}: normal: expected a direction, got {list(self.normal)}")


@dataclass(frozen=True)
class SelectColour(Selecting):
    """Gaussians whose constant colour lies within `tolerance` of `rgb`, both in units of [0, 1] per channel."""

    rgb: Vector = (0.0, 0.0, 0.0)
    tolerance: float = 0.1

    def check(self) -> None:
        """A distance is not negative."""
        self._within("tolerance", 0, LARGEST)


@dataclass(frozen=True)
class SelectRange(Selecting):
    """Gaussians whose attribute lies in [low, high]."""

    attribute: Attribute = "opacity"
    low: float = -LARGEST
    high: float = LARGEST

    def check(self) -> None:
        """A range is not empty from the start."""
        if self.low > self.high:
            raise UsageError(f"{self.name}: low: expected at most high, {self.high:g}, got {self.low:g}")


@dataclass(frozen=True)
class SelectAll(Operation):
    """All that can be selected: what is neither hidden nor locked."""


@dataclass(frozen=True)
class SelectNone(Operation):
    """Nothing."""


@dataclass(frozen=True)
class Invert(Operation):
    """What can be selected and is not."""


@dataclass(frozen=True)
class Reaching(Operation):
    """An operation that looks around by a distance."""

    distance: float = 0.05

    def check(self) -> None:
        """A distance is not negative."""
        self._within("distance", 0, LARGEST)


@dataclass(frozen=True)
class Grow(Reaching):
    """The selection and what lies within `distance` of it."""


@dataclass(frozen=True)
class Shrink(Reaching):
    """The selection without what lies within `distance` of something that is not selected."""


@dataclass(frozen=True)
class Hide(Operation):
    """Do not show the selection; hidden Gaussians are neither selected nor changed."""


@dataclass(frozen=True)
class Unhide(Operation):
    """Show all that is hidden."""


@dataclass(frozen=True)
class Lock(Operation):
    """Keep the selection from being selected or changed."""


@dataclass(frozen=True)
class Unlock(Operation):
    """Free all that is locked."""


@dataclass(frozen=True)
class Delete(Operation):
    """Remove the selection."""


@dataclass(frozen=True)
class Duplicate(Operation):
    """Copy the selection; the copy is selected then."""


@dataclass(frozen=True)
class Separate(Operation):
    """Take the selection out of the scene and keep it under a name."""

    layer: str = "part"

    def check(self) -> None:
        """A name has letters."""
        if not self.layer.strip():
            raise UsageError(f"{self.name}: layer: expected a name, got an empty one")


@dataclass(frozen=True)
class Merge(Operation):
    """Add what was separated as `layer`, or the splats of a file; they are selected then.

    `digest` is the SHA-256 of the file, filled in when the operation is done: a script finds the same file or stops.
    """

    file: str = ""
    digest: str = ""
    layer: str = ""

    def check(self) -> None:
        """Exactly one source."""
        if bool(self.file) == bool(self.layer):
            raise UsageError(f"{self.name}: expected either a file or a layer")


@dataclass(frozen=True)
class Transform(Operation):
    """Move, turn and scale the selection, or all where nothing is selected, by a similarity."""

    matrix: Matrix = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))

    def check(self) -> None:
        """A rotation with one scale."""
        matrix = np.array(self.matrix)
        if not np.allclose(matrix[3], [0, 0, 0, 1], rtol=0, atol=1e-9):
            raise UsageError(f"{self.name}: matrix: expected 0 0 0 1 in the last row, got {matrix[3].tolist()}")
        try:
            scale, _, _ = decomposed(matrix)
        except ValueError as problem:
            raise UsageError(f"{self.name}: matrix: {problem}") from problem
        if not 1e-6 <= scale <= 1e6:
            raise UsageError(f"{self.name}: matrix: expected a scale of 1e-6 to 1e6, got {scale:g}")


@dataclass(frozen=True)
class Crop(Operation):
    """Remove all outside the selection, or outside a turned box; what is hidden or locked stays."""

    to: Literal["selection", "box"] = "selection"
    centre: Vector = (0.0, 0.0, 0.0)
    half_extents: Vector = (1.0, 1.0, 1.0)
    wxyz: Quaternion = (1.0, 0.0, 0.0, 0.0)

    def check(self) -> None:
        """A box has sides and a rotation."""
        _check_box(self.name, self.half_extents, self.wxyz)


@dataclass(frozen=True)
class Adjust(Operation):
    """Change the colours and opacities of the selection, or of all where nothing is selected.

    Brightness is added, contrast scales around grey, saturation around luminance, temperature weighs red against blue,
    opacity is a factor.
    """

    brightness: float = 0.0
    contrast: float = 1.0
    saturation: float = 1.0
    temperature: float = 0.0
    opacity: float = 1.0

    def check(self) -> None:
        """Bounds of a sensible picture."""
        self._within("brightness", -1, 1)
        self._within("temperature", -1, 1)
        for name in ("contrast", "saturation", "opacity"):
            self._within(name, 0, 10)


@dataclass(frozen=True)
class CleanUp(Operation):
    """Remove what is probably no part of the scene; a higher strength takes more, none takes nothing."""

    kind: Kind = "floaters"
    strength: float = 0.5

    def check(self) -> None:
        """A share."""
        self._within("strength", 0, 1)


OPERATIONS: dict[str, type[Operation]] = {
    cls.name: cls
    for cls in (
        *(SelectRectangle, SelectLasso, SelectBrush, SelectSphere, SelectBox, SelectPlane, SelectColour, SelectRange),
        *(SelectAll, SelectNone, Invert, Grow, Shrink, Hide, Unhide, Lock, Unlock),
        *(Delete, Duplicate, Separate, Merge, Transform, Crop, Adjust, CleanUp),
    )
}


def operation_from_json(value: Any) -> Operation:
    """The operation that a script's entry describes; raises UsageError in words."""
    if not isinstance(value, Mapping):
        raise UsageError(f"operation: expected an object with its name under 'operation', got {_short(value)}")
    name = value.get("operation")
    if not isinstance(name, str) or name not in OPERATIONS:
        raise UsageError(f"unknown operation {_short(name)}.{_nearest(name, OPERATIONS)}")
    cls = OPERATIONS[name]
    known = {field.name: field for field in fields(cls)}
    for key in value:
        if key != "operation" and key not in known:
            raise UsageError(f"{name}: unknown entry {_short(key)}.{_nearest(key, known)}")
    missing = [key for key in REQUIRED.get(name, ()) if key not in value]
    if missing:
        raise UsageError(f"{name}: '{missing[0]}' is missing")
    return cls(**{key: entry for key, entry in value.items() if key != "operation"})


REQUIRED: dict[str, tuple[str, ...]] = {
    "select_rectangle": ("camera", "x0", "y0", "x1", "y1"),
    "select_lasso": ("camera", "points"),
    "select_brush": ("camera", "points", "radius"),
    "select_sphere": ("centre", "radius"),
    "select_box": ("centre", "half_extents"),
    "select_plane": ("point", "normal"),
    "select_colour": ("rgb", "tolerance"),
    "select_range": ("attribute",),
    "grow": ("distance",),
    "shrink": ("distance",),
    "transform": ("matrix",),
    "clean_up": ("kind", "strength"),
}
"""Entries that a script must give, by operation."""


def _check_box(name: str, half_extents: Vector, wxyz: Quaternion) -> None:
    if min(half_extents) < 0:
        raise UsageError(f"{name}: half_extents: expected 0 or more, got {list(half_extents)}")
    if math.hypot(*wxyz) < 1e-9:
        raise UsageError(f"{name}: wxyz: expected a quaternion, got {list(wxyz)}")


def _hints(cls: type[Operation]) -> dict[str, Any]:
    if cls not in _HINTS:
        _HINTS[cls] = get_type_hints(cls)
    return _HINTS[cls]


_HINTS: dict[type[Operation], dict[str, Any]] = {}


def _converted(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type that a field has; raises UsageError saying what was expected."""
    if get_args(hint) and all(isinstance(choice, str) for choice in get_args(hint)):
        if not isinstance(value, str) or value not in get_args(hint):
            raise UsageError(f"{where}: expected one of {', '.join(get_args(hint))}, got {_short(value)}")
        return value
    convert: Callable[[Any, str], Any] = CONVERTERS[hint]
    return convert(value, where)


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise UsageError(f"{where}: expected a number, got {_short(value)}")
    if not -LARGEST <= value <= LARGEST:  # also refuses nan
        raise UsageError(f"{where}: expected a number of at most {LARGEST:g} in size, got {_short(value)}")
    return float(value)


def _numbers(count: int) -> Callable[[Any, str], tuple[float, ...]]:
    def convert(value: Any, where: str) -> tuple[float, ...]:
        if isinstance(value, torch.Tensor | np.ndarray):
            value = value.tolist()
        if not isinstance(value, list | tuple) or len(value) != count:
            raise UsageError(f"{where}: expected a list of {count} numbers, got {_short(value)}")
        return tuple(_number(entry, where) for entry in value)

    return convert


def _points(value: Any, where: str) -> Points:
    if isinstance(value, torch.Tensor | np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise UsageError(f"{where}: expected a list of [x, y], got {_short(value)}")
    if len(value) > MOST_POINTS:
        raise UsageError(f"{where}: expected at most {MOST_POINTS:,} points, got {len(value):,}")
    pair = _numbers(2)
    return tuple((x, y) for x, y in (pair(entry, where) for entry in value))


def _matrix(value: Any, where: str) -> tuple[tuple[float, ...], ...]:
    if isinstance(value, torch.Tensor | np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple) or len(value) != 4:
        raise UsageError(f"{where}: expected 4 rows of 4 numbers, got {_short(value)}")
    row = _numbers(4)
    return tuple(row(entry, where) for entry in value)


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{where}: expected true or false, got {_short(value)}")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_TEXT or "\0" in value:
        raise UsageError(f"{where}: expected a text of at most {LONGEST_TEXT:,} characters, got {_short(value)}")
    return value


def _camera(value: Any, where: str) -> Camera:
    """A camera, or the object that describes one."""
    if isinstance(value, Camera):
        value = _plain(value)
    names = ("world_to_camera", "fx", "fy", "cx", "cy", "width", "height")
    if not isinstance(value, Mapping) or set(value) != set(names):
        raise UsageError(f"{where}: expected an object with {', '.join(names)}, got {_short(value)}")
    pose = torch.tensor(_matrix(value["world_to_camera"], f"{where}.world_to_camera"), dtype=torch.float32)
    rotation = pose[:3, :3].double()
    if not torch.allclose(rotation @ rotation.T, torch.eye(3).double(), rtol=0, atol=1e-3):
        raise UsageError(f"{where}.world_to_camera: expected a rotation and a translation, without scale or shear")
    numbers = {name: _number(value[name], f"{where}.{name}") for name in names[1:]}
    for name in ("fx", "fy"):
        if numbers[name] <= 0:
            raise UsageError(f"{where}.{name}: expected more than 0, got {numbers[name]:g}")
    for name in ("width", "height"):
        if not 1 <= numbers[name] <= MOST_PIXELS or numbers[name] % 1:
            raise UsageError(f"{where}.{name}: expected a whole number, 1 to {MOST_PIXELS}, got {numbers[name]:g}")
    size = (int(numbers["width"]), int(numbers["height"]))
    return Camera(pose, numbers["fx"], numbers["fy"], numbers["cx"], numbers["cy"], *size)


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


def _plain(value: Any) -> Any:
    """`value` as JSON knows it; nothing is rounded."""
    if isinstance(value, Camera):
        names = ("fx", "fy", "cx", "cy", "width", "height")
        pose = value.world_to_camera.detach().cpu().double().tolist()
        return {"world_to_camera": pose} | {name: getattr(value, name) for name in names}
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value


def _short(value: Any) -> str:
    """`value` in a message, of any size."""
    try:
        text = repr(value)
    except Exception:  # whatever an object or a huge integer makes of itself
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _nearest(name: Any, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name[:60], known, n=1) if isinstance(name, str) else []
    return f" Did you mean '{near[0]}'?" if near else f" Known: {', '.join(known)}."
