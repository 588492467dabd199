"""The contract, for every method in the folder: a new file is tested by being there."""

from __future__ import annotations

import dataclasses
from itertools import islice

import pytest
import torch

from anchorfield import methods
from anchorfield.methods import Fit, HasGaussians, HasPlan, Method
from anchorfield.renderer.errors import UsageError
from anchorfield.renderer.metrics import psnr
from anchorfield.scenes.scene import Scene

STEPS = 120


@pytest.fixture(params=methods.names())
def method(request: pytest.FixtureRequest) -> Method:
    return methods.load(request.param)()


def run(method: Method, scene: Scene, first: int, last: int, state: methods.State | None = None) -> Fit:
    """Steps first+1 .. last of a budget of STEPS, as the application drives them."""
    fit = None
    for fit in islice(method.fit(scene, state), last - first):
        fit.progress = fit.step / STEPS
    assert fit is not None
    return fit


def flat(state: object, prefix: str = "") -> dict[str, object]:
    if isinstance(state, dict):
        return {k: v for key, value in state.items() for k, v in flat(value, f"{prefix}/{key}").items()}
    return {prefix: state.clone() if isinstance(state, torch.Tensor) else state}


def held_out(fit: Fit, scene: Scene) -> float:
    values = [psnr(fit.model.render(scene.views[i].camera).rgb, scene.photo(i)) for i in scene.test]
    return sum(values) / len(values)


def test_settings_are_frozen_and_described(method: Method) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.seed = 3  # type: ignore[misc]
    assert methods.describe(method.__class__.__module__.rsplit(".", 1)[1]).endswith(".")


def test_learns(method: Method, sample_scene: Scene) -> None:
    start = run(method, sample_scene, 0, 1)
    before = held_out(start, sample_scene)
    after = held_out(run(method, sample_scene, 0, STEPS), sample_scene)
    assert after > before + 3, "the squared error did not even halve"


def test_resume_equals_an_uninterrupted_run(method: Method, sample_scene: Scene) -> None:
    whole = flat(run(method, sample_scene, 0, STEPS).state())
    half = STEPS // 2 + 7
    state = run(method, sample_scene, 0, half).state()
    parts = flat(run(method, sample_scene, half, STEPS, state).state())
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, parts[name]), name  # type: ignore[arg-type]
        else:
            assert value == parts[name], name


def test_restored_model_renders_the_same(method: Method, sample_scene: Scene) -> None:
    fit = run(method, sample_scene, 0, 20)
    camera = sample_scene.views[sample_scene.test[0]].camera
    ours, theirs = fit.model.render(camera), method.restore(fit.state()).render(camera)
    assert torch.equal(ours.rgb, theirs.rgb)
    assert torch.equal(ours.depth, theirs.depth)


def test_frames_have_the_promised_shapes(method: Method, sample_scene: Scene) -> None:
    camera = sample_scene.views[sample_scene.test[0]].camera.resized(75, 41)
    frame = run(method, sample_scene, 0, 2).model.render(camera)
    assert frame.rgb.shape == (41, 75, 3)
    assert frame.alpha.shape == frame.depth.shape == (41, 75)
    assert all(torch.isfinite(t).all() for t in (frame.rgb, frame.alpha, frame.depth))
    assert frame.alpha.min() >= 0
    assert frame.alpha.max() <= 1


def test_capabilities_hold(method: Method, sample_scene: Scene) -> None:
    fit = run(method, sample_scene, 0, 2)
    if isinstance(fit.model, HasGaussians):
        gaussians = fit.model.gaussians()
        assert len(gaussians) > 0
        assert not gaussians.means.requires_grad
    if isinstance(method, HasPlan):
        assert all(isinstance(line, str) and line for line in method.plan(sample_scene))


def test_unknown_method_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="gaussian_splatting"):
        methods.load("gausian_splating")
