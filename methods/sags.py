"""SAGS: one Gaussian for every point, decoded from what the points around it know as well.

Ververas et al. 2024. Points stay close to the surface that they were found on, so that files are small and depth is
clean. SAGS-Lite, a value of the settings, stores a few points and decodes those between them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from anchorfield.cuda_ext.hash_grid import HashGrid, hash_grid
from anchorfield.cuda_ext.neighbours import Graph, aggregate_neighbours, graph_of
from anchorfield.methods._anchors import (
    ROWS,
    AnchorModel,
    DecodingHeads,
    Described,
    restored,
    seeded,
    spacing,
    views_of,
)
from anchorfield.methods._growth import Growth, anchor_step
from anchorfield.methods._initial import initial_points
from anchorfield.methods._levels import voxelised
from anchorfield.methods._method import Fit, State, check_ranges
from anchorfield.methods._views import haste, share_to_drop
from anchorfield.renderer.adam import Adam
from anchorfield.renderer.errors import DataError
from anchorfield.renderer.neighbours import nearest_neighbours
from anchorfield.scenes.scene import Scene

PER_PIXEL = 0.23  # points per pixel of a view, at most
LITE_SHARE = 0.35  # of these, that SAGS-Lite stores
FIRST_SHARE = 0.5  # of the cap, from which growth starts
FINEST = 4  # cells of the grid between two neighbouring points
AROUND = 10  # points, itself among them, that tell how curved a surface is
SETTLED = 0.3  # what is left at the end of the points' own rates
TABLES = range(8, 20)  # sizes of a level of the hash grid, as powers of two
OPAQUE = 0.3  # logit of opacity at the start: a point that is transparent learns nothing


def curvatures(
    points: Tensor,  # [N, 3]
    neighbours: Tensor,  # [N, K] int32
) -> Tensor:
    """How curved the surface is at each point, [N] in [0, 1/3]: the least singular value of its neighbours as a share
    of all three (surface variation of Pauly et al. 2002, of standard deviations).
    """
    around = points.double()[neighbours.long()]
    around = around - around.mean(1, keepdim=True)
    values: Tensor = torch.linalg.eigvalsh(around.transpose(1, 2) @ around).clamp_min(0).sqrt()
    curvature: Tensor = values[:, 0] / values.sum(1).clamp_min(torch.finfo(torch.float64).tiny)
    return curvature


def between(points: Tensor, flat: int, curved: int) -> Tensor:
    """Sorted pairs of points [M, 2] with room between them: each and its nearest `flat` or `curved` neighbours.

    A surface is flat where its curvature is more than a standard deviation below the mean.
    """
    nearest = nearest_neighbours(points, min(max(AROUND, flat + 1, curved + 1), len(points)))[0]
    curvature = curvatures(points, nearest[:, :AROUND])
    is_flat = curvature < curvature.mean() - curvature.std(correction=0)
    reach = torch.where(is_flat, flat, curved)
    column = torch.arange(1, nearest.shape[1])
    wanted = column <= reach[:, None]
    ends = torch.stack([torch.arange(len(points))[:, None].expand_as(wanted), nearest[:, 1:].long()], 2)[wanted]
    pairs: Tensor = torch.unique(ends.sort(1).values, dim=0)
    return pairs


class Surroundings(nn.Module):
    """Describes points by what those around them know (Ververas et al. 2024, section 3.2).

    The encoding of a point is its place in a hash grid, its feature with its neighbours' messages, and the largest
    features of the scene, all stretched and moved; from it comes the displacement of its Gaussian. Nothing of this
    depends on the camera. With `pairs`, a point is decoded between every two that `between` finds.
    """

    def __init__(self, features: int, layout: HashGrid, neighbours: int, pairs: tuple[int, int] | None):
        super().__init__()
        self.layout, self.neighbours, self.pairs = layout, neighbours, pairs
        size = layout.size + 2 * features
        self.table = nn.Parameter(1e-4 * (2 * torch.rand(layout.rows, layout.features) - 1))
        self.gain, self.shift = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))
        self.displacement = nn.Parameter((2 * torch.rand(3, size) - 1) / math.sqrt(size))
        self._graph: Graph | None = None
        self._ends: Tensor | None = None  # [M, 2] points with another between them
        self._parents: Tensor | None = None

    def connect(self, anchors: Tensor) -> None:
        """Find every point's neighbours; called whenever points came or went."""
        self._graph = graph_of(*nearest_neighbours(anchors, min(self.neighbours, len(anchors))))
        if self.pairs is not None:
            self._ends = between(anchors, *self.pairs)
            own = torch.arange(len(anchors))[:, None].expand(-1, 2)
            self._parents = torch.cat([own, self._ends])

    def parents(self) -> Tensor | None:
        """The two stored points [P, 2] of every decoded one; None where all are stored."""
        return self._parents

    def forward(self, anchors: Tensor, features: Tensor, log_scales: Tensor) -> Described:
        """All that is decoded; the stored points come first."""
        assert self._graph is not None
        near = aggregate_neighbours(features, self._graph)
        if self._ends is not None:
            anchors, near = (torch.cat([rows, _middle(rows, self._ends)]) for rows in (anchors, near))
            halved = _middle(log_scales, self._ends) - log_scales.new_tensor([0.0] * 3 + [math.log(2)] * 3)
            log_scales = torch.cat([log_scales, halved])
        place = hash_grid(_contracted(anchors), self.table, self.layout)
        width = place.shape[1] + near.shape[1]
        encoding = torch.addcmul(self.shift[:width], self.gain[:width], torch.cat([place, near], 1))
        shared = self.gain[width:] * features.max(0).values + self.shift[width:]
        offsets = torch.addmm(self.displacement[:, width:] @ shared, encoding, self.displacement[:, :width].T)
        return Described(anchors, encoding, offsets[:, None], log_scales, shared)


