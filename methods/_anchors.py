"""What anchor methods share: the model, and where anchors start.

Anchors are fixed points on a grid. Small perceptrons decode each into a few Gaussians for the camera at hand (Lu et al.
2024, Scaffold-GS).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, Protocol, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anchorfield.cuda_ext.anchors import Decoded, Heads, decode_anchors
from anchorfield.methods._baking import baked, refined
from anchorfield.methods._levels import shown
from anchorfield.methods._method import Fit, Model
from anchorfield.methods._splats import squared_spacing
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import DataError
from anchorfield.renderer.splatting import Splats, anchors_in_view, as_gaussians, splat_decoded
from anchorfield.renderer.types import Frame, Gaussians
from anchorfield.scenes.scene import Scene

OUTPUTS = {"opacity": 1, "covariance": 7, "colour": 3}  # of each head, for every offset
ROWS = ("features", "offsets", "log_scales")  # parameters with a row for every anchor
MOST_VIEWS = 64  # cameras that a model keeps, to bake what it shows
HIDDEN = 32  # units of a hidden layer
FIRST_OPACITY = 0.1  # of every other offset; the rest begin as far below zero, in reserve


class DecodingHeads(nn.Module):
    """The weights of the heads that decode anchors; `forward` puts them side by side as the kernel reads them."""

    def __init__(self, features: int, offsets: int, *, layers: int, distance: bool, appearance: int):
        super().__init__()
        self.offsets, self.layers, self.distance = offsets, layers, distance
        for name, outputs in OUTPUTS.items():
            self._add(f"{name}_hidden", HIDDEN, features + 3 + distance)
            if layers == 2:
                self._add(f"{name}_middle", HIDDEN, HIDDEN)
            self._add(name, outputs * offsets, HIDDEN)
        # An offset that begins without opacity passes no gradient and may never be seen: by chance nearly all would.
        with torch.no_grad():
            self.get_parameter("opacity_bias").fill_(FIRST_OPACITY)[1::2] *= -1
        if appearance:
            self.register_parameter("appearance", nn.Parameter(_uniform(HIDDEN, appearance)))

    def _add(self, name: str, outputs: int, inputs: int) -> None:
        self.register_parameter(name, nn.Parameter(_uniform(outputs, inputs)))
        self.register_parameter(f"{name}_bias", nn.Parameter(_uniform(outputs, inputs)[:, 0].contiguous()))

    def forward(self, code: Tensor | None = None) -> Heads:  # [A]
        """The heads; an image's appearance code moves the hidden layer of the colours."""
        weights = dict(self.named_parameters())
        names = list(OUTPUTS)
        hidden_parts: list[Tensor] = [weights[f"{name}_hidden"] for name in names]
        hidden = torch.cat(hidden_parts)
        if not self.distance:
            hidden = nn.functional.pad(hidden, (0, 1))
        biases: list[Tensor] = [weights[f"{name}_hidden_bias"] for name in names]
        if code is not None:
            biases[2] = biases[2] + weights["appearance"] @ code
        middle = middle_bias = None
        if self.layers == 2:
            middle = torch.stack([weights[f"{name}_middle"] for name in names])
            middle_bias = torch.stack([weights[f"{name}_middle_bias"] for name in names])
        last = [weights[f"{name}{suffix}"] for name in names for suffix in ("", "_bias")]
        return Heads(hidden, torch.cat(biases), middle, middle_bias, *last)


