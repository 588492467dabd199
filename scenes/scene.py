"""What a capture becomes: views with lazy images, points, a split, and the way back to the capture's own frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anchorfield.cuda_ext.pixels import colours_of_pixels
from anchorfield.renderer.cameras import Camera


@dataclass(frozen=True)
class View:
    """One photograph with its camera; pixels are decoded when asked for and kept in the scene's bounded cache."""

    name: str
    camera: Camera  # undistorted, at the scene's resolution
    load: Callable[[], Tensor]  # uint8 [H, W, 3], or [H, W, 4] where the capture has alpha
    load_mask: Callable[[], Tensor] | None = None  # bool [H, W], True where pixels count
    load_depth: Callable[[], Tensor] | None = None  # float32 [H, W] along z in scene units, 0 where unknown
    load_at: Callable[[int, int], Tensor] | None = None  # `load` at another width and height, not kept
    photo_size: tuple[int, int] = (
        0,
        0,
    )  # width, height of the undistorted photograph, the most that `load_at` can give


@dataclass(frozen=True)
class Points:
    """A sparse point cloud in the scene's frame."""

    xyz: NDArray[np.float32]  # [N, 3]
    rgb: NDArray[np.uint8]  # [N, 3]


@dataclass(frozen=True)
class Scene:
    """A capture ready for training."""

    name: str
    path: Path
    views: tuple[View, ...]
    train: tuple[int, ...]  # indices into views
    test: tuple[int, ...]
    points: Points | None
    source_from_world: NDArray[np.float64]  # [4, 4] similarity from the training frame to the capture's own frame
    downscale: int = 1
    background: tuple[float, float, float] = (0.0, 0.0, 0.0)  # behind transparent pixels, in renders and ground truth
    warnings: tuple[str, ...] = field(default=())

    def photo(self, index: int, reduction: int = 1) -> Tensor:
        """View `index`'s photograph, float32 [H, W, 3] in [0, 1], over the scene's background where it has alpha.

        With a reduction r, [H // r, W // r, 3], the means of r x r pixels.
        """
        return colours_of_pixels(
            self.views[index].load(), torch.tensor(self.background, dtype=torch.float32), reduction
        )


def in_frame(scene: Scene, source_from_world: NDArray[np.float64]) -> Scene:
    """The scene for a model of another training frame: its cameras there, without points and depth maps."""
    change = np.linalg.inv(source_from_world) @ scene.source_from_world
    if np.allclose(change, np.eye(4), rtol=0, atol=1e-6):
        return scene
    scale = np.cbrt(np.linalg.det(change[:3, :3]))
    views = []
    for view in scene.views:
        pose = change @ view.camera.camera_to_world.double().numpy()
        pose[:3, :3] /= scale  # cameras keep unit axes
        seen_from = torch.from_numpy(np.linalg.inv(pose)).float()
        camera = replace(view.camera, world_to_camera=seen_from, near=view.camera.near * float(scale))
        views.append(replace(view, camera=camera, load_depth=None))
    return replace(scene, views=tuple(views), points=None, source_from_world=source_from_world)
