"""Lens distortion is removed on load: every photograph becomes one of a pinhole camera of the same size.

The pinhole keeps the photo's principal point; its focal length grows by the least factor for which each of its pixels
sees the photo (no blank border). A lens that sees very far is cut to `1 / WIDEST` times the photo's focal length:
beyond that the middle of the image, where the detail is, would lose too many pixels.

A panorama (EQUIRECTANGULAR) sees in all directions: it becomes the six faces of a cube, each a pinhole image.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pycolmap
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from anchorfield.renderer.errors import DataError
from anchorfield.scenes.capture import Array
from anchorfield.scenes.images import AnyImage

WIDEST = 2.0
_ONE_MAP = np.empty(0, np.float32)  # tells OpenCV that x and y lie in one array
_LINEAR = ("SIMPLE_PINHOLE", "PINHOLE")
_PERSPECTIVE = ("SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV")  # pinholes when all their coefficients are 0


@dataclass(frozen=True)
class Pinhole:
    """Intrinsics of an undistorted image, in its pixels."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int


PANORAMA = "EQUIRECTANGULAR"


def cube_faces() -> dict[str, Array]:
    """Rotations [3, 3] `panorama_from_face` by name."""
    turns = {"front": (0, 0), "right": (0, 90), "back": (0, 180), "left": (0, -90), "up": (90, 0), "down": (-90, 0)}
    return {name: Rotation.from_euler("xy", degrees, degrees=True).as_matrix() for name, degrees in turns.items()}


def is_pinhole(lens: pycolmap.Camera) -> bool:
    """Whether the lens has no distortion at all."""
    name = lens.model.name
    return name in _LINEAR or (name in _PERSPECTIVE and not lens.params[lens.extra_params_idxs()].any())


def pinhole_of(lens: pycolmap.Camera, where: str) -> Pinhole:
    """The pinhole camera that replaces `lens`; of a panorama, that of one face."""
    if lens.model.name == PANORAMA:
        side = max(1, lens.width // 4)  # a face spans a quarter of the circle
        return Pinhole(side / 2, side / 2, side / 2, side / 2, side, side)
    exact = Pinhole(
        lens.focal_length_x,
        lens.focal_length_y,
        lens.principal_point_x,
        lens.principal_point_y,
        lens.width,
        lens.height,
    )
    if is_pinhole(lens):
        return exact
    zoom = _least_zoom(lens, exact)
    if zoom is None:
        raise DataError(f"{where}: no undistorted image fits into this lens ({lens.model.name} {lens.params.tolist()})")
    return _zoomed(exact, zoom)


def _least_zoom(lens: pycolmap.Camera, exact: Pinhole) -> float | None:
    """The smallest factor on the focal length whose image lies in the photo; None if even 8 is too small."""
    # In steps of 2 % and only then by bisection: a bisection from the start could land beyond a fold of the distortion
    # polynomial, where far rays come back into the photo.
    step, zoom = 1.02, 1.0
    while not _is_seen(lens, _zoomed(exact, zoom)):
        zoom *= step
        if zoom > 8:
            return None
    while zoom / step >= 1 / WIDEST and _is_seen(lens, _zoomed(exact, zoom / step)):
        zoom /= step
    narrow, wide = zoom, max(zoom / step, 1 / WIDEST)
    for _ in range(10):
        middle = (narrow + wide) / 2
        narrow, wide = (middle, wide) if _is_seen(lens, _zoomed(exact, middle)) else (narrow, middle)
    return narrow


def undistortion_grid(lens: pycolmap.Camera, pinhole: Pinhole, face: Array | None = None) -> Tensor:
    """Where each pixel of the pinhole image lies in the photo: float32 [H, W, 2], x and y in OpenCV's pixel indices.

    `face` [3, 3] turns the pinhole's rays into the lens's, for the faces of a panorama.
    """
    grid = np.empty((pinhole.height, pinhole.width, 2), dtype=np.float32)
    columns = (np.arange(pinhole.width) + 0.5 - pinhole.cx) / pinhole.fx
    rows = (np.arange(pinhole.height) + 0.5 - pinhole.cy) / pinhole.fy
    for top in range(0, pinhole.height, 64):  # in bands: rays are doubles, a large photo would need gigabytes
        x, y = np.meshgrid(columns, rows[top : top + 64])
        rays = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3)
        if face is not None:
            rays = rays @ face.T
        grid[top : top + 64] = lens.img_from_cam(rays, check_cheirality=face is None).reshape(*x.shape, 2) - 0.5
    return torch.from_numpy(grid)


def warp(image: AnyImage, grid: Tensor, interpolation: int = cv2.INTER_CUBIC, wraps: bool = False) -> AnyImage:
    """The image sampled at the grid; beyond the border the nearest pixel repeats, or the image where it `wraps`."""
    border = cv2.BORDER_WRAP if wraps else cv2.BORDER_REPLICATE
    return np.asarray(cv2.remap(image, grid.numpy(), _ONE_MAP, interpolation, borderMode=border))


def _zoomed(pinhole: Pinhole, zoom: float) -> Pinhole:
    return Pinhole(pinhole.fx * zoom, pinhole.fy * zoom, pinhole.cx, pinhole.cy, pinhole.width, pinhole.height)


def _is_seen(lens: pycolmap.Camera, pinhole: Pinhole) -> bool:
    """Whether the pinhole image falls inside the photo, on the side of the distortion that can be inverted."""
    x, y = (mesh.ravel() for mesh in np.meshgrid(np.linspace(0, pinhole.width, 25), np.linspace(0, pinhole.height, 25)))
    rays = np.stack([(x - pinhole.cx) / pinhole.fx, (y - pinhole.cy) / pinhole.fy, np.ones_like(x)], -1).reshape(-1, 3)
    seen: Array = np.asarray(lens.img_from_cam(rays))
    inside = (seen >= 0).all() and (seen[:, 0] <= lens.width).all() and (seen[:, 1] <= lens.height).all()
    return bool(inside) and bool(np.allclose(np.asarray(lens.cam_from_img(seen)), rays[:, :2], rtol=1e-4, atol=1e-4))
