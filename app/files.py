"""Writing that survives a kill: a file or folder has either its old content or its new, never half of it."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anchorfield.renderer.errors import DataError
from anchorfield.scenes.atomic import replacing

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # no space, over quota, over the process's limit of file size


def write_atomically(path: Path, content: str | bytes) -> None:
    """Put `content` into `path`: temporary name, flush to disk, rename."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it survives a power cut."""
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Flush a file's content to disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def dump(value: Any) -> str:
    """JSON text for people: indented, keys in the order given."""
    return json.dumps(strict(value), indent=2) + "\n"


def strict(value: Any) -> Any:
    """`value` without NaN and infinity, which JSON does not know: they become text."""
    if isinstance(value, Mapping):
        return {name: strict(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [strict(entry) for entry in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises DataError that names it."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as problem:
        raise DataError(f"{path} does not exist") from problem
    except (OSError, ValueError) as problem:
        raise DataError(f"{path} cannot be read as JSON: {problem}") from problem


def output_folder(path: Path) -> Path:
    """`path` as a folder that can be written, made where missing; raises DataError otherwise."""
    probe = path / f".write-test-{os.getpid()}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as problem:
        raise DataError(f"cannot write into {path}: {problem.strerror or problem}; choose another folder") from problem
    return path


def output_file(path: Path) -> Path:
    """`path` with its folder made; raises DataError where that cannot be written or `path` is a folder."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; give a file name")
    output_folder(path.parent)
    return path
