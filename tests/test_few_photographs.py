"""Where photographs are few, steps leave Gaussians out: how many, which, and that a run goes on as it would have."""

from __future__ import annotations

import dataclasses
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anchorfield.methods import Fit
from anchorfield.methods._splats import thinned
from anchorfield.methods._views import share_to_drop
from anchorfield.methods.gaussian_splatting import GaussianSplatting
from anchorfield.renderer.types import Gaussians
from anchorfield.scenes.scene import Scene


def gaussians(opacities: torch.Tensor) -> Gaussians:
    count = len(opacities)
    return Gaussians(
        torch.zeros(count, 3), torch.zeros(count, 3), torch.ones(count, 4), opacities.logit(), torch.zeros(count, 1, 3)
    )


def test_how_many_photographs_are_few(sample_scene: Scene) -> None:
    def dropped(count: int) -> float:
        return share_to_drop(0.2, dataclasses.replace(sample_scene, train=tuple(range(count))))

    assert [dropped(3), dropped(12), dropped(24), dropped(40)] == [0.2, 0.2, 0, 0]
    assert dropped(18) == pytest.approx(0.1)


@given(drop=st.floats(0.05, 0.9), opacity=st.floats(0.01, 0.99), seed=st.integers(0, 1000))
def test_what_is_shown_is_as_opaque_on_average(drop: float, opacity: float, seed: int) -> None:
    count = 4000
    found = thinned(gaussians(torch.full((count,), opacity)), drop, torch.Generator().manual_seed(seed))
    opacities = found.logit_opacities.sigmoid()
    shown = opacities > 1e-9
    assert abs(float(shown.float().mean()) - (1 - drop)) < 5 * (drop * (1 - drop) / count) ** 0.5
    expected = min(opacity / (1 - drop), 0.9999)
    torch.testing.assert_close(opacities[shown], torch.full_like(opacities[shown], expected), atol=1e-4, rtol=1e-4)


def test_gradients_reach_those_that_are_shown() -> None:
    whole = gaussians(torch.full((100,), 0.5))
    whole.logit_opacities.requires_grad_()
    found = thinned(whole, 0.25, torch.Generator().manual_seed(0)).logit_opacities.sigmoid()
    found.sum().backward()
    shown = found.detach() > 1e-9
    assert whole.logit_opacities.grad is not None
    # d/dl of sigmoid(l) / (1 - drop) at sigmoid(l) = 1/2
    torch.testing.assert_close(whole.logit_opacities.grad, shown.float() * 0.25 / 0.75)


def test_a_run_with_few_photographs_resumes_bit_for_bit(sample_scene: Scene) -> None:
    few = dataclasses.replace(sample_scene, train=sample_scene.train[:8])
    method = GaussianSplatting(cap=1500)

    def run(first: int, last: int, state: object = None) -> Fit:
        fit = None
        for fit in islice(method.fit(few, state), last - first):  # type: ignore[arg-type]
            fit.progress = fit.step / 30
        assert fit is not None
        return fit

    whole = run(0, 12)
    assert whole.memory["drop"] == 0.2
    parts = run(7, 12, run(0, 7).state())
    for (name, ours), theirs in zip(whole.model.state_dict().items(), parts.model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    without = next(dataclasses.replace(method, drop=0.0).fit(few))
    assert without.memory["drop"] == 0