class FeatureBank(nn.Module):
    """Features at three resolutions, mixed by direction and distance (Lu et al. 2024, equation 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Linear(4, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 3), nn.Softmax(dim=1))

    def forward(self, features: Tensor, anchors: Tensor, centre: Tensor) -> Tensor:
        """Features [N, D] as they look from `centre`; D is a multiple of four."""
        offset = anchors - centre
        distance = offset.norm(dim=1, keepdim=True)
        fine, middle, coarse = self.mix(torch.cat([offset / distance, distance], 1)).unsqueeze(2).unbind(1)
        mixed: Tensor = (
            fine * features + middle * features[:, ::2].repeat(1, 2) + coarse * features[:, ::4].repeat(1, 4)
        )
        return mixed


class Described(NamedTuple):
    """What the heads decode: points with what is known of them before a camera is."""

    anchors: Tensor  # [N, 3]
    features: Tensor  # [N, D]
    offsets: Tensor  # [N, k, 3]
    log_scales: Tensor  # [N, 6]
    shared: Tensor | None = None  # [S] further features, of all points


class Structure(Protocol):
    """Describes anchors by more than their own rows."""

    def connect(self, anchors: Tensor) -> None:
        """Learn where the anchors are; called whenever some came or went."""
        ...

    def parents(self) -> Tensor | None:
        """The two anchors [P, 2] that each decoded point lies between; None where the points are the anchors."""
        ...

    def __call__(self, anchors: Tensor, features: Tensor, log_scales: Tensor) -> Described:
        """All that is decoded; the anchors themselves come first."""
        ...


class AnchorModel(Model):
    """Anchors and the heads that decode them, over a constant background."""

    anchors: Tensor  # [N, 3]
    background: Tensor  # [3]
    views: Tensor  # [C, 22] training cameras: poses row by row, then fx, fy, cx, cy, width, height
    levels: Tensor | None  # [N] level of detail of each anchor, whole numbers
    detail: Tensor | None  # [2] what `shown` wants to know of the levels
    features: nn.Parameter  # [N, D]
    offsets: nn.Parameter  # [N, k, 3], unless a structure gives them
    log_scales: nn.Parameter  # [N, 6] of the offsets, then of the Gaussians

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        heads: DecodingHeads,
        *,
        structure: nn.Module | None = None,
        bank: FeatureBank | None = None,
        codes: Tensor | None = None,
        fading: bool = True,
    ):
        super().__init__()
        for name in ("anchors", "background", "views"):
            self.register_buffer(name, tensors[name])
        for name in ("levels", "detail"):
            self.register_buffer(name, tensors.get(name))
        self.fading = fading  # of levels of detail
        for name in ROWS:
            if name in tensors:
                self.register_parameter(name, nn.Parameter(tensors[name].contiguous()))
        self.heads, self.structure, self.bank = heads, structure, bank
        self.codes = None if codes is None else nn.Parameter(codes)  # [T, A] the appearance of training images
        self._still: tuple[Described, Heads] | None = None  # what evaluation need not compute again
        self.connect()

    def connect(self) -> None:
        """Tell the structure where the anchors are."""
        if self.structure is not None:
            cast("Structure", self.structure).connect(self.anchors)

    def described(self) -> Described:
        """All that is decoded; the anchors themselves come first."""
        if self.structure is not None:
            return cast("Structure", self.structure)(self.anchors, self.features, self.log_scales)
        return Described(self.anchors, self.features, self.offsets, self.log_scales)

    def parents(self) -> Tensor | None:
        """The two anchors [P, 2] that each decoded point lies between; None where the points are the anchors."""
        return None if self.structure is None else cast("Structure", self.structure).parents()

    def owners(self, seen: Tensor) -> Tensor:
        """Which anchors, bool [N], the points `seen`, bool [P], are made of."""
        parents = self.parents()
        if parents is None:
            return seen
        owners = torch.zeros(len(self.anchors), dtype=torch.bool)
        owners[parents[seen].flatten()] = True
        return owners

    def decoded(
        self, camera: Camera, image: int | None = None, *, drop: float = 0.0, random: torch.Generator | None = None
    ) -> tuple[Tensor, Decoded]:
        """Which points the camera may see, bool [N], and their Gaussians; `image` is a place in the training split.

        A view that was not trained on has the mean appearance. By chance a share `drop` of the points has no Gaussians,
        and the opacity of the others makes up for it.
        """
        described, heads = self._prepared(image)
        fade = self._fade(described, camera)
        seen = _in_view(described, camera, fade)
        chosen = seen
        if drop:
            chosen = seen & (torch.rand(len(seen), generator=random) >= drop)
            fade = torch.full((len(seen),), 1 / (1 - drop)) if fade is None else fade / (1 - drop)
        return seen, self._decode(described, heads, camera, torch.nonzero(chosen).squeeze(1).int(), fade)

    @torch.no_grad()
    def _fade(self, described: Described, camera: Camera) -> Tensor | None:
        """How much of each point the camera is shown, [P]; None without levels of detail."""
        if self.levels is None or self.detail is None:
            return None
        parents = self.parents()
        levels = self.levels if parents is None else self.levels[parents].amax(1)
        return shown(described.anchors, levels, self.detail, camera, self.fading)

    def _prepared(self, image: int | None = None) -> tuple[Described, Heads]:
        """Points and heads; in evaluation with what features add to the hidden layer, so that frames need not."""
        if not self.training and self._still is not None:
            return self._still
        described = self.described()
        code = None
        if self.codes is not None:
            code = self.codes.mean(0) if image is None else self.codes[image]
        heads = self.heads(code)
        if described.shared is not None:
            heads = _knowing(heads, described.features.shape[1], described.shared)
        if self.training or self.bank is not None:
            return described, heads
        width = described.features.shape[1]
        known = described.features @ heads.hidden[:, :width].T + heads.hidden_bias
        heads = heads._replace(hidden=heads.hidden[:, width:].contiguous(), hidden_bias=known)
        self._still = described._replace(features=described.features[:, :0], shared=None), heads
        return self._still

    def _decode(self, described: Described, heads: Heads, camera: Camera, rows: Tensor, fade: Tensor | None) -> Decoded:
        anchors, features, offsets, log_scales, _ = described
        if self.bank is not None:
            features = self.bank(features, anchors, camera.centre)
        return decode_anchors(anchors, features, offsets, log_scales, heads, camera.centre, rows, fade)

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation, which keeps what does not change."""
        self._still = None
        return super().train(mode)

    def splatted(self, decoded: Decoded, camera: Camera, *, depth: bool = True) -> Splats:
        """The view of decoded Gaussians; with levels of detail none is shown as larger than it is from far away."""
        antialiased = self.levels is not None
        return splat_decoded(decoded, camera, self.background, depth=depth, antialiased=antialiased)

    @torch.no_grad()
    def render(self, camera: Camera) -> Frame:
        """The view from `camera` over the model's background."""
        return self.splatted(self.decoded(camera)[1], camera).frame()

    @torch.no_grad()
    def gaussians(self, camera: Camera | None = None) -> Gaussians:
        """Detached Gaussians in the training frame as `camera` sees them, or as the training cameras do together."""
        if camera is not None:
            return as_gaussians(self.decoded(camera)[1], self.levels is not None)
        described, heads = self._prepared()

        def in_view(view: Camera) -> Tensor:
            return _in_view(described, view, self._fade(described, view))

        def decode(view: Camera, rows: Tensor) -> Decoded:
            return self._decode(described, heads, view, rows, self._fade(described, view))

        cameras = [_camera(row) for row in self.views]
        count, offsets = described.offsets.shape[:2]
        start = baked(count, offsets, cameras, in_view, decode)
        return refined(start, cameras, lambda view: self.render(view).rgb, self.background)


