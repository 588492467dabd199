"""Checkpoints: one folder each, complete or absent, verified by hash when read. No pickle.

`step_000010000/` holds `tensors.safetensors` (every tensor of the state, named by its JSON pointer), `state.json` (the
rest of the state with `{"$tensor": name}` where a tensor was, and facts about the run) and `manifest.json` (format
version, sizes and SHA-256 of both). The folder is written under a hidden name, flushed to disk and renamed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from anchorfield.app import files
from anchorfield.methods import State
from anchorfield.renderer.errors import DataError

FORMAT = 1
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
KEPT = 2  # newest checkpoints that are kept beside the best
HIDDEN = ".tmp-"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read from disk and verified."""

    path: Path
    state: State
    facts: Mapping[str, Any]  # method, settings, step, seconds, psnr (None where it was not measured)


def save(folder: Path, state: State, facts: Mapping[str, Any]) -> Path:
    """Write the checkpoint of step `facts["step"]` into `folder`; one that is already there and valid stays.

    Raises OSError, with nothing changed, where the disk is full.
    """
    target = folder / f"step_{facts['step']:09d}"
    if target.exists():
        if problem(target) is None:
            return target
        remove(target)
    temporary = folder / f"{HIDDEN}{target.name}-{os.getpid()}"
    try:
        temporary.mkdir(parents=True)
        _write(temporary, state, facts)
        os.rename(temporary, target)
    except BaseException:  # also Ctrl-C: no half-written folder stays
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    files.sync_folder(folder)
    return target


def load(path: Path) -> Checkpoint:
    """Read and verify one checkpoint; raises DataError in words where it is damaged or of another version."""
    reason = problem(path)
    if reason is not None:
        raise DataError(f"checkpoint {path} {reason}")
    try:
        content = json.loads((path / STATE).read_text())
        return Checkpoint(path, _joined(content["state"], load_file(path / TENSORS)), _joined(content["facts"], {}))
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise DataError(f"checkpoint {path} cannot be read: {error}") from error


def problem(path: Path) -> str | None:
    """What is wrong with a checkpoint on disk, as the rest of a sentence; None where it is whole."""
    try:
        text = (path / MANIFEST).read_text()
        version = json.loads(text)["format"]
        if version != FORMAT:
            return f"has format version {version}; this anchorfield reads version {FORMAT}: use the one that wrote it"
        # the text itself is compared, so that a flipped bit anywhere in the manifest shows too
        return None if text == _manifest(path) else "is damaged: its files do not match its manifest"
    except FileNotFoundError as error:
        return f"is incomplete: {Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"is damaged: its manifest cannot be read ({error})"


