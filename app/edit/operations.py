"""What an editor can do: one frozen dataclass per operation, the same in Python and in a script.

Everything is checked when an operation is made, so that whoever applies it need not: numbers are finite and within
bounds, names are known. Positions are in the frame of the Gaussians, pixels in that of the operation's camera.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, get_type_hints

import numpy as np

from anchorfield.app.edit.values import (
    LARGEST,
    MOST_PIXELS,
    Matrix,
    Points,
    Quaternion,
    Vector,
    converted,
    plain,
    short,
)
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import UsageError
from anchorfield.scenes.similarity import decomposed

Mode = Literal["set", "add", "remove", "intersect"]
Attribute = Literal["opacity", "size", "elongation", "distance", "red", "green", "blue", "x", "y", "z"]
Kind = Literal["floaters", "dust", "needles", "outside"]


@dataclass(frozen=True)
class Operation:
    """One step of editing. Its name in a script is the class's, in words joined by underscores."""

    name: ClassVar[str] = "operation"

    def __init_subclass__(cls) -> None:
        cls.name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            value = converted(hints[field.name], getattr(self, field.name), f"{self.name}: {field.name}")
            object.__setattr__(self, field.name, value)
        self.check()

    def check(self) -> None:
        """Raise UsageError where values do not go together."""

    def to_json(self) -> dict[str, Any]:
        """What `operation_from_json` reads."""
        return {"operation": self.name} | {field.name: plain(getattr(self, field.name)) for field in fields(self)}

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
        raise UsageError(f"operation: expected an object with its name under 'operation', got {short(value)}")
    name = value.get("operation")
    if not isinstance(name, str) or name not in OPERATIONS:
        raise UsageError(f"unknown operation {short(name)}.{_nearest(name, OPERATIONS)}")
    cls = OPERATIONS[name]
    known = {field.name: field for field in fields(cls)}
    for key in value:
        if key != "operation" and key not in known:
            raise UsageError(f"{name}: unknown entry {short(key)}.{_nearest(key, known)}")
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


def _nearest(name: Any, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name[:60], known, n=1) if isinstance(name, str) else []
    return f" Did you mean '{near[0]}'?" if near else f" Known: {', '.join(known)}."