@torch.no_grad()
def _in_view(described: Described, camera: Camera, fade: Tensor | None) -> Tensor:
    """Which points, bool [P], are within the camera's view and as coarse as it needs."""
    seen = anchors_in_view(described.anchors, described.log_scales[:, :3], camera)
    return seen if fade is None else seen & (fade > 0)


def _knowing(heads: Heads, width: int, shared: Tensor) -> Heads:
    """Heads that need not be given the features [S] that follow the first `width` and are the same everywhere."""
    own, known, view = heads.hidden.split([width, len(shared), heads.hidden.shape[1] - width - len(shared)], 1)
    return heads._replace(hidden=torch.cat([own, view], 1), hidden_bias=heads.hidden_bias + known @ shared)


def views_of(scene: Scene) -> Tensor:
    """At most 64 training cameras, evenly taken, as a model keeps them."""
    chosen = scene.train[:: -(-len(scene.train) // MOST_VIEWS)]
    cameras = [scene.views[index].camera for index in chosen]
    return torch.stack(
        [
            torch.cat([c.world_to_camera.flatten(), torch.tensor([c.fx, c.fy, c.cx, c.cy, c.width, c.height])])
            for c in cameras
        ]
    )


def _camera(row: Tensor) -> Camera:
    fx, fy, cx, cy, width, height = row[16:].tolist()
    return Camera(row[:16].reshape(4, 4), fx, fy, cx, cy, int(width), int(height))


def restored(tensors: Mapping[str, Tensor], build: Callable[[Mapping[str, Tensor], int], AnchorModel]) -> AnchorModel:
    """The model of a checkpoint's "model" entry; `build` makes one of its anchors and number of training images."""
    missing = [name for name in ("anchors", "background", "views", "features", "log_scales") if name not in tensors]
    if missing:
        raise DataError(
            f"checkpoint: expected the tensors of anchors, '{missing[0]}' is missing; is it of this method?"
        )
    mine = {name: tensors[name].clone() for name in tensors if "." not in name}
    with seeded(0):
        model = build(mine, len(mine.get("codes", ())))
    model.load_state_dict(dict(tensors))
    if model.levels is not None:
        model.levels.round_()  # a compact file comes near to them
    return model


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Fresh weights are drawn from `seed`, and torch's own generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def anchor_model(fit: Fit) -> AnchorModel:
    """The fit's model, which growing changes."""
    assert isinstance(fit.model, AnchorModel)
    return fit.model


def spacing(xyz: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of each point the root mean square distance [N] to its three nearest neighbours."""
    return np.sqrt(np.clip(squared_spacing(xyz), 1e-10, None))


def _uniform(outputs: int, inputs: int) -> Tensor:
    """Initial weights of a linear layer (LeCun 1998): uniform within the root of the inverse number of inputs."""
    return (2 * torch.rand(outputs, inputs) - 1) / math.sqrt(inputs)
