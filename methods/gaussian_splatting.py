"""3D Gaussian splatting with MCMC, adaptive density control or AbsGrad.

Kerbl et al. 2023; Kheradmand et al. 2024; Ye et al. 2024 (AbsGS). Every schedule follows the share of the budget that
is spent, so that three minutes and three hours both end well: images, Gaussians and harmonics grow from coarse to fine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from anchorfield.methods._initial import MIN_POINTS, initial_points
from anchorfield.methods._method import Fit, State, check_ranges
from anchorfield.methods._splats import (
    BYTES_PER_GAUSSIAN,
    SplatModel,
    extent,
    from_points,
    limit_sizes,
    restored,
    splat_model,
    thinned,
)
from anchorfield.methods._strategies import EVERY, Mcmc, Strategy
from anchorfield.methods._views import haste, next_view, share_to_drop, target
from anchorfield.renderer.adam import Adam
from anchorfield.renderer.errors import UsageError
from anchorfield.renderer.losses import photometric
from anchorfield.renderer.memory import available_bytes
from anchorfield.renderer.splatting import splat
from anchorfield.renderer.types import PARAMETERS, Gaussians
from anchorfield.scenes.scene import Scene

PER_PIXEL = 0.5  # Gaussians per pixel of a view, at most
FIRST_SHARE = 0.5  # of the cap, from which growth starts
FROM_START = 0.5  # progress at which the rates of a run begin that starts from Gaussians
SH_SHARE = 0.1  # of the budget, after which one more band of harmonics joins


@dataclass(frozen=True)
class Rates:
    """Learning rates of Adam in a run of 30,000 steps; shorter runs raise them."""

    means: float = 1.6e-4
    """Times the scene's extent; falls to a hundredth over the budget."""
    scales: float = 5e-3
    """Of the logarithm of the standard deviations."""
    quats: float = 1e-3
    """Of the quaternions."""
    opacities: float = 5e-2
    """Of the opacities' logits."""
    colours: float = 2.5e-3
    """Of the constant harmonic; the others take a twentieth."""

    def __post_init__(self) -> None:
        positive = (0, math.inf)
        check_ranges(self, means=positive, scales=positive, quats=positive, opacities=positive, colours=positive)


