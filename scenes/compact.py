"""The compact file: a trained model of any method, quantised, as one safetensors file.

The header's metadata holds `format` ("anchorfield model"), `version` ("1") and `model`, a JSON object with `method`,
`settings`, `source_from_world` (4x4, row by row), `background`, `step`, `seconds`, `downscale` and `split`. Tensors of
many rows are stored as U8 or U16 of their own shape, beside F32 `<name>:columns` [4, C]: centre, spread, low and step
of each of the C columns (all axes but the first). Their values are centre + spread sinh(low + step q): finest where
most of them lie, with room for a few that lie far away. Bytes are U8 as they are, under `<name>:bytes`. Whole numbers
[R, C], whose name ends with "latents", are range coded column after column: U8 `<name>:coded`, beside F32
`<name>:histogram`: R, C, the lowest number, and how often it and each next one comes. Other tensors are F16 or F32.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from anchorfield.renderer.errors import DataError
from anchorfield.scenes.atomic import replacing
from anchorfield.scenes.entropy_coding import coded, decoded
from anchorfield.scenes.similarity import decomposed

FORMAT, VERSION = "anchorfield model", "1"
ROWS = 512  # from which on a tensor is quantised in columns
FINE = ("means", "anchors", "views")  # positions and poses, whose errors are seen first: 16 bits in columns, or float32
WEIGHTS = "weights"  # ends the name of a perceptron's matrices in one row: no column of numbers of one kind
COLUMNS = ":columns"  # ends the name of a tensor's ranges
BYTES = ":bytes"  # ends the name of a tensor of bytes
LATENTS, CODED, HISTOGRAM = "latents", ":coded", ":histogram"
MOST_COLUMNS = 4096
_KINDS = ("U8", "U16", "F16", "F32")
_LONGEST_NAME = 200  # characters, in a message
_FARTHEST = 1e12  # of a frame, in units of the capture

Floats = NDArray[np.float32]
Codes = NDArray[np.unsignedinteger[Any]]
Matrix = NDArray[np.float64]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Stored:
    """A trained model as a file holds it."""

    method: str
    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensor]  # the "model" of a checkpoint
    source_from_world: Matrix  # [4, 4] from the model's frame to its capture's own
    background: Colour = (0.0, 0.0, 0.0)
    step: int = 0
    seconds: float = 0.0  # of training
    downscale: int = 1  # of the photographs it was trained on
    split: str = "auto"


def write_compact(path: Path | str, stored: Stored) -> None:
    """Write a model; `path` is replaced only once everything is on the disk."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, tensor in stored.tensors.items():
        values = tensor.detach().cpu().numpy()
        if values.dtype == np.uint8:
            arrays[name + BYTES] = values
            continue
        if values.dtype == np.float64 and values.ndim == 0:
            values = values.astype(np.float32)
        if values.dtype != np.float32 or name.endswith((COLUMNS, BYTES, CODED, HISTOGRAM)):
            raise DataError(f"{path}: '{name}' is no float32 tensor that a compact file can hold")
        if name.endswith(LATENTS):
            stream, histogram = coded(np.rint(values).astype(np.int64).T.ravel())
            arrays[name + CODED] = stream
            arrays[name + HISTOGRAM] = np.concatenate([values.shape, histogram]).astype(np.float32)
        elif name.endswith(WEIGHTS):
            arrays[name] = _halved(values)
        elif values.ndim and len(values) >= ROWS and values[0].size <= MOST_COLUMNS:
            arrays[name], arrays[name + COLUMNS] = quantised(values, 16 if name in FINE else 8)
        else:
            arrays[name] = _halved(values) if values.ndim > 1 and name not in FINE else values
    content = {
        "method": stored.method,
        "settings": dict(stored.settings),
        "source_from_world": stored.source_from_world.tolist(),
        "background": list(stored.background),
        "step": stored.step,
        "seconds": stored.seconds,
        "downscale": stored.downscale,
        "split": stored.split,
    }
    metadata = {"format": FORMAT, "version": VERSION, "model": json.dumps(content)}
    with replacing(Path(path)) as file:
        file.write(_ordered(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata)))


