"""The contract, for every method in the folder: a new file is tested by being there."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from itertools import islice

import pytest
import torch

from anchorfield import methods
from anchorfield.methods import Fit, HasGaussians, HasPlan, Method
from anchorfield.renderer.errors import UsageError
from anchorfield.renderer.metrics import psnr
from anchorfield.scenes.scene import Scene

STEPS, HALF = 120, 67


@dataclasses.dataclass(frozen=True)
class Ran:
    """A method after all steps of a budget; which serves every test that only looks."""

    method: Method
    first: float  # dB of held-out views after a step
    half: methods.State  # as it was
    fit: Fit


@pytest.fixture(scope="module", params=methods.names())
def ran(request: pytest.FixtureRequest, sample_scene: Scene) -> Ran:
    method = methods.load(request.param)()
    first, half, fit = 0.0, None, None
    for fit in islice(driven(method.fit(sample_scene)), STEPS):
        if fit.step == 1:
            first = held_out(fit, sample_scene)
        if fit.step == HALF:
            half = copy.deepcopy(fit.state())
    assert fit is not None
    assert half is not None
    return Ran(method, first, half, fit)


def driven(steps: Iterator[Fit]) -> Iterator[Fit]:
    """Steps of a budget of STEPS, as the application drives them."""
    for fit in steps:
        fit.progress = fit.step / STEPS
        yield fit


def flat(state: object, prefix: str = "") -> dict[str, object]:
    if isinstance(state, dict):
        return {k: v for key, value in state.items() for k, v in flat(value, f"{prefix}/{key}").items()}
    return {prefix: state.clone() if isinstance(state, torch.Tensor) else state}


def held_out(fit: Fit, scene: Scene) -> float:
    """Mean PSNR of three held-out views: fields take long to draw what is still fog."""
    values = [psnr(fit.model.render(scene.views[i].camera).rgb, scene.photo(i)) for i in scene.test[::3]]
    return sum(values) / len(values)


def test_settings_are_frozen_and_described(ran: Ran) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ran.method.seed = 3  # type: ignore[misc]
    assert methods.describe(ran.method.__class__.__module__.rsplit(".", 1)[1]).endswith(".")


def test_learns(ran: Ran, sample_scene: Scene) -> None:
    assert held_out(ran.fit, sample_scene) > ran.first + 3, "the squared error did not even halve"


def test_resume_equals_an_uninterrupted_run(ran: Ran, sample_scene: Scene) -> None:
    *_, fit = islice(driven(ran.method.fit(sample_scene, ran.half)), STEPS - HALF)
    whole, parts = flat(ran.fit.state()), flat(fit.state())
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, parts[name]), name  # type: ignore[arg-type]
        else:
            assert value == parts[name], name


def test_restored_model_renders_the_same(ran: Ran, sample_scene: Scene) -> None:
    camera = sample_scene.views[sample_scene.test[0]].camera
    ours, theirs = ran.fit.model.render(camera), ran.method.restore(ran.fit.state()).render(camera)
    assert torch.equal(ours.rgb, theirs.rgb)
    assert torch.equal(ours.depth, theirs.depth)


def test_frames_have_the_promised_shapes(ran: Ran, sample_scene: Scene) -> None:
    camera = sample_scene.views[sample_scene.test[0]].camera.resized(75, 41)
    frame = ran.fit.model.render(camera)
    assert frame.rgb.shape == (41, 75, 3)
    assert frame.alpha.shape == frame.depth.shape == (41, 75)
    assert all(torch.isfinite(t).all() for t in (frame.rgb, frame.alpha, frame.depth))
    assert frame.alpha.min() >= 0
    assert frame.alpha.max() <= 1


def test_capabilities_hold(ran: Ran, sample_scene: Scene) -> None:
    if isinstance(ran.fit.model, HasGaussians):
        gaussians = ran.fit.model.gaussians()
        assert len(gaussians) > 0
        assert not gaussians.means.requires_grad
    if isinstance(ran.method, HasPlan):
        assert all(isinstance(line, str) and line for line in ran.method.plan(sample_scene))


def test_unknown_method_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="gaussian_splatting"):
        methods.load("gausian_splating")
