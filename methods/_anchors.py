"""What anchor methods share: the model, where anchors start, and how they grow and go.

Anchors are fixed points on a grid. Small perceptrons decode each into a few Gaussians for the camera at hand (Lu et al.
2024, Scaffold-GS).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anchorfield.cuda_ext.anchors import Decoded, Heads, decode_anchors
from anchorfield.methods._baking import baked, refined
from anchorfield.methods._levels import Octree, as_coarse_as_they_show, cell, shown
from anchorfield.methods._method import Fit, Model, check_ranges
from anchorfield.methods._splats import keep_below, squared_spacing
from anchorfield.methods._views import next_view, target
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import DataError
from anchorfield.renderer.losses import photometric
from anchorfield.renderer.splatting import Splats, anchors_in_view, as_gaussians, splat_decoded
from anchorfield.renderer.types import Frame, Gaussians
from anchorfield.scenes.scene import Scene

OUTPUTS = {"opacity": 1, "covariance": 7, "colour": 3}  # of each head, for every offset
ROWS = ("features", "offsets", "log_scales")  # parameters with a row for every anchor
MOST_VIEWS = 64  # cameras that a model keeps, to bake what it shows
HIDDEN = 32  # units of a hidden layer
COARSEST, FINER = 16, 4  # first cell of growing in voxels, and by how much each next one is smaller
LEVELS = 3  # of growing
RISE = 2**0.2  # of the threshold from one level of detail to the next (Ren et al. 2024)
SPREAD = 0.5  # standard deviation of first offsets
FIRST_OPACITY = 0.1  # of every other offset; the rest begin as far below zero, in reserve
EVERY = 100  # steps between two looks at the sizes


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


def fresh_rows(log_sizes: Tensor, features: Tensor, offsets: int, random: torch.Generator) -> dict[str, Tensor]:
    """Rows of anchors [N] whose Gaussians lie around them."""
    return {
        "features": features,
        "offsets": SPREAD * torch.randn(len(features), offsets, 3, generator=random),
        "log_scales": log_sizes[:, None].repeat(1, 6),
    }


class _Round(NamedTuple):
    """Growing in cells of one size."""

    level: int
    size: float
    threshold: float  # of the mean gradient
    luck: float  # share of candidates that have to wait for the next time
    last: bool


@dataclass(frozen=True)
class Growth:
    """How anchors come and go (Lu et al. 2024, section 3.3)."""

    threshold: float = 0.0001
    """Mean gradient of a projected mean, in half-image units, above which an anchor is added there."""
    patience: float = 0.4
    """Share of the steps between two rounds that must have seen a Gaussian before it can add an anchor."""
    opacity: float = 0.005
    """Mean sum of opacities below which an anchor is removed."""
    every: int = 100
    """Steps between two rounds."""
    start: float = 0.05
    """Share of the budget before which nothing happens."""
    stop: float = 0.5
    """Share of the budget after which nothing happens."""

    def __post_init__(self) -> None:
        positive = (0, math.inf)
        check_ranges(self, threshold=positive, patience=(0, 1), opacity=positive, every=(1, math.inf))
        check_ranges(self, start=(0, 1), stop=(0, 1))

    @torch.no_grad()
    def update(self, fit: Fit, seen: Tensor, decoded: Decoded, splats: Splats, cap: int) -> None:
        """After a step: gather statistics; grow and prune now and then."""
        if fit.progress >= self.stop:
            for name in STATISTICS:
                fit.memory.pop(name, None)
            return
        if fit.progress < self.start / 3:
            return
        gather(fit, seen, decoded, splats)
        if fit.progress >= self.start and fit.step % self.every == 0:
            self.round(fit, cap)

    @torch.no_grad()
    def round(self, fit: Fit, cap: int) -> None:
        """Grow and prune by the statistics so far, in nearly linear time: cells are found by sorting."""
        self._grow(fit, cap)
        self._prune(fit)
        anchor_model(fit).connect()

    def _grow(self, fit: Fit, cap: int) -> None:
        """Add anchors where gradients are large, in cells that hold none, from coarse cells to fine ones."""
        model, memory = anchor_model(fit), fit.memory
        mean = memory["gradient_sum"] / memory["gradient_count"].clamp_min(1)
        ready = memory["gradient_count"] > self.patience * self.every
        mean[~ready] = 0
        described, offsets = model.described(), model.heads.offsets
        of_parents = None if model.levels is None else model.levels.repeat_interleave(offsets)
        added: list[tuple[Tensor, dict[str, Tensor], Tensor]] = []
        for step in self._rounds(model, float(memory["voxel"])):
            lucky = torch.rand(len(mean), generator=fit.random) > step.luck
            wanted = (mean >= step.threshold) & lucky
            taken = torch.cat([model.anchors, *(anchors for anchors, _, _ in added)])
            room = cap - len(taken)
            if of_parents is not None and model.levels is not None:
                enough = mean >= self.threshold * RISE ** (of_parents + 1)  # for cells half as wide
                wanted &= (of_parents == step.level - 1) | ((of_parents == step.level) & (~enough | step.last))
                taken = model.anchors[model.levels == step.level]
            candidates = torch.nonzero(wanted).squeeze(1)
            parents = candidates // offsets
            away = described.offsets[parents, candidates % offsets] * described.log_scales[parents, :3].exp()
            fresh, features = _new_anchors(
                taken, model.anchors[parents] + away, model.features[parents], mean[candidates], step.size, room
            )
            if len(fresh) == 0:
                if step.level == 0 and model.levels is None:
                    break
                continue
            rows = fresh_rows(torch.full((len(fresh),), math.log(step.size)), features, offsets, fit.random)
            added.append((fresh, rows, torch.full((len(fresh),), float(step.level))))
        if added:
            anchors, rows_of, levels = zip(*added, strict=True)
            rows = {name: torch.cat([rows[name] for rows in rows_of]) for name in rows_of[0]}
            add_anchors(fit, torch.cat(anchors), rows, torch.cat(levels))
        grown = len(model.anchors) * offsets
        for name in ("gradient_sum", "gradient_count"):
            memory[name][: len(ready)][ready] = 0
            memory[name] = _padded(memory[name], grown)
        for name in ("opacity_sum", "seen_count"):
            memory[name] = _padded(memory[name], len(model.anchors))

    def _rounds(self, model: AnchorModel, voxel: float) -> Iterator[_Round]:
        """Sizes of cells to grow in, from coarse to fine: three, or those of the levels of detail."""
        if model.detail is None:
            for level in range(LEVELS):
                size = voxel * COARSEST / FINER**level
                yield _Round(level, size, self.threshold * 2**level, 0.5 ** (level + 1), level == LEVELS - 1)
            return
        last = int(model.detail[1])
        for level in range(last + 1):
            yield _Round(level, cell(voxel, level, last), self.threshold * RISE**level, 0.5, level == last)

    def _prune(self, fit: Fit) -> None:
        """Remove anchors that were seen often and show nothing."""
        memory = fit.memory
        offsets = len(memory["gradient_sum"]) // len(memory["seen_count"])
        judged = memory["seen_count"] > 0.8 * self.every
        idle = judged & (memory["opacity_sum"] < self.opacity * memory["seen_count"])
        for name in ("opacity_sum", "seen_count"):
            memory[name][judged] = 0
        if not idle.any() or idle.all():
            return
        keep = ~idle
        keep_anchors(fit, keep)
        for name in STATISTICS:
            wide = name.startswith("gradient")
            memory[name] = memory[name][keep.repeat_interleave(offsets) if wide else keep]


def anchor_step(
    fit: Fit,
    scene: Scene,
    growth: Growth,
    detail: Octree | None,
    *,
    volume_weight: float,
    ssim_weight: float,
    coarse: float,
) -> None:
    """One step down the loss of the next photograph, after which anchors may come or go."""
    model = anchor_model(fit)
    index = next_view(fit, scene)
    zoom = detail.zoom(fit, scene.views[index].camera) if detail else 1
    camera, photo, mask = target(scene, index, fit.progress, coarse, zoom)
    drop = float(fit.memory.get("drop", 0))
    seen, decoded = model.decoded(camera, scene.train.index(index), drop=drop, random=fit.random)
    splats = model.splatted(decoded, camera, depth=False)
    if fit.progress < growth.stop:
        splats.means2d.retain_grad()
    fit.optimiser.rows = model.owners(seen)
    volume = volume_weight * decoded.scales.prod(1).sum() / max(len(decoded.scales), 1)
    fit.descend(**photometric(splats.rgb, photo, mask, ssim_weight), volume=volume)
    growth.update(fit, seen, decoded, splats, int(fit.memory["cap"]))
    if fit.step % EVERY == 0:
        limit_sizes(model)
        if fit.progress >= growth.stop:
            level_sizes(model, float(fit.memory["voxel"]))


STATISTICS = ("gradient_sum", "gradient_count", "opacity_sum", "seen_count")


def gather(fit: Fit, seen: Tensor, decoded: Decoded, splats: Splats) -> None:
    """Add a step to the statistics: image gradients of each offset, opacities of each anchor."""
    model, memory = anchor_model(fit), fit.memory
    count, offsets = len(model.anchors), model.heads.offsets
    if "gradient_sum" not in memory:
        memory["gradient_sum"], memory["gradient_count"] = torch.zeros(count * offsets), torch.zeros(count * offsets)
        memory["opacity_sum"], memory["seen_count"] = torch.zeros(count), torch.zeros(count)
    parents, opacities, origin = model.parents(), decoded.opacities.detach(), decoded.origin.long()
    memory["seen_count"] += model.owners(seen)
    if parents is None:
        memory["opacity_sum"].index_add_(0, origin // offsets, opacities)
    else:  # whoever shows nothing itself may still be needed between others
        memory["opacity_sum"].index_add_(0, parents[origin // offsets].flatten(), opacities.repeat_interleave(2) / 2)
    own = origin < count * offsets
    origin = origin[own]
    if splats.means2d.grad is None:
        return
    height, width = splats.alpha.shape
    norm = (splats.means2d.grad * splats.means2d.new_tensor([width / 2, height / 2])).norm(dim=1)[own]
    shown = splats.visible[own]
    memory["gradient_sum"].index_add_(0, origin, norm * shown)
    memory["gradient_count"].index_add_(0, origin, shown.float())


def _new_anchors(
    anchors: Tensor, points: Tensor, features: Tensor, gradients: Tensor, size: float, room: int
) -> tuple[Tensor, Tensor]:
    """Centres [M, 3] of empty cells that hold points [P, 3], at most `room`, and their largest features [M, D]."""
    taken = cell_keys(anchors, size)
    keys, which = torch.unique(cell_keys(points, size), return_inverse=True)
    free = ~torch.isin(keys, taken)
    if int(free.sum()) > room:  # the room goes to the largest gradients
        largest = torch.zeros(len(keys)).scatter_reduce_(0, which, gradients, "amax")
        largest[~free] = -1
        free = torch.zeros_like(free)
        free[largest.topk(max(room, 0)).indices] = True
    number = torch.cumsum(free, 0) - 1
    chosen = free[which]
    count = int(free.sum())
    cell = torch.zeros(count, 3)
    cell[number[which[chosen]]] = torch.round(points[chosen] / size) * size
    pooled = torch.full((count, features.shape[1]), -math.inf)
    where = number[which[chosen]][:, None].expand(-1, features.shape[1])
    pooled.scatter_reduce_(0, where, features[chosen], "amax")
    return cell, pooled


def cell_keys(points: Tensor, size: float) -> Tensor:
    """The cell of each point [N, 3] as one number: three signed coordinates of 21 bits."""
    cells = torch.round(points.double() / size).long().clamp(-(2**20), 2**20 - 1) + 2**20
    return (cells[:, 0] << 42) | (cells[:, 1] << 21) | cells[:, 2]


def add_anchors(fit: Fit, anchors: Tensor, rows: Mapping[str, Tensor], levels: Tensor) -> None:
    """Append anchors with moments of zero, where there are levels of detail on theirs."""
    model = anchor_model(fit)
    model.anchors = torch.cat([model.anchors, anchors])
    if model.levels is not None:
        model.levels = torch.cat([model.levels, levels])
    _set_rows(fit, lambda name, old: torch.cat([old, rows[name]]), lambda old, values: _padded(old, len(values)))


def keep_anchors(fit: Fit, keep: Tensor) -> None:
    """Drop the other anchors with everything that belongs to them."""
    model = anchor_model(fit)
    model.anchors = model.anchors[keep]
    if model.levels is not None:
        model.levels = model.levels[keep]
    _set_rows(fit, lambda name, old: old[keep], lambda old, values: old[keep])


def _set_rows(
    fit: Fit, change: Callable[[str, Tensor], Tensor], change_moment: Callable[[Tensor, Tensor], Tensor]
) -> None:
    model, optimiser = anchor_model(fit), fit.optimiser
    for name in ROWS:
        if not hasattr(model, name):
            continue
        values = change(name, getattr(model, name).detach())
        moments = [change_moment(moment, values) for moment in optimiser.moments[name]]
        setattr(model, name, optimiser.replace(name, values, *moments))


def _padded(values: Tensor, count: int) -> Tensor:
    """More rows, of zeros."""
    return torch.cat([values, values.new_zeros(count - len(values), *values.shape[1:])])


@torch.no_grad()
def limit_sizes(model: AnchorModel) -> None:
    """Keep Gaussians smaller than a share of their distance from the scene's centre, as those of splats are."""
    keep_below(model.log_scales.data, model.anchors)


@torch.no_grad()
def level_sizes(model: AnchorModel, voxel: float) -> None:
    """Show anchors of wide Gaussians from further away, where there are levels of detail."""
    if model.levels is not None and model.detail is not None:
        model.levels = as_coarse_as_they_show(model.levels, model.log_scales, model.detail, voxel)


def _uniform(outputs: int, inputs: int) -> Tensor:
    """Initial weights of a linear layer (LeCun 1998): uniform within the root of the inverse number of inputs."""
    return (2 * torch.rand(outputs, inputs) - 1) / math.sqrt(inputs)
