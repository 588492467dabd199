"""The 3DGS PLY: the format in which every splat program reads and writes Gaussians.

Properties, all float: x y z, nx ny nz (zeros), f_dc_0..2, f_rest_0..(3K-1), opacity (logit), scale_0..2 (logarithms),
rot_0..3 (wxyz). f_rest is channel-major: f_rest[c * K + k] is coefficient k + 1 of channel c. Two header comments in
use tell of antialiasing: `antialiased 0|1` and `SplatRenderMode: default|mip`.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anchorfield.renderer.errors import DataError
from anchorfield.renderer.types import Gaussians
from anchorfield.scenes.atomic import replacing
from anchorfield.scenes.ply import Columns, Header, read_columns, read_header

_ROWS_AT_ONCE = 1 << 16
_ROWS_READ_AT_ONCE = 1 << 12
_LOGIT_OF_INFINITY = 15.0
_LARGEST_LOG_SCALE = 20.0
_FLAT = math.log(1e-4)  # thickness of a 2D Gaussian, relative to its smaller side


def property_names(coefficients: int) -> list[str]:
    """The properties in file order, for `coefficients` spherical harmonics per channel (the constant one included)."""
    rest = [f"f_rest_{index}" for index in range(3 * (coefficients - 1))]
    scales, rotation = [f"scale_{index}" for index in range(3)], [f"rot_{index}" for index in range(4)]
    return ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *rest, "opacity", *scales, *rotation]


def write_ply(path: Path | str, gaussians: Gaussians) -> None:
    """Write Gaussians; `path` is replaced only once everything is on the disk."""
    names = property_names(gaussians.sh.shape[1])
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment SplatRenderMode: {'mip' if gaussians.antialiased else 'default'}",
        f"comment antialiased {int(gaussians.antialiased)}",
        f"element vertex {len(gaussians)}",
        *(f"property float {name}" for name in names),
        "end_header",
    ]
    with replacing(Path(path)) as file:
        file.write(("\n".join(header) + "\n").encode())
        for start in range(0, len(gaussians), _ROWS_AT_ONCE):
            file.write(_rows(gaussians, slice(start, start + _ROWS_AT_ONCE)).tobytes())


def read_ply(path: Path | str) -> Gaussians:
    """Read Gaussians of any degree up to 3; rows that are not finite are left out with a warning."""
    header = read_header(Path(path))
    columns = read_columns(header, "vertex")
    _check_columns(header, columns)
    coefficients = _coefficients(header, columns)
    log_scales = _stacked(columns, [f"scale_{index}" for index in range(3) if f"scale_{index}" in columns])
    if log_scales.shape[1] == 2:
        log_scales = torch.cat([log_scales, log_scales.amin(1, keepdim=True) + _FLAT], dim=1)
    gaussians = Gaussians(
        means=_stacked(columns, ["x", "y", "z"]),
        log_scales=log_scales.clamp(-_LARGEST_LOG_SCALE, _LARGEST_LOG_SCALE),
        quats=_turned(_stacked(columns, [f"rot_{index}" for index in range(4)])),
        logit_opacities=_finite_logits(_stacked(columns, ["opacity"])[:, 0]),
        sh=_harmonics(columns, coefficients),
        antialiased=_antialiased(header),
    )
    return _finite_rows(gaussians, header.path)


def _rows(gaussians: Gaussians, part: slice) -> NDArray[np.float32]:
    """A block of the file's body, [n, properties]."""
    means, sh = gaussians.means[part], gaussians.sh[part]
    columns = (
        means,
        torch.zeros_like(means),
        sh[:, 0],
        sh[:, 1:].transpose(1, 2).flatten(1),
        gaussians.logit_opacities[part, None],
        gaussians.log_scales[part],
        gaussians.quats[part],
    )
    return torch.cat(columns, dim=1).detach().cpu().numpy().astype("<f4")


