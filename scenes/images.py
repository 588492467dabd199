"""Image files become 8-bit arrays: RGB, or RGBA with straight alpha.

Pixels stay in the order in which they are stored: camera poses refer to stored pixels, so the orientation tag that
phones write is not applied.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from anchorfield.renderer.errors import DataError

Pixels = NDArray[np.uint8]
AnyImage = NDArray[np.integer[Any] | np.floating[Any]]  # any numeric image

_WITH_ALPHA = {"RGBA", "RGBa", "LA", "La", "PA"}
_SIXTEEN_BIT = {"I;16", "I;16L", "I;16B", "I;16N", "I"}
_EIGHT_BIT = {"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"} | _WITH_ALPHA
_READ_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
# PIL throws SyntaxError and ValueError at damaged PNG chunks.


@dataclass(frozen=True)
class Header:
    """What an image file says of itself before its pixels are read."""

    width: int
    height: int
    alpha: bool


def read_header(path: Path) -> Header:
    """Size and kind of an image, without decoding it."""
    with _opened(path) as image:
        if image.mode not in _EIGHT_BIT | _SIXTEEN_BIT:
            raise DataError(f"{path}: pixels of kind {image.mode!r} cannot be used; save the photo as 8- or 16-bit RGB")
        return Header(image.width, image.height, _has_alpha(image))


def decode(path: Path) -> Pixels:
    """The pixels of an image, uint8 [H, W, 3] or [H, W, 4]; grey, palette, CMYK and 16-bit images are converted."""
    with _opened(path) as image:
        try:
            if image.mode in _SIXTEEN_BIT:
                return _from_sixteen_bit(np.asarray(image), path)
            return np.array(image.convert("RGBA" if _has_alpha(image) else "RGB"))
        except _READ_ERRORS as error:
            raise DataError(f"{path}: the image is damaged ({_one_line(error)}); replace it or remove it") from error


def decode_mask(path: Path) -> NDArray[np.bool_]:
    """A mask, bool [H, W]: True where the image is white (or opaque, where it has alpha)."""
    pixels = decode(path)
    return np.asarray(pixels[..., -1 if pixels.shape[-1] == 4 else 0] > 127)


def decode_depth(path: Path) -> NDArray[np.float32]:
    """A depth map as stored (16-bit image or .npy), float32 [H, W]; what is not finite or negative becomes 0."""
    try:
        if path.suffix == ".npy":
            depth: Any = np.load(path, allow_pickle=False)
        else:
            depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: the depth map cannot be read ({_one_line(error)})") from error
    depth = np.asarray(depth if depth is not None else [])
    if depth.ndim == 3 and depth.shape[2] == 1:
        depth = depth[..., 0]
    if depth.ndim != 2 or not np.issubdtype(depth.dtype, np.number):
        raise DataError(f"{path}: expected a depth map with one channel, got shape {depth.shape} of {depth.dtype}")
    depth = depth.astype(np.float32)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def _opened(path: Path) -> Image.Image:
    """A lazily read image; errors name the file."""
    try:
        return Image.open(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: the image does not exist") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: no known image format (or an empty file); replace it or remove it") from error
    except _READ_ERRORS as error:
        raise DataError(f"{path}: the image cannot be read ({_one_line(error)})") from error


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in _WITH_ALPHA or "transparency" in image.info


def _from_sixteen_bit(values: NDArray[Any], path: Path) -> Pixels:
    """Grey values 0..65535 as RGB; PIL's own conversion would clip them at 255."""
    if values.min() < 0 or values.max() > 65535:
        raise DataError(f"{path}: grey values must lie in 0..65535, got {values.min()}..{values.max()}")
    grey = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def _one_line(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error)) or type(error).__name__
