"""Checkpoints of Scaffold-GS as its authors publish them (Lu et al. 2024): a folder, read without running any of it.

`point_cloud.ply` has an anchor a row: x y z, f_offset_0..3k-1 (index = axis k + offset), f_anchor_feat_0..D-1 and
scale_0..5 (logarithms; of the offsets, then of the Gaussians); nx ny nz, opacity and rot_0..3 have no effect. Beside it
lie TorchScript archives opacity_mlp.pt, cov_mlp.pt, color_mlp.pt and maybe feature_bank_mlp.pt: zip files whose members
`*/data/N` and `*/constants/N` are plain float32. Of those only the bytes are read: a perceptron's two matrices and two
vectors are told apart by their sizes, and by their numbers where these are equal. `cameras.json`, here or two folders
above as the trainer leaves it, lists the training cameras, whose poses are camera to world with OpenCV axes.
"""

from __future__ import annotations

import json
import math
import re
import warnings
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anchorfield.renderer.errors import DataError
from anchorfield.scenes.compact import Stored
from anchorfield.scenes.ply import Columns, read_columns, read_header

METHOD = "scaffold_gs"
POINTS, CAMERAS, BANK, APPEARANCE = "point_cloud.ply", "cameras.json", "feature_bank_mlp.pt", "embedding_appearance.pt"
HEADS = {"opacity": ("opacity_mlp.pt", 1), "covariance": ("cov_mlp.pt", 7), "colour": ("color_mlp.pt", 3)}
LOOKS_FOR = f"a folder with a checkpoint of Scaffold-GS ({POINTS}, opacity_mlp.pt, cov_mlp.pt, color_mlp.pt)"
HIDDEN = 32  # units of a hidden layer
MOST_VIEWS = 64  # cameras that a model keeps
_LARGEST_ARCHIVE, _LARGEST_JSON, _MOST_MEMBERS = 64 << 20, 256 << 20, 10_000

Floats = NDArray[np.float32]


class Perceptron(NamedTuple):
    """Two linear layers."""

    hidden: Floats  # [HIDDEN, inputs]
    hidden_bias: Floats
    last: Floats  # [outputs, HIDDEN]
    last_bias: Floats


def recognises(path: Path) -> bool:
    """Whether the folder looks like such a checkpoint."""
    return (path / POINTS).is_file() and (path / "opacity_mlp.pt").is_file()


def read(path: Path) -> Stored:
    """The model of a checkpoint in the coordinates of its capture; raises DataError in words where it is damaged."""
    if (path / APPEARANCE).exists():
        raise DataError(
            f"{path / APPEARANCE}: models with appearance codes cannot be read; train with appearance_dim 0"
        )
    tensors = _anchors(path / POINTS)
    features, offsets = tensors["features"].shape[1], tensors["offsets"].shape[1]
    read_heads = {
        name: _perceptron(path / file, (features + 3, features + 4), outputs * offsets)
        for name, (file, outputs) in HEADS.items()
    }
    distance = any(head.hidden.shape[1] == features + 4 for head in read_heads.values())
    for name, head in read_heads.items():
        tensors |= _named(f"heads.{name}", head, features + 3 + distance)
    if (path / BANK).is_file():
        tensors |= _bank(_perceptron(path / BANK, (4,), 3))
    tensors["views"], tensors["background"] = _views(path), torch.zeros(3)
    described = {"features": features, "offsets": offsets, "distance": distance, "bank": (path / BANK).is_file()}
    return Stored(METHOD, described, tensors, np.eye(4))


