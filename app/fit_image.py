"""Fit a picture by a hash grid field and tell how well: `anchorfield fit-image`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from anchorfield.app import files, machine
from anchorfield.app.pictures import STILLS, encoded, pixels
from anchorfield.renderer.encodings import HashEncoding
from anchorfield.renderer.errors import UsageError
from anchorfield.renderer.metrics import psnr
from anchorfield.renderer.picture_field import PictureField, fit_picture, picture_grid
from anchorfield.scenes import images

SHOW_EVERY = 0.5  # seconds


@dataclass(frozen=True)
class Fitted:
    """What came of it."""

    psnr: float  # dB, of the 8-bit picture's colours in [0, 1]
    steps: int
    seconds: float
    size_bytes: int  # of the field, two bytes a parameter


def fit_image(
    source: Path,
    out: Path,
    seconds: float = 20.0,
    size: int = 16,  # most rows of a level, as a power of two
    seed: int = 0,
    show: Callable[[float, str], None] | None = None,
) -> Fitted:
    """Learn the picture `source` for so many seconds and write what was learnt to `out`.

    Alpha is left out. Raises DataError for what is no picture, UsageError for settings that make no sense.
    """
    if not 0 < seconds < 1e6:
        raise UsageError(f"--seconds: expected more than 0, got {seconds!r}")
    if not 8 <= size <= 24:
        raise UsageError(f"--size: expected 8 to 24, got {size!r}")
    if out.suffix.lower() not in STILLS:
        raise UsageError(f"{out}: expected an ending of {', '.join(STILLS)}, got '{out.suffix}'")
    files.output_file(out)
    machine.single_torch_thread()
    picture = torch.from_numpy(images.decode(source)[..., :3].copy()).float() / 255
    height, width = picture.shape[:2]
    random = torch.Generator().manual_seed(seed)
    field = PictureField(HashEncoding(picture_grid(width, height, size), random), random)
    begin = shown = time.monotonic()
    steps = fit_picture(field, picture, random)
    for step, error in enumerate(steps, 1):
        now = time.monotonic()
        if show and now - shown > SHOW_EVERY:
            show(min(1.0, (now - begin) / seconds), f"step {step}, mean squared error {error:.2e}")
            shown = now
        if now - begin >= seconds:
            break
    spent = time.monotonic() - begin
    found = field.picture(width, height)
    files.write_atomically(out, encoded(pixels(found), out.suffix.lower()))
    return Fitted(psnr(found, picture), step, spent, field.size_bytes())