def _middle(rows: Tensor, ends: Tensor) -> Tensor:
    """Halfway between the rows [N, C] of each pair, [M, C]; its gradient, unlike indexing's, repeats bit for bit."""
    return functional.embedding_bag(ends, rows, mode="mean")


def _contracted(points: Tensor) -> Tensor:
    """Points [N, 3] of all of space in the unit cube; the cameras' ball has its middle (Barron et al. 2022)."""
    norm = points.norm(dim=1, keepdim=True).clamp_min(1)
    contracted: Tensor = points * (2 - 1 / norm) / norm / 4 + 0.5
    return contracted


@dataclass(frozen=True)
class Rates:
    """Learning rates of Adam in a run of 30,000 steps; shorter runs raise those of points."""

    features: float = 7.5e-3
    """Of the points' features; falls to 0.3 of it, as that of scales."""
    log_scales: float = 7e-3
    """Of the logarithms of the points' scales."""
    structure: float = 0.015
    """Of hash grid, encoding and displacement; falls to a fifth."""
    opacity: float = 2e-3
    """Of the opacity head; falls to a hundredth, as that of the covariance head."""
    covariance: float = 4e-3
    """Of the covariance head."""
    colour: float = 8e-3
    """Of the colour head; falls to 0.00625 of it."""

    def __post_init__(self) -> None:
        check_ranges(self, **dict.fromkeys(vars(self), (0, math.inf)))

    def at(self, name: str, progress: float) -> float:
        """The rate of the model's parameter `name` when so much of the budget is spent."""
        group = name.split(".")[0] if name.startswith("structure.") else name.removeprefix("heads.").split("_")[0]
        groups: dict[str, float] = {
            "features": self.features * SETTLED**progress,
            "log": self.log_scales * SETTLED**progress,
            "structure": self.structure * 0.2**progress,
            "opacity": self.opacity * 0.01**progress,
            "covariance": self.covariance * 0.01**progress,
            "colour": self.colour * 0.00625**progress,
        }
        return groups[group]


