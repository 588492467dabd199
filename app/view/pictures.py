"""What a view can show besides colour: frames of a document, by mode, and their pixels.

Depth and the error have colours of their own scale; normals are those of the depth, in the camera's axes; a count is of
the Gaussians that a pixel blends. The error of a view that no photograph was taken from is that of the nearest one,
whose pixels are carried into the view by the model's depth; what it did not see stays grey.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from anchorfield.app.pictures import Pixels, pixels
from anchorfield.methods import HasGaussians, HasStrips
from anchorfield.renderer.cameras import Camera, rays
from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.renderer.strips import blend_counts, splat_strips
from anchorfield.renderer.types import Frame, Gaussians
from anchorfield.scenes.scene import Scene

if TYPE_CHECKING:
    from anchorfield.methods import Model

Mode = Literal["rgb", "depth", "normal", "alpha", "error", "count"]
MODES: tuple[Mode, ...] = get_args(Mode)

LARGE = 300_000  # pixels from which a picture is drawn in strips
STRIPS = 4
WORST = 0.25  # mean difference of the channels that has the last colour
NOT_SEEN = 90  # grey of what has no error
SAME_SURFACE = 0.05  # relative difference of depths that still are one surface

# From dark to bright through blue, green and yellow: evenly rising lightness, told apart without red and green.
_STOPS = [(18, 10, 60), (46, 42, 140), (38, 92, 166), (30, 138, 150), (62, 178, 112), (166, 206, 66), (252, 240, 120)]
COLOURS = np.stack(
    [np.interp(np.linspace(0, 1, 256), np.linspace(0, 1, len(_STOPS)), column) for column in zip(*_STOPS, strict=True)],
    1,
).astype(np.uint8)


PHOTOGRAPH = "photograph"
"""The name of the nearest photograph where it stands beside a source."""


@dataclass(frozen=True)
class Split:
    """Two sources on one camera, side by side behind a line or as their difference."""

    left: str
    right: str = PHOTOGRAPH
    at: float = 0.5  # of the width, where the right one begins
    difference: bool = False


@dataclass(frozen=True)
class Look:
    """How a client wants to see the scene."""

    mode: Mode = "rgb"
    split: Split | None = None
    depth: bool = False  # send the depth along, where the page can hide its own things behind it
    in_browser: bool = False  # let browsers draw that have a graphics processor


class Edits(Protocol):
    """Who has the Gaussians as edited."""

    def shown(self) -> Gaussians:
        """Those that are to be seen."""
        ...


class Shown(Protocol):
    """What pictures are made of: the open document."""

    @property
    def model(self) -> Model | None:
        """The model that is shown where nothing was edited."""
        ...

    @property
    def scene(self) -> Scene | None:
        """The photographs."""
        ...

    @property
    def edited(self) -> bool:
        """Whether the editor's Gaussians are shown instead of the model."""
        ...

    @property
    def editor(self) -> Edits | None:
        """Who has them."""
        ...

    @property
    def background(self) -> Tensor:
        """The colour behind the Gaussians, [3]."""
        ...

    def draw(self, camera: Camera) -> Frame:
        """The view from `camera`."""
        ...


class Pictures:
    """Draws and paints what a document shows; for a broker."""

    def __init__(self, shown: Shown):
        self.shown = shown
        self._photos: dict[tuple[int, int, int], Tensor] = {}  # by view and size
        self._lock = threading.Lock()

    def draw(self, camera: Camera, look: Look) -> Frame | Iterable[Frame]:
        """A frame, or its strips where the picture is large, with what the mode needs in its extras."""
        if look.mode == "count":
            return self._counted(camera)
        if look.mode == "error":
            return self.beside_photograph(camera)
        model = None if self.shown.edited else self.shown.model
        if isinstance(model, HasStrips):
            return model.strips(camera, _rows(camera))
        gaussians = self.gaussians(camera) if camera.width * camera.height >= LARGE else None
        if gaussians is None:
            return self.shown.draw(camera)
        return splat_strips(gaussians, camera, self.shown.background, _rows(camera))

    def paint(self, frame: Frame, camera: Camera, look: Look) -> Pixels:
        """The pixels of a whole frame."""
        return painted(frame, camera, look)

    def gaussians(self, camera: Camera) -> Gaussians | None:
        """What is drawn as Gaussians; None where it is not made of them."""
        if self.shown.edited:
            editor = self.shown.editor
            return editor.shown() if editor else None
        model = self.shown.model
        return model.gaussians(camera) if isinstance(model, HasGaussians) else None

    def _counted(self, camera: Camera) -> Iterator[Frame]:
        gaussians = self.gaussians(camera)
        if gaussians is None:
            raise UsageError("counts are of Gaussians, and what is open has none: choose another mode")
        for counts in blend_counts(gaussians, camera, _rows(camera)):
            nothing = torch.zeros(counts.shape)
            yield Frame(nothing[..., None].expand(-1, -1, 3), nothing, nothing, {"count": counts})

    def beside_photograph(self, camera: Camera) -> Frame:
        """The frame with the nearest photograph as seen from here, and where it saw what is here."""
        scene = self.shown.scene
        if scene is None:
            raise DataError("there are no photographs to compare with: choose another mode")
        frame = self.shown.draw(camera)
        index = nearest(camera, scene)
        view = scene.views[index].camera
        scale = min(1.0, math.sqrt(LARGE / (view.width * view.height)))
        small = view.resized(max(1, round(view.width * scale)), max(1, round(view.height * scale)))
        reference = self.shown.draw(small) if not same_place(camera, view) else None
        photo, seen = carried(self._photo(scene, index), view, camera, frame, reference)
        return replace(frame, extras={**frame.extras, "photo": photo, "seen": seen})

    def _photo(self, scene: Scene, index: int) -> Tensor:
        key = id(scene), index, 0
        with self._lock:
            if key not in self._photos:
                self._photos.clear()  # one is enough: views stay near one photograph
                self._photos[key] = scene.photo(index)
            return self._photos[key]


