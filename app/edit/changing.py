"""New values of Gaussians: moved, coloured, as rows to add."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anchorfield.app.edit.operations import Adjust
from anchorfield.app.edit.values import Matrix
from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.renderer.types import PARAMETERS, SH_C0, Gaussians
from anchorfield.scenes.similarity import transformed
from anchorfield.scenes.splat_ply import read_ply

LUMINANCE = (0.2126, 0.7152, 0.0722)
WARMTH = 0.3  # by which a temperature of 1 raises red and lowers blue
LEAST_OPACITY = 1e-6  # and as far from 1


def moved(rows: Gaussians, matrix: Matrix) -> dict[str, Tensor]:
    """Parameters of `rows` under a similarity."""
    after = transformed(rows, np.array(matrix))
    return {name: getattr(after, name).contiguous() for name in ("means", "log_scales", "quats", "sh")}


def adjusted(rows: Gaussians, how: Adjust) -> dict[str, Tensor]:
    """Harmonics and opacities of `rows` after an adjustment.

    Colours change by one affine map, so that harmonics change by its linear part: exact for every direction.
    """
    luminance = torch.tensor(LUMINANCE, dtype=torch.float64).expand(3, 3)
    mix = how.saturation * torch.eye(3, dtype=torch.float64) + (1 - how.saturation) * luminance
    warm = torch.tensor([1 + WARMTH * how.temperature, 1.0, 1 - WARMTH * how.temperature], dtype=torch.float64)
    linear = how.contrast * warm[:, None] * mix
    grey = linear.sum(1) * 0.5
    offset = grey + 0.5 * (1 - how.contrast) * warm + how.brightness - 0.5
    changed: dict[str, Tensor] = {}
    if (how.brightness, how.contrast, how.saturation, how.temperature) != (0, 1, 1, 0):
        sh = torch.einsum("nkc,dc->nkd", rows.sh.double(), linear)
        sh[:, 0] += offset / SH_C0
        changed["sh"] = sh.float()
    if how.opacity != 1:
        opacity = (rows.logit_opacities.double().sigmoid() * how.opacity).clamp(LEAST_OPACITY, 1 - LEAST_OPACITY)
        changed["logit_opacities"] = torch.logit(opacity).float()
    return changed


def from_file(path: str, digest: str, source_from_world: NDArray[np.float64] | None) -> tuple[Gaussians, str]:
    """The splats of a file in the editor's frame, and the file's SHA-256; it must be `digest` where one is given."""
    file = Path(path)
    if file.suffix.lower() != ".ply":
        raise UsageError(f"merge: file: expected a splat file, .ply, got {path}")
    try:
        with open(file, "rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
    except (OSError, ValueError) as problem:
        raise DataError(f"{path} cannot be read: {getattr(problem, 'strerror', None) or problem}") from problem
    if digest and digest != found:
        raise DataError(f"{path} is not the file that was merged: its SHA-256 is {found}, expected {digest}")
    gaussians = read_ply(file)
    if source_from_world is not None and not np.array_equal(source_from_world, np.eye(4)):
        gaussians = transformed(gaussians, np.asarray(np.linalg.inv(source_from_world), np.float64))
    return gaussians, found


def as_rows(gaussians: Gaussians, coefficients: int) -> dict[str, Tensor]:
    """Rows to add to Gaussians with some number of harmonics: cut, or filled up with zeros."""
    tensors = {name: getattr(gaussians, name).detach().cpu().float() for name in PARAMETERS}
    sh = torch.zeros(len(gaussians), coefficients, 3)
    common = min(coefficients, gaussians.sh.shape[1])
    sh[:, :common] = tensors["sh"][:, :common]
    return tensors | {"sh": sh}