@dataclass(frozen=True)
class GaussianSplatting:
    """Settings of 3D Gaussian splatting."""

    cap: int = 0
    """Most Gaussians; 0 chooses from the images' size and the memory."""
    sh_degree: int = 3
    """Degree of the spherical harmonics, 0 to 3."""
    strategy: Strategy = field(default_factory=Mcmc)
    """How Gaussians are added, moved and removed."""
    rates: Rates = field(default_factory=Rates)
    """Learning rates."""
    ssim_weight: float = 0.2
    """Weight of structural similarity in the loss, 0 to 1."""
    antialiased: bool = False
    """Compensate opacities for the screen-space dilation (Mip-Splatting)."""
    coarse: float = 0.15
    """Share of the budget on reduced images; 0 starts at full size."""
    drop: float = 0.2
    """Share of the Gaussians that a step leaves out where photographs are few: up to 12; none from 24."""
    sparse: bool = True
    """Step only Gaussians that the current photograph sees."""
    seed: int = 0
    """Of every random choice."""

    def __post_init__(self) -> None:
        check_ranges(self, cap=(0, math.inf), sh_degree=(0, 3), drop=(0, 0.9), seed=(0, 2**63))
        check_ranges(self, ssim_weight=(0, 1), coarse=(0, 1))

    def plan(self, scene: Scene) -> list[str]:
        """What will be trained, a line each."""
        cap = self._cap(scene)
        points = 0 if scene.points is None else len(scene.points.xyz)
        start = f"{points:,} points of the capture" if points >= MIN_POINTS else "random points in the cameras' view"
        return [f"at most {cap:,} Gaussians (about {cap * BYTES_PER_GAUSSIAN / 2**20:,.0f} MiB), starting from {start}"]

    def fit(self, scene: Scene, resume: State | None = None) -> Iterator[Fit]:
        """Optimise for ever, yielding after each step."""
        random = torch.Generator().manual_seed(self.seed)
        if resume:
            model = self.restore(resume)
            fit = Fit(model, self._optimiser(model), random).resume(resume)
        else:
            cap = self._cap(scene)
            model = self._initial(scene, cap, random)
            memory = {"cap": cap, "extent": extent(scene), "drop": share_to_drop(self.drop, scene)}
            fit = Fit(model, self._optimiser(model), random, memory=memory)
        yield from self._steps(scene, fit)

    def fit_from(self, scene: Scene, start: Gaussians, frozen: Tensor | None = None) -> Iterator[Fit]:
        """Optimise `start` further, with all harmonics, on full photographs and at the rates of half the budget.

        Where rows are frozen, Gaussians neither come nor go.
        """
        self._check_start(start, frozen)
        cap = max(self._cap(scene), len(start))
        memory: dict[str, Any] = {"cap": cap, "extent": extent(scene), "started": True}
        if frozen is not None and bool(frozen.any()):
            memory["frozen"] = frozen.clone()
        tensors = {name: getattr(start, name).detach().clone() for name in PARAMETERS}
        missing = (self.sh_degree + 1) ** 2 - start.sh.shape[1]
        if missing > 0:
            tensors["sh"] = torch.cat([tensors["sh"], torch.zeros(len(start), missing, 3)], 1)
        model = SplatModel(Gaussians(**tensors, antialiased=self.antialiased), torch.tensor(scene.background))
        random = torch.Generator().manual_seed(self.seed)
        yield from self._steps(scene, Fit(model, self._optimiser(model), random, memory=memory))

    def _check_start(self, start: Gaussians, frozen: Tensor | None) -> None:
        if len(start) == 0:
            raise UsageError("start: expected Gaussians, got none")
        if start.antialiased != self.antialiased:
            raise UsageError(f"start: its Gaussians need --antialiased {start.antialiased}, got {self.antialiased}")
        if frozen is not None and (frozen.dtype != torch.bool or frozen.shape != start.means.shape[:1]):
            raise UsageError(f"frozen: expected {len(start):,} booleans, got {frozen.dtype} {tuple(frozen.shape)}")
        if frozen is not None and bool(frozen.all()):
            raise UsageError("frozen: every Gaussian is frozen, nothing is left to optimise")

    def _steps(self, scene: Scene, fit: Fit) -> Iterator[Fit]:
        """Steps for ever from a fit that is ready."""
        model = splat_model(fit)
        started, frozen = bool(fit.memory.get("started")), fit.memory.get("frozen")
        coarse = 0.0 if started else self.coarse
        cap, size, drop = int(fit.memory["cap"]), float(fit.memory["extent"]), float(fit.memory.get("drop", 0))
        background = torch.tensor(scene.background)
        while True:
            self._set_rates(fit, size)
            camera, photo, mask = target(scene, next_view(fit, scene), fit.progress, coarse)
            probe = self._probe(model)
            degree = model.raw().sh_degree if started else min(self.sh_degree, int(fit.progress / SH_SHARE))
            shown = thinned(model.raw(), drop, fit.random) if drop else model.raw()
            splats = splat(shown, camera, background, sh_degree=degree, depth=False, absgrad_probe=probe)
            if self.strategy.watch == "gradient":
                splats.means2d.retain_grad()
            fit.optimiser.rows = _rows(splats.visible if self.sparse else None, frozen)
            fit.descend(**photometric(splats.rgb, photo, mask, self.ssim_weight), **self.strategy.losses(fit, splats))
            if frozen is None:
                self.strategy.update(fit, splats, probe, cap)
            if fit.step % EVERY == 0:
                limit_sizes(model, frozen)
            yield fit

    def restore(self, state: State) -> SplatModel:
        """The model of a checkpoint."""
        return restored(state["model"], self.antialiased)

    def _cap(self, scene: Scene) -> int:
        """The setting, or half a Gaussian per pixel of a view, at most what half of the free memory holds."""
        if self.cap:
            return self.cap
        camera = scene.views[scene.train[0]].camera
        affordable = available_bytes() // 2 // BYTES_PER_GAUSSIAN
        return max(1000, min(int(PER_PIXEL * camera.width * camera.height), affordable))

    def _initial(self, scene: Scene, cap: int, random: torch.Generator) -> SplatModel:
        points = initial_points(scene, min(cap, int(FIRST_SHARE * cap) + 1000), random)
        opacity, scale = (0.5, 0.5) if isinstance(self.strategy, Mcmc) else (0.1, 1.0)
        gaussians = from_points(
            points, sh_degree=self.sh_degree, opacity=opacity, scale=scale, antialiased=self.antialiased
        )
        return SplatModel(gaussians, torch.tensor(scene.background))

    def _optimiser(self, model: SplatModel) -> Adam:
        return Adam({name: getattr(model, name) for name in PARAMETERS}, {})  # rates are set before every step

    def _set_rates(self, fit: Fit, size: float) -> None:
        """Learning rates at the fit's progress, raised where the budget holds few steps; the noise keeps its own."""
        hurry = haste(fit.step, fit.progress)
        progress = FROM_START + (1 - FROM_START) * fit.progress if fit.memory.get("started") else fit.progress
        means = self.rates.means * size * 0.01**progress
        sh = torch.full((splat_model(fit).sh[0].numel(),), self.rates.colours / 20)
        sh[:3] = self.rates.colours
        fit.memory["noise_rate"] = means
        fit.optimiser.rates = {
            "means": means * hurry,
            "log_scales": self.rates.scales * min(hurry, 2),
            "quats": self.rates.quats * min(hurry, 2),
            "logit_opacities": self.rates.opacities,
            "sh": sh * min(hurry, 2),
        }

    def _probe(self, model: SplatModel) -> Tensor | None:
        if self.strategy.watch != "absolute gradient":
            return None
        return torch.zeros(len(model.means), 2, requires_grad=True)


def _rows(visible: Tensor | None, frozen: Tensor | None) -> Tensor | None:
    """Which rows [N] a step may change; None for all."""
    if frozen is None:
        return visible
    return ~frozen if visible is None else visible & ~frozen


METHOD = GaussianSplatting