def _anchors(path: Path) -> dict[str, Tensor]:
    """Rows of the anchors; those that are not finite are left out with a warning."""
    columns = read_columns(read_header(path), "vertex")
    offsets, features = _count(columns, "f_offset_"), _count(columns, "f_anchor_feat_")
    groups = {
        "anchors": ["x", "y", "z"],
        "features": [f"f_anchor_feat_{index}" for index in range(features)],
        "offsets": [f"f_offset_{index}" for index in range(offsets)],
        "log_scales": [f"scale_{index}" for index in range(6)],
    }
    missing = [name for names in groups.values() for name in names if name not in columns]
    if missing or not features or not offsets or offsets % 3 or not len(columns["x"]):
        lacks = f"it lacks {', '.join(missing[:6])}" if missing else f"it has {features} features, {offsets} offsets"
        raise DataError(
            f"{path}: expected the anchors of Scaffold-GS (x, f_offset_*, f_anchor_feat_*, scale_*); {lacks}"
        )
    with np.errstate(over="ignore", invalid="ignore"):  # a double may not fit: its row is left out
        rows = {name: np.stack([columns[n] for n in names], 1).astype(np.float32) for name, names in groups.items()}
    finite = np.all([np.isfinite(values).all(1) for values in rows.values()], axis=0)
    if not finite.any():
        raise DataError(f"{path}: no anchor has finite numbers only; the file is damaged")
    if not finite.all():
        warnings.warn(f"{path}: {(~finite).sum()} anchors are not finite and were left out", stacklevel=3)
    tensors = {name: torch.from_numpy(values[finite]) for name, values in rows.items()}
    by_axis = tensors["offsets"].reshape(-1, 3, offsets // 3)
    return {**tensors, "offsets": by_axis.transpose(1, 2).contiguous()}


def _count(columns: Columns, start: str) -> int:
    return sum(name.startswith(start) for name in columns)


def _perceptron(path: Path, inputs: tuple[int, ...], outputs: int) -> Perceptron:
    """The layers in a TorchScript archive; `inputs` are the widths that its first layer may have."""
    arrays = _members(path)
    for width in inputs:
        shapes = [(HIDDEN, width), (HIDDEN,), (outputs, HIDDEN), (outputs,)]
        if Counter(math.prod(shape) for shape in shapes) <= Counter(array.size for array in arrays):
            found = Perceptron(*_by_size(arrays, shapes))
            if not all(np.isfinite(values).all() for values in found):
                raise DataError(f"{path}: holds numbers that are not finite; it is damaged")
            return found
    raise DataError(
        f"{path}: expected layers of {' or '.join(map(str, inputs))} inputs, {HIDDEN} hidden units and {outputs}"
        f" outputs, got tensors of {', '.join(str(array.size) for array in arrays[:8]) or 'no'} numbers"
    )


def _by_size(arrays: list[Floats], shapes: list[tuple[int, ...]]) -> list[Floats]:
    """The arrays in the order of the shapes; the first one stands for the first of equal size."""
    left, found = list(arrays), []
    for shape in shapes:
        index = next(i for i, array in enumerate(left) if array.size == math.prod(shape))
        found.append(left.pop(index).reshape(shape))
    return found


def _members(path: Path) -> list[Floats]:
    """The tensors of a TorchScript archive, flat, by their numbers."""
    found: list[tuple[str, int, Floats]] = []
    try:
        if path.stat().st_size > _LARGEST_ARCHIVE:
            raise DataError(f"{path}: {path.stat().st_size:,} bytes are no small perceptron")
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist()[:_MOST_MEMBERS]:
                match = re.fullmatch(r"(?:[^/]+/)?(constants|data)/(\d{1,6})", member.filename)
                if not match:
                    continue
                if member.compress_type != zipfile.ZIP_STORED or member.file_size > path.stat().st_size:
                    raise DataError(
                        f"{path}: '{member.filename}' is compressed; TorchScript stores tensors as they are"
                    )
                content = archive.read(member)
                if len(content) % 4 == 0:
                    found.append((match[1], int(match[2]), np.frombuffer(content, "<f4").astype(np.float32)))
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: expected {LOOKS_FOR}") from error
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, ValueError, NotImplementedError) as error:
        raise DataError(f"{path}: cannot be read as a TorchScript archive ({error}); copy it again") from error
    return [values for *_, values in sorted(found, key=lambda member: member[:2])]


def _named(name: str, head: Perceptron, inputs: int) -> dict[str, Tensor]:
    """A head as the model names it; one that does not know the distance has no weight for it."""
    hidden = np.pad(head.hidden, ((0, 0), (0, inputs - head.hidden.shape[1])))
    arrays = {"_hidden": hidden, "_hidden_bias": head.hidden_bias, "": head.last, "_bias": head.last_bias}
    return {f"{name}{suffix}": torch.from_numpy(values) for suffix, values in arrays.items()}


def _bank(mixer: Perceptron) -> dict[str, Tensor]:
    """The feature bank, whose weights come from coarse to fine here and from fine to coarse in the model."""
    last, bias = mixer.last[::-1].copy(), mixer.last_bias[::-1].copy()
    arrays = {"0.weight": mixer.hidden, "0.bias": mixer.hidden_bias, "2.weight": last, "2.bias": bias}
    return {f"bank.mix.{name}": torch.from_numpy(values) for name, values in arrays.items()}


def _views(path: Path) -> Tensor:
    """Training cameras [C, 22] as the model keeps them: poses row by row, then fx, fy, cx, cy, width, height."""
    file = next((f / CAMERAS for f in (path, path.resolve().parent.parent) if (f / CAMERAS).is_file()), None)
    if file is None:
        return torch.zeros(0, 22)
    try:
        if file.stat().st_size > _LARGEST_JSON:
            raise DataError(f"{file}: too large for a list of cameras")
        listed = json.loads(file.read_text())
        rows = np.stack([_view(camera) for camera in listed[:: max(1, -(-len(listed) // MOST_VIEWS))]])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{file}: is no list of cameras ({type(error).__name__}: {error}); remove or mend it"
        ) from error
    return torch.from_numpy(rows.astype(np.float32))


def _view(camera: dict[str, Any]) -> NDArray[np.float64]:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = camera["rotation"], camera["position"]
    width, height, fx, fy = (float(camera[name]) for name in ("width", "height", "fx", "fy"))
    if not np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), rtol=0, atol=1e-3):
        raise ValueError(f"the rotation of camera {str(camera.get('id'))[:20]} is none")
    if not (0 < width < 32768 and 0 < height < 32768 and 0 < fx < 1e7 and 0 < fy < 1e7):
        raise ValueError(f"the lens of camera {str(camera.get('id'))[:20]} is out of range")
    if not np.abs(pose).max() < 1e7:
        raise ValueError(f"the position of camera {str(camera.get('id'))[:20]} is out of range")
    lens = [fx, fy, width / 2, height / 2, int(width), int(height)]
    return np.concatenate([np.linalg.inv(pose).ravel(), lens])
