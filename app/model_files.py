"""Models in files: what is read and written by the file's ending, and how a file of another kind becomes a model."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from anchorfield import methods
from anchorfield.app import job
from anchorfield.app import settings as flat
from anchorfield.methods import Method
from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.renderer.types import PARAMETERS
from anchorfield.scenes import scaffold_checkpoint
from anchorfield.scenes.compact import Stored, read_compact
from anchorfield.scenes.splat_ply import read_ply

COMPACT, SPLATS = ".safetensors", ".ply"


def recognises(path: Path) -> bool:
    """Whether `path` looks like a model that `read` knows."""
    return scaffold_checkpoint.recognises(path) or (path.is_file() and path.suffix.lower() in (COMPACT, SPLATS))


def read(path: Path) -> Stored:
    """The model in a compact file, a splat file, or a folder with a checkpoint of Scaffold-GS as it was published."""
    if scaffold_checkpoint.recognises(path):
        return scaffold_checkpoint.read(path)
    if path.is_file() and path.suffix.lower() == COMPACT:
        return read_compact(path)
    if path.is_file() and path.suffix.lower() == SPLATS:
        return _splats(path)
    raise DataError(
        f"{path} is not a run: it holds no config.json. Expected the folder that train printed, a model ({COMPACT},"
        f" {SPLATS}), or {scaffold_checkpoint.LOOKS_FOR}"
    )


def settings(stored: Stored, path: Path) -> Method:
    """The settings of the method that made a file; raises DataError where they are unknown here."""
    try:
        return flat.from_json(methods.load(stored.method), dict(stored.settings), str(path))
    except UsageError as problem:
        raise DataError(f"{path}: {problem}") from problem


def _splats(path: Path) -> Stored:
    """Gaussians as the default method holds them, in the coordinates of the file."""
    gaussians = read_ply(path)
    if len(gaussians) == 0:
        raise DataError(f"{path}: holds no Gaussians")
    tensors = {name: getattr(gaussians, name) for name in PARAMETERS}
    described = {"antialiased": gaussians.antialiased, "sh_degree": math.isqrt(gaussians.sh.shape[1]) - 1}
    return Stored(job.DEFAULT_METHOD, described, {**tensors, "background": torch.zeros(3)}, np.eye(4))
