"""Scaffold-GS: anchors on a sparse grid, decoded into Gaussians for every view by small perceptrons.

Lu et al. 2024. Files are a fraction of those of splats, and views between and beyond the photographs hold up better,
because Gaussians of an anchor share what they know.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from anchorfield.methods._anchors import (
    ROWS,
    AnchorModel,
    DecodingHeads,
    FeatureBank,
    restored,
    seeded,
    spacing,
    views_of,
)
from anchorfield.methods._growth import Growth, anchor_step, fresh_rows
from anchorfield.methods._initial import initial_points
from anchorfield.methods._levels import Octree, voxelised
from anchorfield.methods._method import Fit, State, check_ranges
from anchorfield.methods._splats import extent
from anchorfield.methods._views import haste, share_to_drop
from anchorfield.renderer.adam import Adam
from anchorfield.renderer.errors import UsageError
from anchorfield.scenes.scene import Scene

PER_PIXEL = 0.17  # anchors per pixel of a view, at most
FIRST_SHARE = 0.5  # of the cap, from which growth starts
FINEST = 4  # cells of the grid between two neighbouring points
SETTLED = 0.3  # what is left at the end of rates that the original method keeps constant


@dataclass(frozen=True)
class Rates:
    """Learning rates of Adam in a run of 30,000 steps; shorter runs raise those of anchors."""

    offsets: float = 0.03
    """Of the offsets, times the scene's extent; falls to a hundredth over the budget."""
    features: float = 7.5e-3
    """Of the anchors' features; falls to 0.3 of it, as those of scales and of the covariance head."""
    log_scales: float = 7e-3
    """Of the logarithms of the anchors' scales."""
    opacity: float = 2e-3
    """Of the opacity head; falls to a hundredth."""
    covariance: float = 4e-3
    """Of the covariance head."""
    colour: float = 8e-3
    """Of the colour head; falls to 0.00625 of it."""
    bank: float = 0.01
    """Of the feature bank; falls to a thousandth."""
    appearance: float = 0.05
    """Of the photographs' appearance; falls to a hundredth."""

    def __post_init__(self) -> None:
        check_ranges(self, **dict.fromkeys(vars(self), (0, math.inf)))

    def at(self, name: str, progress: float) -> float:
        """The rate of the model's parameter `name` when so much of the budget is spent."""
        group = "appearance" if name == "heads.appearance" else name.removeprefix("heads.").split("_")[0].split(".")[0]
        groups: dict[str, float] = {
            "offsets": self.offsets * 0.01**progress,
            "features": self.features * SETTLED**progress,
            "log": self.log_scales * SETTLED**progress,
            "opacity": self.opacity * 0.01**progress,
            "covariance": self.covariance * SETTLED**progress,
            "colour": self.colour * 0.00625**progress,
            "bank": self.bank * 0.001**progress,
            "appearance": self.colour * 0.00625**progress,
            "codes": self.appearance * 0.01**progress,
        }
        return groups[group]