def _check_columns(header: Header, columns: Columns) -> None:
    needed = [name for name in property_names(1) if name not in ("nx", "ny", "nz", "scale_2")]
    missing = [name for name in needed if name not in columns]
    if not missing:
        return
    kind = "3DGS PLY"
    if "packed_position" in columns:
        kind = "3DGS PLY but a compressed one"
    elif "f_anchor_feat_0" in columns:
        kind = "3DGS PLY but a Scaffold-GS checkpoint, which needs its networks"
    elif "f_dc_0" not in columns:
        kind = "3DGS PLY but a plain point cloud"
    raise DataError(f"{header.path}: not a {kind}: without {', '.join(missing[:6])}")


def _coefficients(header: Header, columns: Columns) -> int:
    """Harmonics per channel in the file, the constant one included."""
    rest = sum(name.startswith("f_rest_") for name in columns)
    if rest not in (0, 9, 24, 45, 72) or any(f"f_rest_{index}" not in columns for index in range(rest)):
        raise DataError(f"{header.path}: expected 0, 9, 24 or 45 properties f_rest_0, f_rest_1, ..., got {rest}")
    if rest == 72:
        warnings.warn(f"{header.path}: spherical harmonics of degree 4 are cut to degree 3", stacklevel=3)
    return rest // 3 + 1


def _stacked(columns: Columns, names: list[str]) -> Tensor:
    """Columns side by side, float32 [N, len(names)]; few rows at a time, which stay in the cache for every column."""
    count = len(columns[names[0]])
    stacked = np.empty((count, len(names)), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # a double may not fit: it becomes infinite and is left out
        for start in range(0, count, _ROWS_READ_AT_ONCE):
            part = slice(start, start + _ROWS_READ_AT_ONCE)
            for index, name in enumerate(names):
                stacked[part, index] = columns[name][part]
    return torch.from_numpy(stacked)


def _harmonics(columns: Columns, coefficients: int) -> Tensor:
    """[N, K, 3] from the channel-major columns."""
    kept = min(coefficients, 16)
    constant = _stacked(columns, ["f_dc_0", "f_dc_1", "f_dc_2"])[:, None]
    if kept == 1:
        return constant
    in_file = coefficients - 1
    names = [f"f_rest_{channel * in_file + index}" for index in range(kept - 1) for channel in range(3)]
    return torch.cat([constant, _stacked(columns, names).reshape(-1, kept - 1, 3)], dim=1)


def _turned(quats: Tensor) -> Tensor:
    """Quaternions, the identity where they have no direction."""
    nowhere = quats.norm(dim=1) < 1e-12
    quats[nowhere] = quats.new_tensor([1.0, 0, 0, 0])
    return quats


def _finite_logits(logits: Tensor) -> Tensor:
    """Some exporters write opacities of exactly 0 or 1, whose logits are infinite."""
    return torch.where(logits.isinf(), logits.clamp(-_LOGIT_OF_INFINITY, _LOGIT_OF_INFINITY), logits)


def _antialiased(header: Header) -> bool:
    """The last word of the header's comments on it."""
    antialiased = False
    for comment in header.comments:
        key, _, value = comment.replace(":", " ").partition(" ")
        if key == "SplatRenderMode":
            antialiased = value.strip() == "mip"
        elif key == "antialiased":
            antialiased = value.strip() == "1"
    return antialiased


def _finite_rows(gaussians: Gaussians, path: Path) -> Gaussians:
    tensors = {name: value for name, value in vars(gaussians).items() if isinstance(value, Tensor)}
    finite = torch.stack(
        [value.flatten(1).isfinite().all(1) if value.ndim > 1 else value.isfinite() for value in tensors.values()]
    )
    keep = finite.all(0)
    lost = int((~keep).sum())
    if not lost:
        return gaussians
    warnings.warn(f"{path}: {lost} of {len(keep)} Gaussians are not finite and were left out", stacklevel=3)
    return Gaussians(**{name: value[keep] for name, value in tensors.items()}, antialiased=gaussians.antialiased)