def steps(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first, whether valid or not."""
    found = [path for path in folder.glob("step_*") if re.fullmatch(r"step_\d{9,}", path.name) and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step_")))


def latest_valid(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole; damaged ones are named to `warn`. None where there is none at all.

    Raises DataError where there are checkpoints and none can be used.
    """
    reasons = []
    for path in reversed(steps(folder)):
        try:
            return load(path)
        except DataError as error:
            reasons.append(str(error))
            warn(f"{error}; trying the one before")
    if reasons:
        raise DataError("no usable checkpoint: " + "; ".join(reasons))
    return None


def named(folder: Path, which: str, warn: Callable[[str], None]) -> Checkpoint:
    """The checkpoint called "last", "best" (held-out PSNR) or a step number; raises DataError where there is none."""
    if which == "last":
        found = latest_valid(folder, warn)
        if found is None:
            raise DataError(f"{folder} holds no checkpoint yet: train first, or continue with --resume")
        return found
    path = best(folder) if which == "best" else folder / f"step_{int(which) if which.isdigit() else -1:09d}"
    if path is None or not path.is_dir():
        known = ", ".join(str(int(p.name.removeprefix("step_"))) for p in steps(folder))
        raise DataError(f"{folder} has no checkpoint '{which}'. Known: last, best, {known or 'no steps'}")
    return load(path)


def best(folder: Path) -> Path | None:
    """The checkpoint with the highest held-out PSNR; the newest of equals, None where none was measured."""
    measured = [(psnr, path) for path in steps(folder) if (psnr := _psnr(path)) is not None]
    return max(measured, key=lambda pair: (pair[0], pair[1].name))[1] if measured else None


def prune(folder: Path) -> None:
    """Keep the newest checkpoints and the best."""
    for path in set(steps(folder)[:-KEPT]) - {best(folder)}:
        remove(path)


def clear_leftovers(folder: Path) -> None:
    """Delete what a kill left half-written. Only the process that trains into `folder` may ask for it."""
    for leftover in folder.glob(f"{HIDDEN}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def remove(path: Path) -> None:
    """Delete a checkpoint so that a kill half-way leaves no damaged one behind."""
    hidden = path.with_name(f"{HIDDEN}old-{path.name}-{os.getpid()}")
    os.rename(path, hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def not_finite(state: State) -> str | None:
    """The name of a parameter, or of what the optimiser knows of it, that holds NaN or infinity; None if none does."""
    tensors: dict[str, Tensor] = {}
    _split({name: state[name] for name in ("model", "optimiser")}, "", tensors)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return name
    return None


def model_bytes(state: State) -> int:
    """Size of the model's own tensors, without what only training needs."""
    tensors: dict[str, Tensor] = {}
    _split(state["model"], "", tensors)
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _write(folder: Path, state: State, facts: Mapping[str, Any]) -> None:
    tensors: dict[str, Tensor] = {}
    tree = _split(state, "", tensors)
    try:
        save_file(_separate(tensors), folder / TENSORS)
    except SafetensorError as error:  # it hides the system's error number in its text
        code = re.search(r"os error (\d+)", str(error))
        raise OSError(int(code[1]) if code else 0, str(error)) from error
    (folder / STATE).write_text(json.dumps({"facts": _split(facts, "", {}), "state": tree}, indent=1, allow_nan=False))
    (folder / MANIFEST).write_text(_manifest(folder))
    for name in (TENSORS, STATE, MANIFEST):
        files.sync_file(folder / name)
    files.sync_folder(folder)


def _manifest(folder: Path) -> str:
    entries = {}
    for name in (TENSORS, STATE):
        with open(folder / name, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        entries[name] = {"bytes": (folder / name).stat().st_size, "sha256": digest}
    return files.dump({"format": FORMAT, "files": entries})


def _psnr(path: Path) -> float | None:
    try:
        psnr = _joined(json.loads((path / STATE).read_text())["facts"]["psnr"], {})
        return None if psnr is None else float(psnr)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a damaged checkpoint is never the best


def _split(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """`value` with tensors moved to `tensors` under their JSON pointer, in a form that plain JSON can hold."""
    if isinstance(value, Mapping):
        return {key: _split(entry, f"{name}/{_escaped(key)}", tensors) for key, entry in value.items()}
    if isinstance(value, Tensor):
        tensors[name] = value.detach()
        return {"$tensor": name}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if isinstance(value, list | tuple):
        return [_split(entry, f"{name}/{i}", tensors) for i, entry in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a state holds tensors, numbers, strings, booleans and None; {name} is a {type(value).__name__}")


def _joined(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `_split`; tuples come back as lists."""
    if isinstance(value, list):
        return [_joined(entry, tensors) for entry in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    if "$float" in value:
        return float(value["$float"])
    return {key: _joined(entry, tensors) for key, entry in value.items()}


def _escaped(key: Any) -> str:
    if not isinstance(key, str) or key.startswith("$"):
        raise TypeError(f"keys of a state are strings that do not start with '$', got {key!r}")
    return key.replace("~", "~0").replace("/", "~1")


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors in main memory of which no two share their bytes, as the file format demands."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        plain = tensor.to("cpu").contiguous()
        address = plain.untyped_storage().data_ptr()
        whole = plain.untyped_storage().nbytes() == plain.numel() * plain.element_size()
        result[name] = plain.clone() if address in seen or not whole else plain
        seen.add(address)
    return result
