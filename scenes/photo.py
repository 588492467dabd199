"""From an image file to the pixels of a view: decode, undistort at full size, then average down to the view's size.

Averaging comes last, and colours are weighted by their alpha, so that nothing aliases and no colour of a transparent
pixel leaks into its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import torch
from numpy.typing import NDArray
from torch import Tensor

from anchorfield.renderer.errors import DataError
from anchorfield.scenes.cache import TensorCache
from anchorfield.scenes.capture import Array
from anchorfield.scenes.images import AnyImage, Pixels, decode, decode_depth, decode_mask
from anchorfield.scenes.undistort import Pinhole, is_pinhole, undistortion_grid, warp


@dataclass(frozen=True)
class Photo:
    """How the images of one view are made; all of them go through the scene's cache."""

    name: str  # of the view; the views of a panorama share its file
    path: Path
    lens: pycolmap.Camera  # in the pixels of the file
    pinhole: Pinhole  # the undistorted camera, in the pixels of the file
    width: int  # of the view
    height: int
    cache: TensorCache
    mask_path: Path | None = None
    depth_path: Path | None = None
    depth_scale: float = 1.0  # scene units per stored depth step
    face: Array | None = None  # [3, 3] panorama_from_face, of a face of a panorama

    def pixels(self) -> Tensor:
        """uint8 [height, width, 3 or 4]."""
        return self.cache.get(("image", self.name), self._make_pixels)

    def pixels_at(self, width: int, height: int) -> Tensor:
        """uint8 [height, width, 3 or 4] at another size, decoded anew."""
        return replace(self, width=width, height=height)._make_pixels()

    def mask(self) -> Tensor:
        """bool [height, width]: True where every pixel of the file that falls into it counts."""
        return self.cache.get(("mask", self.name), self._make_mask)

    def depth(self) -> Tensor:
        """float32 [height, width] in scene units, 0 where unknown."""
        return self.cache.get(("depth", self.name), self._make_depth)

    def _make_pixels(self) -> Tensor:
        pixels = decode(self.path)
        _check_size(self.path, pixels, self.lens)
        averaged = self._averaged(_premultiplied(pixels) if pixels.shape[-1] == 4 else pixels)
        return torch.from_numpy(_straight(averaged) if pixels.shape[-1] == 4 else averaged)

    def _averaged(self, image: AnyImage) -> AnyImage:
        if not is_pinhole(self.lens):
            image = warp(image, self._grid(), wraps=self.face is not None)
        if image.shape[:2] == (self.height, self.width):
            return image
        return np.asarray(cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_AREA))

    def _make_mask(self) -> Tensor:
        assert self.mask_path is not None
        keep = decode_mask(self.mask_path).astype(np.float32)
        _check_size(self.mask_path, keep, self.lens)
        share = self._averaged(keep)
        return torch.from_numpy(share >= 0.999)

    def _make_depth(self) -> Tensor:
        assert self.depth_path is not None
        depth: AnyImage = decode_depth(self.depth_path)
        height, width = depth.shape
        if not is_pinhole(self.lens):
            _check_size(self.depth_path, depth, self.lens)
            depth = warp(depth, self._grid(), cv2.INTER_NEAREST)
        if abs(width * self.height - height * self.width) > max(width, height):
            raise DataError(f"{self.depth_path}: {width} x {height} is not the shape of its photo {self.path.name}")
        # Nearest: an average over a depth edge is a depth at which nothing is.
        depth = cv2.resize(depth, (self.width, self.height), interpolation=cv2.INTER_NEAREST)
        return torch.from_numpy(np.asarray(depth, dtype=np.float32)) * self.depth_scale

    def _grid(self) -> Tensor:
        key = ("grid", self.lens.model.name, self.lens.width, self.lens.height, tuple(self.lens.params))
        face = None if self.face is None else self.face.tobytes()
        return self.cache.get((*key, face), lambda: undistortion_grid(self.lens, self.pinhole, self.face))


def _premultiplied(pixels: Pixels) -> NDArray[np.float32]:
    values = pixels.astype(np.float32)
    values[..., :3] *= values[..., 3:] / 255
    return values


def _straight(values: AnyImage) -> Pixels:
    straight = np.clip(values.astype(np.float32), 0, 255)  # cubic sampling overshoots
    straight[..., :3] *= 255 / np.maximum(straight[..., 3:], 1e-3)
    return np.clip(np.rint(straight), 0, 255).astype(np.uint8)


def _check_size(path: Path, image: AnyImage, lens: pycolmap.Camera) -> None:
    if image.shape[:2] != (lens.height, lens.width):
        raise DataError(
            f"{path}: expected {lens.width} x {lens.height} pixels as its camera says, got {image.shape[1]} x"
            f" {image.shape[0]}; was the file changed after loading?"
        )
