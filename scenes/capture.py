"""What every reader gives: photographs with lenses and poses in the capture's own frame, in double precision.

A pose is kept as the rotation `camera_from_source` [3, 3] and the camera's centre [3]: with georeferenced coordinates
(offsets of a million metres) the usual translation -R c loses the digits that matter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pycolmap
from numpy.typing import ArrayLike, NDArray

from anchorfield.renderer.errors import DataError

Array = NDArray[np.float64]

FURTHEST = 1e12  # source units; a coordinate beyond that is no measurement


@dataclass(frozen=True)
class Shot:
    """One photograph of a capture, before undistortion and scaling."""

    name: str  # unique in the capture
    image: Path
    lens: pycolmap.Camera  # as stored, distortion included; sizes in pixels of the file
    rotation: Array  # [3, 3] camera_from_source, OpenCV axes
    centre: Array  # [3] in the source frame
    held_out: bool | None = None  # what the capture's own split says; None where it has none
    mask: Path | None = None
    depth: Path | None = None
    depth_unit: float = 1.0  # source units per stored depth step
    face: Array | None = None  # [3, 3] panorama_from_face, of a face of a panorama; `rotation` is then the face's own


@dataclass(frozen=True)
class Capture:
    """What a reader found."""

    shots: tuple[Shot, ...]
    xyz: Array | None = None  # [N, 3] in the frame of the shots
    rgb: NDArray[np.uint8] | None = None  # [N, 3]
    source_from_shots: Array = field(default_factory=lambda: np.eye(4))  # similarity, where a tool had moved the poses
    downscale_done: int = 1  # the files named by the shots are already this much smaller than the photographs
    warnings: tuple[str, ...] = ()


class Reader(Protocol):
    """A module that reads one format."""

    @property
    def LOOKS_FOR(self) -> str:
        """The files that make a folder one of this format, for messages."""
        ...

    def recognises(self, path: Path) -> bool:
        """Whether the file or folder at `path` is of this format."""
        ...

    def read(self, path: Path, downscale: int) -> Capture:
        """The capture at `path`; `downscale` only helps to choose among ready-made smaller images."""
        ...


def nearest_rotation(matrix: ArrayLike, where: str, tolerance: float = 0.02) -> Array:
    """The rotation nearest to a [3, 3] matrix; refuses what is no rotation but for rounding.

    The tolerance is wide because poses are stored with few digits, and because some tools write a slight shear.
    """
    given = np.asarray(matrix, dtype=np.float64)
    if given.shape != (3, 3) or not np.isfinite(given).all():
        raise DataError(f"{where}: expected a finite 3x3 rotation, got {np.array2string(given, threshold=12)}")
    left, stretch, right = np.linalg.svd(given)
    if np.abs(stretch - 1).max() > tolerance or np.linalg.det(given) < 0:
        raise DataError(
            f"{where}: expected a rotation, got a matrix that stretches by {stretch[0]:.3g} to {stretch[2]:.3g} and has"
            f" determinant {np.linalg.det(given):.3g}; scale or mirror belongs into no pose, correct the file"
        )
    rotation: Array = left @ right
    return rotation


def lens_of(model: str, width: int, height: int, params: ArrayLike, where: str) -> pycolmap.Camera:
    """A camera as pycolmap knows it, checked: known model, right number of finite parameters, positive sizes."""
    known = [name for name in pycolmap.CameraModelId.__members__ if name != "INVALID"]
    if model not in known:
        raise DataError(f"{where}: camera model {model!r} is unknown; known are {', '.join(known)}")
    values = np.asarray(params, dtype=np.float64).reshape(-1)
    if not (0 < width <= 1 << 16 and 0 < height <= 1 << 16):
        raise DataError(f"{where}: expected an image size of 1 to 65536 pixels, got {width} x {height}")
    lens = pycolmap.Camera.create_from_model_name(0, model, 1.0, width, height)
    if len(values) != len(lens.params):
        names = lens.params_info
        raise DataError(f"{where}: {model} has {len(lens.params)} parameters ({names}), got {len(values)}")
    if not np.isfinite(values).all():
        raise DataError(f"{where}: camera parameters must be finite, got {values.tolist()}")
    lens.params = values.tolist()
    focals = [float(values[index]) for index in lens.focal_length_idxs()]
    if any(focal <= 0 for focal in focals):
        raise DataError(f"{where}: the focal length must be positive, got {focals}")
    return lens


def is_sane(positions: Array) -> NDArray[np.bool_]:
    """Which positions [..., 3] are finite, and near enough to be computed with."""
    return np.asarray((np.abs(positions) < FURTHEST).all(axis=-1))


def usable_points(
    xyz: Array, rgb: NDArray[Any], where: str
) -> tuple[Array | None, NDArray[np.uint8] | None, list[str]]:
    """Points without the non-finite ones, and the warning that says so; None where nothing is left."""
    finite = is_sane(xyz)
    lost = int(len(xyz) - finite.sum())
    warnings = [f"{where}: {lost} of {len(xyz)} points are not finite and were left out"] if lost else []
    if not finite.any():
        return None, None, warnings
    return xyz[finite], rgb[finite].astype(np.uint8), warnings


def is_file(path: Path) -> bool:
    """Whether a file is there; a name that no file can have is not there."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def missing_images(shots: list[Shot], where: Path, looked: str) -> tuple[list[Shot], list[str]]:
    """The shots whose image exists, and a warning about the others; more missing than present is an error."""
    present = [shot for shot in shots if is_file(shot.image)]
    missing = [shot.name for shot in shots if not is_file(shot.image)]
    if not missing:
        return present, []
    some = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    message = f"{where}: {len(missing)} of {len(shots)} images do not exist ({some}); {looked}"
    if len(missing) > len(present):
        raise DataError(message)
    return present, [message]
