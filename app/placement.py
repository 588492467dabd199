"""Where a scene stands: which way is up, where the origin lies, how long a metre is.

A run keeps it in `placement.json`, in the capture's own coordinates, so that it fits every run of the same capture:
{"format": 1, "up": [x, y, z], "origin": [x, y, z], "metres_per_unit": number or null}. The placed frame has its z axis
upwards, its origin at `origin` and metres as units, or the capture's own units where no length was measured. About
the z axis it is turned as little as possible from the capture's frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anchorfield.app import files
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.scenes.similarity import decomposed, turn_between

FILE, FORMAT = "placement.json", 1
SHORTEST = 1e-9  # of a direction or distance that means something
MOST_METRES = 1e9  # per unit of the capture, and its inverse

Array = NDArray[np.float64]
Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Placement:
    """Up, origin and scale in the training frame."""

    up: Vector  # unit length
    origin: Vector
    scale: float  # placed units per unit of the training frame
    metres: bool = False  # whether a length was measured: else placed units are the capture's own

    @property
    def unit(self) -> str:
        """What lengths are measured in: "m", or "units" of the capture."""
        return "m" if self.metres else "units"

    def measure(self, a: ArrayLike, b: ArrayLike) -> float:
        """The distance of two points of the training frame, in `unit`."""
        return self.scale * float(np.linalg.norm(_point(b) - _point(a)))

    def words(self, a: ArrayLike, b: ArrayLike) -> str:
        """The distance of two points for people: "1.25 m"."""
        return length_in_words(self.measure(a, b), self.metres)

    def upwards(self, direction: ArrayLike) -> Placement:
        """Placed with this direction upwards."""
        return replace(self, up=_unit(direction))

    def level(self, points: Sequence[ArrayLike]) -> Placement:
        """Placed so that three or more points of a floor lie level; up stays on its side of the floor.

        Raises UsageError where the points lie on one line.
        """
        return replace(self, up=_floor_normal(points, np.asarray(self.up)))

    def centred(self, point: ArrayLike) -> Placement:
        """Placed with its origin at a point."""
        x, y, z = _point(point)
        return replace(self, origin=(float(x), float(y), float(z)))

    def scaled(self, a: ArrayLike, b: ArrayLike, length: float) -> Placement:
        """Placed so that two points are `length` metres apart; raises UsageError where that says nothing."""
        distance = float(np.linalg.norm(_point(b) - _point(a)))
        if distance < SHORTEST:
            raise UsageError("the two points are the same: click two that lie apart")
        if not (math.isfinite(length) and length > 0):
            raise UsageError(f"the length must be above 0 m, got {length:g}")
        return replace(self, scale=length / distance, metres=True)

    def placed_from_world(self, source_from_world: Array) -> Array:
        """The similarity from the training frame to the placed one, [4, 4]."""
        _, rotation, _ = decomposed(source_from_world)
        turn = turn_between(rotation @ np.asarray(self.up), np.array([0.0, 0.0, 1.0])) @ rotation
        matrix = np.eye(4)
        matrix[:3, :3] = self.scale * turn
        matrix[:3, 3] = -self.scale * turn @ np.asarray(self.origin)
        return matrix

    def to_json(self, source_from_world: Array) -> dict[str, Any]:
        """The content of `placement.json`."""
        unit, rotation, _ = decomposed(source_from_world)
        origin = source_from_world[:3, :3] @ np.asarray(self.origin) + source_from_world[:3, 3]
        return {
            "format": FORMAT,
            "up": (rotation @ np.asarray(self.up)).tolist(),
            "origin": origin.tolist(),
            "metres_per_unit": self.scale / unit if self.metres else None,
        }


def default(source_from_world: Array, cameras: Sequence[Camera] = ()) -> Placement:
    """As the capture stands: its own origin and units, and up as on most of its photographs."""
    unit, _, _ = decomposed(source_from_world)
    origin = np.linalg.inv(source_from_world)[:3, 3]
    return Placement(mean_up(cameras), (float(origin[0]), float(origin[1]), float(origin[2])), unit)


def mean_up(cameras: Sequence[Camera]) -> Vector:
    """The direction that is up on most photographs; the negative y axis where there are none."""
    ups = [-camera.world_to_camera[1, :3].detach().double().cpu().numpy() for camera in cameras]
    mean = np.mean(ups, axis=0) if ups else np.zeros(3)
    return _unit(mean) if np.linalg.norm(mean) >= 1e-3 else (0.0, -1.0, 0.0)  # as many heads up as down


def read(folder: Path, source_from_world: Array) -> Placement | None:
    """The placement of a run; None where nobody placed it. Raises DataError in words."""
    path = folder / FILE
    if not path.is_file():
        return None
    content = files.read_json(path)
    try:
        if content["format"] != FORMAT:
            raise DataError(f"{path} has format {content['format']!r}; this anchorfield reads format {FORMAT}")
        metres = content["metres_per_unit"]
        metres = None if metres is None else float(metres)
        return _of_source(_unit(content["up"]), _point(content["origin"]), metres, source_from_world)
    except (KeyError, TypeError, ValueError, UsageError) as problem:
        raise DataError(f"{path} is not a placement: {type(problem).__name__}: {problem}") from problem


def write(folder: Path, placement: Placement, source_from_world: Array) -> Path:
    """Keep the placement with a run; returns the file."""
    path = folder / FILE
    files.write_atomically(path, files.dump(placement.to_json(source_from_world)))
    return path


def length_in_words(length: float, metres: bool) -> str:
    """A length with three digits that count, in a unit that suits it."""
    if not metres:
        return f"{length:.3g} units"
    units = ((1e-3, "km"), (1.0, "m"), (1e2, "cm"), (1e3, "mm"))
    factor, unit = next((pair for pair in units if length * pair[0] >= 1), units[-1])
    value = length * factor
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"


def _of_source(up: Vector, origin: Array, metres: float | None, source_from_world: Array) -> Placement:
    if metres is not None and not 1 / MOST_METRES <= metres <= MOST_METRES:
        raise ValueError(f"metres_per_unit must be a positive number, got {metres}")
    unit, rotation, _ = decomposed(source_from_world)
    local = np.linalg.inv(source_from_world) @ np.array([*origin, 1.0])
    return Placement(
        up=_unit(rotation.T @ np.asarray(up)),
        origin=(float(local[0]), float(local[1]), float(local[2])),
        scale=unit * (1.0 if metres is None else metres),
        metres=metres is not None,
    )


def _floor_normal(points: Sequence[ArrayLike], towards: Array) -> Vector:
    if len(points) < 3:
        raise UsageError(f"a plane needs three points, got {len(points)}")
    positions = np.stack([_point(point) for point in points])
    offsets = positions - positions.mean(axis=0)
    _, sizes, axes = np.linalg.svd(offsets)
    if sizes[1] < 1e-6 * max(float(sizes[0]), SHORTEST):
        raise UsageError("the points lie on one line: click three corners of the floor")
    normal = axes[2]
    return _unit(normal if normal @ towards >= 0 else -normal)


def _point(value: ArrayLike) -> Array:
    point = np.asarray(value, dtype=np.float64)
    if point.shape != (3,) or not np.isfinite(point).all():
        raise UsageError(f"expected a point of three finite numbers, got {value!r}")
    return point


def _unit(value: ArrayLike) -> Vector:
    vector = _point(value)
    length = float(np.linalg.norm(vector))
    if length < SHORTEST:
        raise UsageError("a direction needs a length above 0")
    x, y, z = vector / length
    return float(x), float(y), float(z)