def _rows(camera: Camera) -> int:
    return max(16, -(-camera.height // STRIPS) // 16 * 16)


def nearest(camera: Camera, scene: Scene) -> int:
    """The view that looks most like `camera`: by distance, and by the angle between the two axes."""

    def far(other: Camera) -> float:
        apart = float((other.centre - camera.centre).norm())
        return apart + 1 - float(other.world_to_camera[2, :3] @ camera.world_to_camera[2, :3])

    return min(range(len(scene.views)), key=lambda index: far(scene.views[index].camera))


def same_place(first: Camera, second: Camera) -> bool:
    """Whether two cameras stand and look alike, whatever their lenses."""
    return bool((first.world_to_camera - second.world_to_camera)[:3].abs().max() < 1e-4)


def carried(
    photo: Tensor,  # [h, w, 3]
    photographer: Camera,
    camera: Camera,
    frame: Frame,  # of `camera`
    reference: Frame | None,  # of `photographer`, any size: what it cannot see; None where both stand alike
) -> tuple[Tensor, Tensor]:
    """The photograph's pixels where `camera` sees the same points, [H, W, 3], and where it does, bool [H, W]."""
    points = _points(frame.depth, camera)
    local = points @ _relative(camera, photographer)[:3, :3].T + _relative(camera, photographer)[:3, 3]
    z = local[..., 2].clamp_min(1e-6)
    x = (photographer.fx * local[..., 0] / z + photographer.cx) / photographer.width
    y = (photographer.fy * local[..., 1] / z + photographer.cy) / photographer.height
    grid = torch.stack([x, y], -1)[None] * 2 - 1
    seen = (frame.alpha > 0.5) & (local[..., 2] > 1e-3) & (grid[0].abs() <= 1).all(-1)
    found = grid_sample(photo.permute(2, 0, 1)[None], grid, align_corners=False, padding_mode="border")[0]
    if reference is not None:
        first = grid_sample(reference.depth[None, None], grid, align_corners=False, padding_mode="border")[0, 0]
        seen = seen & ((first - local[..., 2]).abs() < SAME_SURFACE * z)
    return found.permute(1, 2, 0), seen


def _relative(camera: Camera, other: Camera) -> Tensor:
    """From one camera's axes to the other's, [4, 4]."""
    return other.world_to_camera @ camera.camera_to_world


def _points(depth: Tensor, camera: Camera) -> Tensor:
    """What each pixel sees in the camera's axes, [H, W, 3]."""
    return rays(camera) * depth[..., None]


def normals(frame: Frame, camera: Camera) -> Tensor:
    """Unit normals of the depth's surface in the camera's axes, towards the camera, [H, W, 3]; 0 where it has none."""
    points = _points(frame.depth, camera)
    across, down = torch.zeros_like(points), torch.zeros_like(points)
    across[:, 1:-1] = points[:, 2:] - points[:, :-2]
    down[1:-1] = points[2:] - points[:-2]
    normal = torch.linalg.cross(down, across)
    normal = normal / normal.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    normal = torch.where((normal * points).sum(-1, keepdim=True) > 0, -normal, normal)
    return torch.where(frame.alpha[..., None] > 0.5, normal, 0)


def coloured(values: Tensor) -> Pixels:
    """[H, W] in [0, 1] on the scale of colours."""
    found: Pixels = COLOURS[(values.clamp(0, 1) * 255).round().byte().cpu().numpy()]
    return found


@torch.no_grad()
def painted(frame: Frame, camera: Camera, look: Look) -> Pixels:
    """The pixels that `look` asks for."""
    if look.mode == "depth":
        return _painted_depth(frame)
    if look.mode == "normal":
        return pixels(torch.where(frame.alpha[..., None] > 0.5, 0.5 + 0.5 * _outwards(normals(frame, camera)), 0))
    if look.mode == "alpha":
        return pixels(frame.alpha[..., None].expand(-1, -1, 3))
    if look.mode == "error":
        error = coloured((frame.rgb - frame.extras["photo"]).abs().mean(-1) / WORST)
        error[~frame.extras["seen"].cpu().numpy()] = NOT_SEEN
        return error
    if look.mode == "count":
        counts = frame.extras["count"].float()
        return coloured(
            counts / max(1.0, float(torch.quantile(counts.flatten()[:: max(1, counts.numel() // 10_000)], 0.99)))
        )
    return pixels(frame.rgb)


def _painted_depth(frame: Frame) -> Pixels:
    """Near is bright: colours are even in 1 / depth, between the nearest and the farthest hundredth."""
    there = frame.alpha > 0.5
    near = 1 / frame.depth.clamp_min(1e-6)
    some = near[there][:: max(1, int(there.sum()) // 10_000)]
    if not len(some):
        return np.zeros((*there.shape, 3), np.uint8)
    low, high = (float(torch.quantile(some, share)) for share in (0.01, 0.99))
    painted = coloured((near - low) / max(high - low, 1e-9))
    painted[~there.cpu().numpy()] = 0
    return painted


def _outwards(normal: Tensor) -> Tensor:
    """Axes as people colour them: x right, y up, z towards the eye."""
    return normal * normal.new_tensor([1.0, -1.0, -1.0])
