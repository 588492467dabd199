"""Strategies of splatting: counts, identities of relocation, bookkeeping of the optimiser's rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anchorfield.methods._strategies import AbsGrad, Adc, Mcmc, Strategy, shared_opacity
from anchorfield.methods._views import reduction
from anchorfield.methods.gaussian_splatting import GaussianSplatting, Rates
from anchorfield.renderer.errors import UsageError
from anchorfield.scenes.scene import Scene


def slow_shared_opacity(opacity: float, copies: int) -> tuple[float, float]:
    """Equation 9 of Kheradmand et al. as it stands, with its double sum."""
    after = min(max(1 - (1 - opacity) ** (1 / copies), 0.005), 1 - 1e-6)
    total = 0.0
    for i in range(1, copies + 1):
        for k in range(i):
            total += math.comb(i - 1, k) * (-1) ** k * after ** (k + 1) / math.sqrt(k + 1)
    return after, opacity / total


@given(st.floats(0.006, 0.99), st.integers(1, 20))
def test_shared_opacity_is_equation_9(opacity: float, copies: int) -> None:
    after, shrink = shared_opacity(torch.tensor([opacity], dtype=torch.float64), torch.tensor([copies]))
    expected = slow_shared_opacity(opacity, copies)
    assert float(after) == pytest.approx(expected[0], rel=1e-9)
    assert float(shrink) == pytest.approx(expected[1], rel=1e-6)


@given(st.floats(0.3, 0.9), st.integers(2, 10))
def test_copies_look_as_the_one_did_at_the_centre(opacity: float, copies: int) -> None:
    after, _ = shared_opacity(torch.tensor([opacity], dtype=torch.float64), torch.tensor([copies]))
    assert 1 - (1 - float(after)) ** copies == pytest.approx(opacity, rel=1e-6)


@pytest.mark.parametrize("strategy", [Mcmc(), Adc(), AbsGrad()], ids=lambda s: type(s).__name__)
def test_counts_stay_under_the_cap_and_rows_stay_together(strategy: Strategy, sample_scene: Scene) -> None:
    method = GaussianSplatting(strategy=strategy, cap=3000)
    counts = []
    for fit in islice(method.fit(sample_scene), 450):
        fit.progress = min(1.0, fit.step / 900)
        counts.append(len(fit.model.means))
        rows = {p.shape[0] for p in fit.model.parameters()}
        moments = {m.shape[0] for pair in fit.optimiser.moments.values() for m in pair}
        assert rows == moments == {counts[-1]}
    assert max(counts) <= 3000
    assert len(set(counts)) > 1, "the strategy changed nothing"


def test_mcmc_reaches_its_cap(sample_scene: Scene) -> None:
    for fit in islice(GaussianSplatting(cap=3000).fit(sample_scene), 300):
        fit.progress = fit.step / 300
    assert len(fit.model.means) == 3000


def test_images_grow_with_progress() -> None:
    assert [reduction(p, 0.3, 400) for p in (0.0, 0.05, 0.15, 0.3, 1.0)] == [4, 4, 2, 1, 1]
    assert reduction(0.0, 0.3, 100) == 1, "no smaller than 64 pixels"
    assert reduction(0.0, 0, 4000) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: GaussianSplatting(sh_degree=4),
        lambda: GaussianSplatting(cap=-1),
        lambda: GaussianSplatting(cap="many"),  # type: ignore[arg-type]
        lambda: GaussianSplatting(ssim_weight=float("nan")),
        lambda: Mcmc(grown=0),
        lambda: Adc(resets=0),
        lambda: Rates(means=-1),
    ],
)
def test_settings_out_of_range_are_refused_by_name(make: Callable[[], object]) -> None:
    with pytest.raises(UsageError, match=r"^--[a-z-]+: expected .* got "):
        make()