@dataclass(frozen=True)
class Sags:
    """Settings of SAGS."""

    cap: int = 0
    """Most points that are stored; 0 chooses from the images' size."""
    lite: bool = False
    """Store a third of the points and decode those between them (SAGS-Lite)."""
    voxel: float = 0.0
    """Side of the grid's cells in units of the cameras' ball; 0 chooses from the points."""
    features: int = 32
    """Numbers that describe a point, 1 to 96."""
    neighbours: int = 10
    """Points that a point hears of, itself among them."""
    flat: int = 9
    """Neighbours to each of which a point on a flat surface gets another halfway."""
    curved: int = 4
    """The same on a curved surface."""
    table: int = 0
    """Rows of a level of the hash grid, as a power of two from 8 to 19; 0 chooses from the cap."""
    drop: float = 0.0
    """Share of the points that a step leaves out where photographs are few: up to 12; none from 24."""
    growth: Growth = field(default_factory=lambda: Growth(threshold=0.0001))
    """How points come and go."""
    rates: Rates = field(default_factory=Rates)
    """Learning rates."""
    volume_weight: float = 0.0
    """Weight of the mean volume of Gaussians in the loss."""
    ssim_weight: float = 0.2
    """Weight of structural similarity in the loss, 0 to 1."""
    coarse: float = 0.15
    """Share of the budget on reduced images; 0 starts at full size."""
    seed: int = 0
    """Of every random choice."""

    def __post_init__(self) -> None:
        positive = (0, math.inf)
        check_ranges(self, cap=positive, voxel=positive, features=(1, 96), neighbours=(1, 64), flat=(0, 64))
        check_ranges(self, curved=(0, 64), drop=(0, 0.9))
        check_ranges(self, volume_weight=positive, ssim_weight=(0, 1), coarse=(0, 1), seed=(0, 2**63))
        if self.table:
            check_ranges(self, table=(TABLES[0], TABLES[-1]))

    def plan(self, scene: Scene) -> list[str]:
        """What will be trained, a line each."""
        cap = self._cap(scene)
        size = 4 * (cap * (3 + self.features + 6) + 2 * _layout(self._table(cap)).rows) / 2**20
        what = ", and Gaussians between them" if self.lite else " of one Gaussian each"
        return [f"at most {cap:,} points{what} (about {size:,.1f} MiB)"]

    def fit(self, scene: Scene, resume: State | None = None) -> Iterator[Fit]:
        """Optimise for ever, yielding after each step."""
        random = torch.Generator().manual_seed(self.seed)
        if resume:
            found = self.restore(resume)
            fit = Fit(found, self._optimiser(found), random).resume(resume)
        else:
            fit = self._start(scene, random)
        while True:
            self._set_rates(fit)
            anchor_step(
                fit,
                scene,
                self.growth,
                None,
                volume_weight=self.volume_weight,
                ssim_weight=self.ssim_weight,
                coarse=self.coarse,
            )
            yield fit

    def restore(self, state: State) -> AnchorModel:
        """The model of a checkpoint."""
        tensors = state["model"]
        rows = len(tensors["structure.table"]) if "structure.table" in tensors else 0
        table = next((table for table in TABLES if _layout(table).rows == rows), None)
        if table is None:
            raise DataError(f"checkpoint: expected the table of a hash grid, got {rows} rows; is it of this method?")
        return restored(tensors, lambda mine, images: self._model(mine, table))

    def _start(self, scene: Scene, random: torch.Generator) -> Fit:
        """Points where those of the capture are, and between them."""
        cap = self._cap(scene)
        first = min(cap, int(FIRST_SHARE * cap) + 500)
        points = initial_points(scene, first, random).xyz
        voxel = self.voxel or float(np.median(spacing(points))) / FINEST
        centres = torch.from_numpy(voxelised(points, voxel))
        if not self.lite:
            centres = self._densified(centres, voxel, first - len(centres), random)
        sizes = torch.from_numpy(np.log(spacing(centres.numpy()))).float()
        tensors = {
            "anchors": centres,
            "background": torch.tensor(scene.background),
            "views": views_of(scene),
            "features": torch.zeros(len(centres), self.features),
            "log_scales": sizes[:, None].repeat(1, 6),
        }
        with seeded(self.seed):
            model = self._model(tensors, self._table(cap))
        memory = {"cap": cap, "voxel": voxel, "drop": share_to_drop(self.drop, scene)}
        return Fit(model, self._optimiser(model), random, memory=memory)

    def _densified(self, points: Tensor, voxel: float, room: int, random: torch.Generator) -> Tensor:
        """The points, and at most `room` of those between them, on the same grid."""
        ends = between(points, self.flat, self.curved)
        chosen = torch.randperm(len(ends), generator=random)[: max(room, 0)]
        more = torch.cat([points, _middle(points, ends[chosen])])
        return torch.from_numpy(voxelised(more.numpy(), voxel))

    def _cap(self, scene: Scene) -> int:
        camera = scene.views[scene.train[0]].camera
        share = LITE_SHARE if self.lite else 1.0
        return self.cap or max(500, int(share * PER_PIXEL * camera.width * camera.height))

    def _table(self, cap: int) -> int:
        """The power of two of a level's rows: such that the whole grid is about half as large as the points."""
        return self.table or min(max(round(math.log2(max(cap, 1) / 2)), TABLES[0]), TABLES[-1])

    def _model(self, tensors: Mapping[str, Tensor], table: int) -> AnchorModel:
        """A model of these points with fresh weights."""
        layout = _layout(table)
        heads = DecodingHeads(layout.size + 2 * self.features, 1, layers=2, distance=True, appearance=0)
        nn.init.constant_(dict(heads.named_parameters())["opacity_bias"], OPAQUE)
        pairs = (self.flat, self.curved) if self.lite else None
        return AnchorModel(tensors, heads, structure=Surroundings(self.features, layout, self.neighbours, pairs))

    def _optimiser(self, model: AnchorModel) -> Adam:
        return Adam(dict(model.named_parameters()), {}, by_row=ROWS)

    def _set_rates(self, fit: Fit) -> None:
        """Learning rates at the fit's progress, raised for points where the budget holds few steps."""
        hurry = min(haste(fit.step, fit.progress), 2)
        raised = ("features", "log_scales", "structure.table")
        fit.optimiser.rates = {
            name: self.rates.at(name, fit.progress) * (hurry if name in raised else 1.0)
            for name in fit.optimiser.parameters
        }


def _layout(table: int) -> HashGrid:
    """The hash grid with levels of at most 2^table rows."""
    return HashGrid(log2_table_size=table)


METHOD = Sags
