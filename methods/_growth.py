"""How anchors come and go, and a step of training: what Scaffold-GS and its kin do with an `AnchorModel`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from anchorfield.cuda_ext.anchors import Decoded
from anchorfield.methods._anchors import ROWS, AnchorModel, anchor_model
from anchorfield.methods._levels import Octree, as_coarse_as_they_show, cell
from anchorfield.methods._method import Fit, check_ranges
from anchorfield.methods._splats import keep_below
from anchorfield.methods._views import next_view, target
from anchorfield.renderer.losses import photometric
from anchorfield.renderer.splatting import Splats
from anchorfield.scenes.scene import Scene

COARSEST, FINER = 16, 4  # first cell of growing in voxels, and by how much each next one is smaller
LEVELS = 3  # of growing
RISE = 2**0.2  # of the threshold from one level of detail to the next (Ren et al. 2024)
SPREAD = 0.5  # standard deviation of first offsets
EVERY = 100  # steps between two looks at the sizes
STATISTICS = ("gradient_sum", "gradient_count", "opacity_sum", "seen_count")  # of a round, by anchor or offset


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

    threshold: float = 0.00005
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
