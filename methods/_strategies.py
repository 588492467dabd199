"""How the number and places of Gaussians change during optimisation.

A strategy is a frozen dataclass with functions over a Fit. Intervals are steps, times are shares of the budget. `watch`
names what the strategy reads of the projected means' gradient: "nothing", the "gradient" or the "absolute gradient".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor

from anchorfield.cuda_ext.activations import mean_activations
from anchorfield.cuda_ext.langevin import perturb_means
from anchorfield.methods._method import Fit, check_ranges
from anchorfield.methods._splats import rows_of, set_rows, splat_model
from anchorfield.renderer.splatting import Splats
from anchorfield.renderer.types import quaternion_matrices

DEAD = 0.005  # opacity below which a Gaussian is moved or removed
MAX_COPIES = 51  # that one Gaussian is split into at a time
EVERY = 100  # steps between two changes


@dataclass(frozen=True)
class Mcmc:
    """Relocation and noise (Kheradmand et al. 2024): the count is planned, dead Gaussians move to where opacity is."""

    opacity_weight: float = 0.002
    """Weight of the mean opacity in the loss; lets unneeded Gaussians die."""
    scale_weight: float = 0.01
    """Weight of the mean scale in the loss."""
    noise: float = 5e5
    """Strength of the exploration noise, times the learning rate of the means."""
    grown: float = 0.5
    """Share of the budget after which the cap is reached."""
    settled: float = 0.85
    """Share of the budget after which nothing moves any more."""
    watch: ClassVar[str] = "nothing"

    def __post_init__(self) -> None:
        positive = (0, math.inf)
        check_ranges(self, opacity_weight=positive, scale_weight=positive, noise=positive)
        check_ranges(self, grown=(0.01, 1), settled=(0, 1))

    def losses(self, fit: Fit, splats: Splats) -> dict[str, Tensor]:
        """Regularisers."""
        model = splat_model(fit)
        scale, opacity = mean_activations(model.log_scales, model.logit_opacities)
        return {"opacity": self.opacity_weight * opacity, "scale": self.scale_weight * scale}

    @torch.no_grad()
    def update(self, fit: Fit, splats: Splats, probe: Tensor | None, cap: int) -> None:
        """After a step: relocate and grow now and then, and explore."""
        if fit.progress < self.settled and fit.step % EVERY == 0:
            self._relocate(fit)
            first = fit.memory.setdefault("first_count", len(splat_model(fit).means))
            share = min(1.0, fit.progress / self.grown)
            self._grow(fit, int(first + (cap - first) * share) if cap > first else cap)
        if fit.progress < self.settled:
            self._explore(fit)

    def _explore(self, fit: Fit) -> None:
        model = splat_model(fit)
        strength = self.noise * float(fit.memory["noise_rate"])
        seed = int(torch.randint(2**63 - 1, (), generator=fit.random))
        perturb_means(model.means.data, model.quats, model.log_scales, model.logit_opacities, strength, seed)

    def _relocate(self, fit: Fit) -> None:
        opacities = splat_model(fit).logit_opacities.sigmoid()
        dead = torch.nonzero(opacities <= DEAD).squeeze(1)
        alive = torch.nonzero(opacities > DEAD).squeeze(1)
        if len(dead) == 0 or len(alive) == 0:
            return
        rows = rows_of(fit)
        chosen = alive[torch.multinomial(opacities[alive], len(dead), replacement=True, generator=fit.random)]
        self._split(fit, rows, chosen)
        for values in rows.values():
            values[dead] = values[chosen]

    def _grow(self, fit: Fit, target: int) -> None:
        count = len(splat_model(fit).means)
        added = target - count
        if added <= 0:
            return
        opacities = splat_model(fit).logit_opacities.sigmoid()
        chosen = torch.multinomial(opacities, added, replacement=True, generator=fit.random)
        rows = rows_of(fit)
        self._split(fit, rows, chosen)
        origin = torch.cat([torch.arange(count), torch.full((added,), -1)])
        set_rows(fit, {name: torch.cat([values, values[chosen]]) for name, values in rows.items()}, origin)

    def _split(self, fit: Fit, rows: dict[str, Tensor], chosen: Tensor) -> None:
        """Make the chosen Gaussians such that they and their copies together look as each did alone (equation 9)."""
        drawn = torch.bincount(chosen, minlength=len(rows["means"]))
        split = torch.nonzero(drawn).squeeze(1)
        copies = (drawn[split] + 1).clamp_max(MAX_COPIES)
        before = rows["logit_opacities"][split].double().sigmoid()
        after, shrink = shared_opacity(before, copies)
        rows["logit_opacities"][split] = torch.logit(after).float()
        rows["log_scales"][split] += shrink.log().float()[:, None]
        for moments in fit.optimiser.moments.values():
            for moment in moments:
                moment[split] = 0


def shared_opacity(opacity: Tensor, copies: Tensor) -> tuple[Tensor, Tensor]:
    """Opacity and factor to the scales of each of `copies` coincident Gaussians that replace one of `opacity`.

    Kheradmand et al. 2024, equation 9. The sum over i <= n of binom(i-1, k) collapses to binom(n, k+1).
    """
    after = (1 - (1 - opacity) ** (1 / copies.double())).clamp(DEAD, 1 - 1e-6)
    n = copies.double()[:, None]
    k = torch.arange(1, MAX_COPIES + 1, dtype=torch.float64)[None]
    inside = k <= n
    log_binomial = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma((n - k).clamp_min(0) + 1)
    terms = torch.exp(log_binomial + k * after[:, None].log()) * (1 - 2 * ((k - 1) % 2)) / k.sqrt()
    return after, opacity / torch.where(inside, terms, 0.0).sum(1)


@dataclass(frozen=True)
class Adc:
    """Adaptive density control (Kerbl et al. 2023): clone and split where the image gradient is large, prune, reset."""

    threshold: float = 0.0002
    """Mean gradient of the projected mean, in half-image units, above which a Gaussian is densified."""
    small: float = 0.01
    """Scale below which a Gaussian is cloned and above which it is split, as a share of the scene."""
    start: float = 0.02
    """Share of the budget before which nothing happens."""
    stop: float = 0.5
    """Share of the budget after which nothing happens."""
    resets: float = 0.1
    """Share of the budget between two opacity resets."""
    watch: ClassVar[str] = "gradient"

    def __post_init__(self) -> None:
        check_ranges(self, threshold=(0, math.inf), small=(0, math.inf), start=(0, 1), stop=(0, 1), resets=(0.01, 1))

    def losses(self, fit: Fit, splats: Splats) -> dict[str, Tensor]:
        """None of its own; asks for the gradient of the projected means."""
        return {}

    @torch.no_grad()
    def update(self, fit: Fit, splats: Splats, probe: Tensor | None, cap: int) -> None:
        """After a step: gather gradients; densify and prune now and then."""
        if fit.progress >= self.stop:
            return
        _gather(fit, splats.means2d.grad if probe is None else probe.grad, splats)
        if fit.progress < self.start or fit.step % EVERY:
            return
        self._densify(fit, cap)
        reset = int(fit.progress / self.resets)
        if reset > fit.memory.get("resets", 0):
            fit.memory["resets"] = reset
            _reset_opacities(fit)

    def _densify(self, fit: Fit, cap: int) -> None:
        memory, size = fit.memory, float(fit.memory["extent"])
        mean = memory.pop("gradient_sum") / memory.pop("gradient_count").clamp_min(1)
        rows = rows_of(fit)
        largest = rows["log_scales"].exp().amax(1)
        high = mean > self.threshold
        room = cap - len(mean)
        if int(high.sum()) > room:  # the cap goes to the largest gradients
            best = torch.topk(mean, max(room, 0)).indices
            high = torch.zeros_like(high).index_fill(0, best, True) & high
        clone, divide = high & (largest <= self.small * size), high & (largest > self.small * size)
        alive = rows["logit_opacities"].sigmoid() >= DEAD
        if fit.progress > self.resets:
            alive &= largest <= 0.1 * size
        keep = torch.nonzero(alive & ~divide).squeeze(1)
        clone, divide = torch.nonzero(clone & alive).squeeze(1), torch.nonzero(divide & alive).squeeze(1)
        if len(keep) + len(clone) + len(divide) == 0:
            return
        parts = [{name: values[keep] for name, values in rows.items()}]
        parts.append({name: values[clone] for name, values in rows.items()})
        parts += [_sampled({name: values[divide] for name, values in rows.items()}, fit.random) for _ in range(2)]
        fresh = len(clone) + 2 * len(divide)
        origin = torch.cat([keep, torch.full((fresh,), -1)])
        set_rows(fit, {name: torch.cat([part[name] for part in parts]) for name in rows}, origin)


@dataclass(frozen=True)
class AbsGrad(Adc):
    """Density control by absolute gradients (Ye et al. 2024): pixels that pull in opposite directions do not cancel."""

    threshold: float = 0.0008
    """Mean absolute gradient of the projected mean, in half-image units, above which a Gaussian is densified."""
    watch: ClassVar[str] = "absolute gradient"


def _gather(fit: Fit, gradient: Tensor | None, splats: Splats) -> None:
    if gradient is None:
        return
    height, width = splats.alpha.shape
    norm = (gradient * gradient.new_tensor([width / 2, height / 2])).norm(dim=1)
    memory = fit.memory
    if "gradient_sum" not in memory:
        memory["gradient_sum"], memory["gradient_count"] = torch.zeros_like(norm), torch.zeros_like(norm)
    memory["gradient_sum"] += norm * splats.visible
    memory["gradient_count"] += splats.visible


def _sampled(rows: dict[str, Tensor], random: torch.Generator) -> dict[str, Tensor]:
    """A smaller copy of each Gaussian at a place drawn from it."""
    scales = rows["log_scales"].exp()
    offset = torch.randn(scales.shape, generator=random) * scales
    moved = rows["means"] + (quaternion_matrices(rows["quats"]) @ offset[..., None])[..., 0]
    return {**rows, "means": moved, "log_scales": rows["log_scales"] - math.log(1.6)}


def _reset_opacities(fit: Fit) -> None:
    """Low opacities everywhere: what is needed comes back, floaters do not."""
    limit = math.log(0.01 / 0.99)
    splat_model(fit).logit_opacities.data.clamp_(max=limit)
    for moment in fit.optimiser.moments["logit_opacities"]:
        moment.zero_()


Strategy: TypeAlias = Mcmc | Adc | AbsGrad
