"""`transforms.json` in its three dialects.

- Blender / NeRF-synthetic: `transforms_{train,test,val}.json`, `camera_angle_x`, paths without ending, alpha.
- instant-ngp: one file, `fl_x`, `k1`... for all frames, paths with or without ending.
- nerfstudio: `camera_model`, intrinsics per frame or for all, masks, depth, points in a PLY, the split as lists.

Poses are camera-to-world with OpenGL axes (x right, y up, z backward).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from anchorfield.renderer.errors import DataError
from anchorfield.scenes.capture import (
    Array,
    Capture,
    Shot,
    is_file,
    lens_of,
    missing_images,
    nearest_rotation,
    usable_points,
)
from anchorfield.scenes.images import read_header
from anchorfield.scenes.ply import read_points

LOOKS_FOR = "transforms.json, or transforms_train.json (Blender, instant-ngp, nerfstudio)"

_ENDINGS = (".png", ".jpg", ".jpeg", ".JPG", ".PNG", ".webp", ".tif", ".tiff", ".bmp")
_LENS_PARAMS = {
    "SIMPLE_PINHOLE": ("cx", "cy"),
    "PINHOLE": ("cx", "cy"),
    "SIMPLE_RADIAL": ("cx", "cy", "k1"),
    "RADIAL": ("cx", "cy", "k1", "k2"),
    "OPENCV": ("cx", "cy", "k1", "k2", "p1", "p2"),
    "FULL_OPENCV": ("cx", "cy", "k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
    "OPENCV_FISHEYE": ("cx", "cy", "k1", "k2", "k3", "k4"),
    "SIMPLE_RADIAL_FISHEYE": ("cx", "cy", "k1"),
    "RADIAL_FISHEYE": ("cx", "cy", "k1", "k2"),
    "THIN_PRISM_FISHEYE": ("cx", "cy", "k1", "k2", "p1", "p2", "k3", "k4", "sx1", "sy1"),
}
_ONE_FOCAL = ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")
_MODEL_ALIASES = {"PERSPECTIVE": "OPENCV", "FISHEYE": "OPENCV_FISHEYE"}


@dataclass(frozen=True)
class _File:
    """One parsed JSON file."""

    path: Path
    content: dict[str, Any]
    held_out: bool | None  # what its name says of the split

    @property
    def frames(self) -> list[dict[str, Any]]:
        frames = self.content.get("frames")
        if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
            raise DataError(f"{self.path}: expected a list 'frames' of objects, got {type(frames).__name__}")
        return frames


def recognises(path: Path) -> bool:
    """Whether `path` is such a file, or a folder with one."""
    if path.is_file():
        return path.suffix == ".json"
    return (path / "transforms.json").is_file() or (path / "transforms_train.json").is_file()


def read(path: Path, downscale: int) -> Capture:
    """The capture; images that are not there are left out with a warning."""
    files = _files(path)
    shots = [_shot(file, frame, index) for file in files for index, frame in enumerate(file.frames)]
    if not shots:
        raise DataError(f"{files[0].path}: 'frames' is empty; there is no view to train on")
    looked = f"looked for each name beside it, also with the endings {' '.join(_ENDINGS)}"
    present, lost = missing_images(shots, files[0].path, looked)
    xyz, rgb, warnings = _points(files[0])
    warnings += lost
    return Capture(tuple(present), xyz, rgb, _source_from_shots(files[0], warnings), warnings=tuple(warnings))


def _files(path: Path) -> list[_File]:
    if path.is_file():
        return [_parsed(path, None)]
    if (path / "transforms.json").is_file():
        return [_parsed(path / "transforms.json", None)]
    files = [_parsed(path / "transforms_train.json", False)]
    held_out = next((path / f"transforms_{name}.json" for name in ("test", "val") if _exists(path, name)), None)
    if held_out is None:
        return [_File(files[0].path, files[0].content, None)]
    return [*files, _parsed(held_out, True)]


def _exists(folder: Path, split: str) -> bool:
    return (folder / f"transforms_{split}.json").is_file()


def _parsed(path: Path, held_out: bool | None) -> _File:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object with 'frames', got {type(content).__name__}")
    return _File(path, content, held_out)


def _shot(file: _File, frame: dict[str, Any], index: int) -> Shot:
    """The shot of one frame; its image need not exist."""
    where = f"{file.path}: frame {index}"
    given = frame.get("file_path")
    if not isinstance(given, str) or not given:
        raise DataError(f"{where}: expected a text 'file_path', got {given!r}")
    where = f"{file.path}: frame {index} ({given})"
    rotation, centre = _pose(frame, where)
    image = _image_path(file.path.parent, given)
    return Shot(
        name=Path(given).as_posix() if image.name == Path(given).name else Path(given).as_posix() + image.suffix,
        image=image,
        lens=_lens({**file.content, **frame}, image, where),
        rotation=rotation,
        centre=centre,
        held_out=_held_out(file, given, where),
        mask=_side_file(file, frame, "mask_path", where),
        depth=_side_file(file, frame, "depth_file_path", where),
        depth_unit=_number({"depth_unit_scale_factor": 1e-3, **file.content}, "depth_unit_scale_factor", where),
    )


def _image_path(folder: Path, given: str) -> Path:
    """The file meant by a frame: as written, else with one of the known endings; as written where none exists."""
    path = folder / given.replace("\\", "/")
    candidates = [path, *(path.with_name(path.name + ending) for ending in _ENDINGS)]
    return next((candidate for candidate in candidates if is_file(candidate)), path)


def _side_file(file: _File, frame: dict[str, Any], key: str, where: str) -> Path | None:
    given = frame.get(key)
    if given is None:
        return None
    path = file.path.parent / str(given)
    if not is_file(path):
        raise DataError(f"{where}: its {key} {given!r} does not exist; add the file or remove the entry")
    return path


def _pose(frame: dict[str, Any], where: str) -> tuple[Array, Array]:
    """Rotation camera_from_source with OpenCV axes, and the camera's centre."""
    try:
        matrix = np.array(frame["transform_matrix"], dtype=np.float64)
    except KeyError:
        raise DataError(f"{where}: 'transform_matrix' is missing") from None
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: 'transform_matrix' must hold 4x4 numbers ({error})") from error
    if matrix.shape not in ((4, 4), (3, 4)):
        raise DataError(f"{where}: expected a 4x4 'transform_matrix', got shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise DataError(f"{where}: 'transform_matrix' holds numbers that are not finite")
    opencv_from_opengl = np.diag([1.0, -1.0, -1.0])
    return opencv_from_opengl @ nearest_rotation(matrix[:3, :3], where).T, matrix[:3, 3]


def _lens(entries: dict[str, Any], image: Path, where: str) -> pycolmap.Camera:
    """The lens from a frame's own entries over the file's; sizes and the centre come from the image where not given."""
    width, height = _size(entries, image, where)
    model = _model(entries, where)
    focal_x, focal_y = _focals(entries, width, height, where)
    values = {"cx": width / 2, "cy": height / 2, **entries}
    rest = [_number(values, key, where, default=0.0) for key in _LENS_PARAMS[model]]
    return lens_of(model, width, height, [focal_x, *([] if model in _ONE_FOCAL else [focal_y]), *rest], where)


def _size(entries: dict[str, Any], image: Path, where: str) -> tuple[int, int]:
    if "w" in entries and "h" in entries:
        return int(_number(entries, "w", where)), int(_number(entries, "h", where))
    if not is_file(image):
        return 1, 1  # no matter: the shot is left out
    header = read_header(image)
    return header.width, header.height


def _model(entries: dict[str, Any], where: str) -> str:
    given = entries.get("camera_model", "OPENCV_FISHEYE" if entries.get("is_fisheye") else "OPENCV")
    model = _MODEL_ALIASES.get(given, given)
    if model not in _LENS_PARAMS:
        raise DataError(f"{where}: camera_model {given!r} cannot be read; known are {', '.join(_LENS_PARAMS)}")
    if model != "OPENCV":
        return str(model)
    if _number(entries, "k4", where, default=0.0) != 0:
        raise DataError(f"{where}: k4 of an OPENCV lens has two meanings in use; undistort the images first")
    # COLMAP's OPENCV has no k3; its FULL_OPENCV has, in the same place as OpenCV.
    return "FULL_OPENCV" if _number(entries, "k3", where, default=0.0) != 0 else "OPENCV"


def _focals(entries: dict[str, Any], width: int, height: int, where: str) -> tuple[float, float]:
    """Focal lengths in pixels: `fl_x`, `fl_y`, or from the full angles of view in radians."""
    focals = []
    for length, angle, size in (("fl_x", "camera_angle_x", width), ("fl_y", "camera_angle_y", height)):
        if length in entries:
            focals.append(_number(entries, length, where))
        elif angle in entries:
            focals.append(_from_angle(_number(entries, angle, where), size, f"{where}: {angle}"))
    if not focals:
        raise DataError(f"{where}: no focal length; expected 'fl_x' (pixels) or 'camera_angle_x' (radians)")
    return focals[0], focals[-1]


def _from_angle(angle: float, size: int, where: str) -> float:
    if not 0 < angle < math.pi:
        raise DataError(f"{where}: an angle of view must lie between 0 and pi radians, got {angle}")
    return size / 2 / math.tan(angle / 2)


def _number(entries: dict[str, Any], key: str, where: str, default: float | None = None) -> float:
    value = entries.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{where}: {key!r} must be a finite number, got {value!r}")
    return float(value)


def _held_out(file: _File, given: str, where: str) -> bool | None:
    """The split of nerfstudio's lists of names, or of the file's own name."""
    lists = {key: file.content.get(f"{key}_filenames") for key in ("train", "test", "val")}
    for key, names in lists.items():
        if names is not None and not isinstance(names, list):
            raise DataError(f"{file.path}: '{key}_filenames' must be a list, got {type(names).__name__}")
    held_out = lists["test"] or lists["val"]
    return given in held_out if held_out else file.held_out


def _points(file: _File) -> tuple[Array | None, Any, list[str]]:
    given = file.content.get("ply_file_path")
    if given is None:
        return None, None, []
    path = file.path.parent / str(given)
    if not path.is_file():
        return None, None, [f"{file.path}: its ply_file_path {given!r} does not exist; going on without points"]
    return usable_points(*read_points(path), str(path))


def _source_from_shots(file: _File, warnings: list[str]) -> Array:
    """nerfstudio writes poses that it has moved by `applied_transform`: the capture's own frame is before that."""
    given = file.content.get("applied_transform")
    if given is None:
        return np.eye(4)
    try:
        applied = np.vstack([np.array(given, dtype=np.float64)[:3], [0, 0, 0, 1]])
        scale = _number({"applied_scale": 1.0, **file.content}, "applied_scale", str(file.path))
        applied[:3, :3] = nearest_rotation(applied[:3, :3], f"{file.path}: applied_transform")
    except (ValueError, TypeError, IndexError, DataError) as error:
        warnings.append(
            f"{file.path}: 'applied_transform' cannot be undone ({error}); exports stay in the file's frame"
        )
        return np.eye(4)
    applied[:3] *= scale
    return np.linalg.inv(applied)