def _ordered(content: bytes) -> bytes:
    """A safetensors file with its header's entries in order of their names: the library draws another every time."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors stay aligned
    return len(header).to_bytes(8, "little") + header + content[end:]


def read_compact(path: Path | str) -> Stored:
    """The model in a compact file; raises DataError in words where it is damaged, or not such a file."""
    path = Path(path)
    try:
        size = path.stat().st_size
        with safe_open(path, framework="numpy") as file:
            content = _content(path, file.metadata() or {})
            return _stored(path, content, _tensors(path, file, size))
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read as a safetensors file ({error}); copy or export it again") from error


def quantised(values: Floats, bits: int) -> tuple[Codes, Floats]:
    """Codes of the values' own shape and the columns' ranges [4, C]; decoding is off by at most half a step."""
    rows = values.reshape(len(values), -1)
    ranges = np.empty((4, rows.shape[1]), np.float32)
    codes = np.empty(rows.shape, np.uint8 if bits == 8 else np.uint16)
    for index, column in enumerate(rows.T.astype(np.float64)):
        centre, spread = np.float32(np.median(column)), np.float32(np.abs(column - np.median(column)).mean())
        spread = max(spread, np.float32(1e-30))  # a column of one value
        bent = np.arcsinh((column - centre) / spread)
        low = np.float32(bent.min())
        step = np.float32((bent.max() - low) / (2**bits - 1))
        ranges[:, index] = centre, spread, low, step
        codes[:, index] = np.clip(np.rint((bent - low) / (step or 1)), 0, 2**bits - 1)
    return codes.reshape(values.shape), ranges


def restored(codes: Codes, ranges: Floats) -> Floats:
    """The values of codes; not finite where a damaged range leads out of float32."""
    levels = np.arange(np.iinfo(codes.dtype).max + 1)
    rows = codes.reshape(len(codes), -1)
    values = np.empty(rows.shape, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for index, (centre, spread, low, step) in enumerate(ranges.T.astype(np.float64)):
            table = (centre + spread * np.sinh(low + step * levels)).astype(np.float32)
            values[:, index] = table[rows[:, index]]
    return values.reshape(codes.shape)


def _halved(values: Floats) -> NDArray[np.float16] | Floats:
    """As float16 where they fit."""
    return values.astype(np.float16) if np.abs(values).max(initial=0) < np.finfo(np.float16).max else values


def _content(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The JSON object of the header."""
    if metadata.get("format") != FORMAT:
        raise DataError(f"{path}: a safetensors file, but none that anchorfield wrote as a model")
    if metadata.get("version") != VERSION:
        raise DataError(
            f"{path}: is of version {metadata.get('version', '?')[:20]}, this anchorfield reads version {VERSION}; use"
            " the one that wrote it"
        )
    try:
        content = json.loads(metadata["model"])
    except (KeyError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: its description is damaged ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: its description is no JSON object")
    return content


def _stored(path: Path, content: Mapping[str, Any], tensors: dict[str, Tensor]) -> Stored:
    """Everything checked and of its type."""
    try:
        stored = Stored(
            method=str(content["method"]),
            settings=dict(content["settings"]),
            tensors=tensors,
            source_from_world=np.array(content["source_from_world"], np.float64),
            background=tuple(float(value) for value in content["background"]),  # type: ignore[arg-type]
            step=int(content["step"]),
            seconds=float(content["seconds"]),
            downscale=int(content["downscale"]),
            split=str(content["split"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: its description is damaged ({type(error).__name__}: {error})") from error
    numbers = [*stored.source_from_world.ravel(), *stored.background, stored.seconds]
    if stored.source_from_world.shape != (4, 4) or len(stored.background) != 3 or not np.isfinite(numbers).all():
        raise DataError(f"{path}: its frame, background or time is not of finite numbers")
    if np.abs(stored.source_from_world).max() > _FARTHEST or stored.downscale < 1 or stored.step < 0:
        raise DataError(f"{path}: its frame, size or step is out of range")
    try:
        decomposed(stored.source_from_world)
    except ValueError as error:
        raise DataError(f"{path}: its frame is damaged: {error}") from error
    return stored


def _tensors(path: Path, file: Any, size: int) -> dict[str, Tensor]:
    """Every tensor of the model, as float32 or bytes."""
    kinds: dict[str, str] = {}
    for name in file.keys():  # noqa: SIM118 - not a mapping
        part = file.get_slice(name)
        kinds[name], shape = part.get_dtype(), part.get_shape()
        if kinds[name] not in _KINDS:
            raise DataError(f"{path}: '{name[:_LONGEST_NAME]}' is of type {kinds[name]}, expected {', '.join(_KINDS)}")
        empty = math.prod(shape) == 0  # then nothing in the file bounds the other axes
        if len(shape) > 4 or max(shape, default=1) > (MOST_COLUMNS if empty else size):
            raise DataError(f"{path}: '{name[:_LONGEST_NAME]}' has the shape {shape}, which makes no sense")
    found = {}
    for name in kinds:
        if name.endswith(BYTES) and kinds[name] == "U8":
            found[name.removesuffix(BYTES)] = torch.from_numpy(file.get_tensor(name))
        elif name.endswith(CODED) and kinds[name] == "U8" and kinds.get(name.removesuffix(CODED) + HISTOGRAM) == "F32":
            name = name.removesuffix(CODED)
            found[name] = torch.from_numpy(_decoded(path, file, name))
        elif not name.endswith((COLUMNS, HISTOGRAM)):
            values = _values(path, file, name, kinds)
            if not np.isfinite(values).all():
                raise DataError(f"{path}: '{name[:_LONGEST_NAME]}' holds numbers that are not finite; it is damaged")
            found[name] = torch.from_numpy(values)
    return found


def _decoded(path: Path, file: Any, name: str) -> Floats:
    """Whole numbers [R, C] of a stream."""
    stream, histogram = file.get_tensor(name + CODED), file.get_tensor(name + HISTOGRAM)
    try:
        if histogram.ndim != 1 or len(histogram) < 4 or not np.isfinite(histogram).all():
            raise ValueError("the histogram is damaged")
        rows, columns = (int(number) for number in histogram[:2])
        if not (0 <= rows <= 2**24 and 0 < columns <= MOST_COLUMNS):
            raise ValueError(f"{rows} x {columns} numbers make no sense")
        numbers = decoded(stream.ravel(), histogram[2:], rows * columns)
    except ValueError as error:
        raise DataError(f"{path}: '{name[:_LONGEST_NAME]}' cannot be decoded: {error}; export it again") from error
    return np.ascontiguousarray(numbers.reshape(columns, rows).T.astype(np.float32))


def _values(path: Path, file: Any, name: str, kinds: Mapping[str, str]) -> Floats:
    array = file.get_tensor(name)
    if kinds[name].startswith("F"):
        return np.asarray(array, np.float32)
    if kinds.get(name + COLUMNS) != "F32":
        raise DataError(f"{path}: '{name[:_LONGEST_NAME]}' is quantised, but its ranges are missing")
    ranges, columns = file.get_tensor(name + COLUMNS), array.size // max(1, len(array))
    if not array.size or ranges.shape != (4, columns) or columns > MOST_COLUMNS or not np.isfinite(ranges).all():
        raise DataError(
            f"{path}: expected finite ranges [4, {columns}] for '{name[:_LONGEST_NAME]}', got {list(ranges.shape)}"
        )
    return restored(array, ranges)