@dataclass(frozen=True)
class ScaffoldGs:
    """Settings of Scaffold-GS."""

    cap: int = 0
    """Most anchors; 0 chooses from the images' size."""
    voxel: float = 0.0
    """Side of the grid's cells in units of the cameras' ball; 0 chooses from the points."""
    features: int = 32
    """Numbers that describe an anchor."""
    offsets: int = 5
    """Gaussians of an anchor, 1 to 16."""
    distance: bool = False
    """Let the heads know the distance to the camera."""
    bank: bool = False
    """Mix features at three resolutions by direction and distance."""
    appearance: int = 0
    """Numbers that describe the appearance of each photograph; 0 for none."""
    drop: float = 0.2
    """Share of the anchors that a step leaves out where photographs are few: up to 12; none from 24."""
    detail: Octree | None = None
    """Levels of detail: from far away, decode fewer anchors."""
    growth: Growth = field(default_factory=Growth)
    """How anchors come and go."""
    rates: Rates = field(default_factory=Rates)
    """Learning rates."""
    volume_weight: float = 0.01
    """Weight of the mean volume of Gaussians in the loss."""
    ssim_weight: float = 0.2
    """Weight of structural similarity in the loss, 0 to 1."""
    coarse: float = 0.15
    """Share of the budget on reduced images; 0 starts at full size."""
    seed: int = 0
    """Of every random choice."""

    def __post_init__(self) -> None:
        positive = (0, math.inf)
        check_ranges(self, cap=positive, voxel=positive, features=(4, 128), offsets=(1, 16), appearance=(0, 256))
        if self.bank and self.features % 4:
            raise UsageError(f"--features: expected a multiple of 4 with --bank, got {self.features}")
        check_ranges(self, drop=(0, 0.9), volume_weight=positive, ssim_weight=(0, 1), coarse=(0, 1), seed=(0, 2**63))

    def plan(self, scene: Scene) -> list[str]:
        """What will be trained, a line each."""
        cap = self._cap(scene)
        size = 4 * cap * (3 + self.features + 3 * self.offsets + 6) / 2**20
        return [f"at most {cap:,} anchors of {self.offsets} Gaussians each (about {size:,.1f} MiB)"]

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
                self.detail,
                volume_weight=self.volume_weight,
                ssim_weight=self.ssim_weight,
                coarse=self.coarse,
            )
            yield fit

    def restore(self, state: State) -> AnchorModel:
        """The model of a checkpoint."""
        return restored(state["model"], self._model)

    def _start(self, scene: Scene, random: torch.Generator) -> Fit:
        """Anchors where the points are."""
        cap = self._cap(scene)
        count = min(cap, int(FIRST_SHARE * cap) + 1000)
        points = initial_points(scene, count if self.detail is None else count // 2, random).xyz
        voxel = self.voxel or float(np.median(spacing(points))) / FINEST
        levels: dict[str, Tensor] = {}
        cells = [voxelised(points, voxel)]
        if self.detail is not None:
            cells, levels = self.detail.sown(scene, points, voxel)
        centres = np.concatenate(cells)
        sizes = torch.from_numpy(np.log(np.concatenate([spacing(level) for level in cells]))).float()
        tensors = {
            "anchors": torch.from_numpy(centres),
            "background": torch.tensor(scene.background),
            "views": views_of(scene),
            **levels,
            **fresh_rows(sizes, torch.zeros(len(centres), self.features), self.offsets, random),
        }
        with seeded(self.seed):
            model = self._model(tensors, len(scene.train))
        memory = {"cap": cap, "voxel": voxel, "extent": extent(scene), "drop": share_to_drop(self.drop, scene)}
        return Fit(model, self._optimiser(model), random, memory=memory)

    def _cap(self, scene: Scene) -> int:
        camera = scene.views[scene.train[0]].camera
        return self.cap or max(500, int(PER_PIXEL * camera.width * camera.height))

    def _model(self, tensors: Mapping[str, Tensor], images: int) -> AnchorModel:
        """A model of these anchors with fresh heads."""
        return AnchorModel(
            tensors,
            DecodingHeads(self.features, self.offsets, layers=1, distance=self.distance, appearance=self.appearance),
            bank=FeatureBank() if self.bank else None,
            codes=torch.randn(images, self.appearance) if self.appearance else None,
            fading=self.detail is None or self.detail.fading,
        )

    def _optimiser(self, model: AnchorModel) -> Adam:
        return Adam(dict(model.named_parameters()), {}, by_row=ROWS)

    def _set_rates(self, fit: Fit) -> None:
        """Learning rates at the fit's progress, raised for anchors where the budget holds few steps."""
        hurry = haste(fit.step, fit.progress)
        raised = {
            "offsets": hurry * float(fit.memory["extent"]),
            "features": min(hurry, 2),
            "log_scales": min(hurry, 2),
        }
        fit.optimiser.rates = {
            name: self.rates.at(name, fit.progress) * raised.get(name, 1.0) for name in fit.optimiser.parameters
        }


METHOD = ScaffoldGs
