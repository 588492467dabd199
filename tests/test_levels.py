"""Levels of detail: what a camera is shown, from which distance, and at what cost."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anchorfield.methods import Fit
from anchorfield.methods._anchors import AnchorModel, anchor_model
from anchorfield.methods._growth import Growth, cell_keys, level_sizes
from anchorfield.methods._levels import Octree, as_coarse_as_they_show, cell, distances, shown
from anchorfield.methods.scaffold_gs import ScaffoldGs
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.metrics import psnr
from anchorfield.scenes.compact import Stored, read_compact, write_compact
from anchorfield.scenes.scene import Scene
from bench.levels import shown_as_from

STEPS = 120
GROWN = Growth(threshold=1e-7, every=10, patience=0.01, start=0.1, stop=0.5)
GROWING = Growth(threshold=1e-7, every=10, patience=0.01, start=0.1, stop=1.0)


def run(method: ScaffoldGs, scene: Scene, first: int, last: int, state: object = None) -> Fit:
    fit = None
    for fit in islice(method.fit(scene, state), last - first):  # type: ignore[arg-type]
        fit.progress = fit.step / STEPS
    assert fit is not None
    return fit


@pytest.fixture(scope="module")
def growing(sample_scene: Scene) -> Fit:
    return run(ScaffoldGs(detail=Octree(levels=4), growth=GROWING), sample_scene, 0, STEPS)


@pytest.fixture(scope="module")
def trained(growing: Fit) -> AnchorModel:
    model = anchor_model(growing)
    assert isinstance(model.eval(), AnchorModel)
    return model


def camera_at(distance: float, focal: float = 100) -> Camera:
    pose = torch.eye(4)
    pose[2, 3] = distance
    return Camera(pose, focal, focal, 32, 32, 64, 64)


def share(distance: float, level: int, focal: float = 100, fading: bool = True) -> float:
    """How much of an anchor of four levels is shown, all of which are shown up to a distance of 1."""
    detail = torch.tensor([1 / 100, 3.0])
    return float(shown(torch.zeros(1, 3), torch.tensor([float(level)]), detail, camera_at(distance, focal), fading))


def test_a_level_appears_at_half_the_distance() -> None:
    assert [share(100, level) for level in range(4)] == [1, 0, 0, 0]
    assert [share(8, level) for level in range(4)] == pytest.approx([1, 0, 0, 0], abs=1e-5)
    assert [share(4, level) for level in range(4)] == pytest.approx([1, 1, 0, 0], abs=1e-5)
    assert [share(2 * 2**0.25, level) for level in range(4)] == pytest.approx([1, 1, 0.75, 0], abs=1e-5)
    assert [share(1e-6, level) for level in range(4)] == [1, 1, 1, 1]
    assert share(4, 1, focal=50) == share(8, 1), "half the focal length is twice the distance"
    assert [share(3, 2, fading=False), share(1.9, 2, fading=False)] == [0, 1]


@given(distance=st.floats(0.01, 100), factor=st.floats(1, 4), level=st.integers(0, 3), fading=st.booleans())
def test_nothing_disappears_as_the_camera_comes_nearer(
    distance: float, factor: float, level: int, fading: bool
) -> None:
    assert share(distance, level, fading=fading) >= share(distance * factor, level, fading=fading)


@given(distance=st.floats(0.01, 100), level=st.integers(0, 3))
def test_a_small_step_changes_little(distance: float, level: int) -> None:
    assert abs(share(distance, level) - share(distance * 1.01, level)) < 0.02


def test_anchors_lie_on_the_grid_of_their_level(sample_scene: Scene) -> None:
    method = ScaffoldGs(cap=8000, detail=Octree(levels=4), growth=GROWING)
    sown = {int(level) for level in anchor_model(run(method, sample_scene, 0, 1)).levels}  # type: ignore[union-attr]
    assert sown == {0, 1}
    fit = run(method, sample_scene, 0, STEPS // 2)
    model, voxel = anchor_model(fit), float(fit.memory["voxel"])
    assert model.levels is not None
    assert {int(level) for level in model.levels} > sown
    for level in range(4):
        own = model.anchors[model.levels == level]
        size = cell(voxel, level, 3)
        torch.testing.assert_close(own, torch.round(own / size) * size, atol=1e-4, rtol=0)
        assert len(torch.unique(cell_keys(own, size))) == len(own)


def test_levels_follow_from_the_distances(sample_scene: Scene) -> None:
    assert sample_scene.points is not None
    usual, farthest = distances(sample_scene, sample_scene.points.xyz)
    assert 0 < usual < farthest
    model = anchor_model(run(ScaffoldGs(detail=Octree()), sample_scene, 0, 1))
    assert model.detail is not None
    assert 1 <= float(model.detail[1]) <= 5
    widest = min(sample_scene.views[i].camera.fx for i in sample_scene.train)
    assert 0.5 * usual < float(model.detail[0]) * widest < 2 * usual, "there are other points than the capture's"


def test_from_far_away_less_is_decoded(trained: AnchorModel, sample_scene: Scene) -> None:
    camera = sample_scene.views[sample_scene.test[0]].camera
    counts = [len(trained.decoded(camera.moved_back(away))[1].means) for away in (0, 2, 8, 64)]
    assert trained.levels is not None
    coarse = int((trained.levels == 0).sum())
    assert counts[3] <= coarse * trained.heads.offsets
    assert counts[3] < 0.5 * max(counts)


def test_a_level_that_fades_in_does_not_pop(trained: AnchorModel, sample_scene: Scene) -> None:
    camera = sample_scene.views[sample_scene.test[0]].camera
    largest = {}
    assert trained.detail is not None
    detail = trained.detail.clone()
    for trained.fading in (True, False):
        frames = []
        for step in range(40):  # as if the camera went away, but without what moves then
            trained.detail[0] = detail[0] * 1.05**-step
            frames.append(trained.render(camera).rgb)
        largest[trained.fading] = max(float((a - b).abs().max()) for a, b in pairwise(frames))
        trained.detail.copy_(detail)
    trained.fading = True
    assert largest[True] < 0.5 * largest[False]


def test_from_far_away_all_levels_look_like_those_that_are_shown(trained: AnchorModel, sample_scene: Scene) -> None:
    camera = sample_scene.views[sample_scene.test[0]].camera.moved_back(4)
    assert trained.detail is not None
    few, detail = trained.render(camera).rgb, trained.detail.clone()
    trained.detail[0] = 1e9
    assert psnr(few, trained.render(camera).rgb) > 20
    trained.detail.copy_(detail)


def test_levels_resume_and_restore(sample_scene: Scene) -> None:
    method = ScaffoldGs(detail=Octree(levels=3), growth=GROWING)
    whole = run(method, sample_scene, 0, 50)
    parts = run(method, sample_scene, 24, 50, run(method, sample_scene, 0, 24).state())
    for (name, ours), theirs in zip(whole.model.state_dict().items(), parts.model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    camera = sample_scene.views[sample_scene.test[0]].camera
    assert torch.equal(whole.model.render(camera).rgb, method.restore(whole.state()).render(camera).rgb)


def far_from_all_levels(model: AnchorModel, scene: Scene) -> float:
    """Mean PSNR of what is shown from far away to all levels there."""
    scores = []
    for index in scene.test:
        camera = scene.views[index].camera.moved_back(4)
        shown_there = model.render(camera).rgb
        with shown_as_from(model, 0):
            scores.append(psnr(shown_there, model.render(camera).rgb))
    return sum(scores) / len(scores)


def test_with_wide_gaussians_far_away_looks_more_like_all_levels(
    growing: Fit, trained: AnchorModel, sample_scene: Scene
) -> None:
    before, levels = far_from_all_levels(trained, sample_scene), trained.levels
    level_sizes(trained, float(growing.memory["voxel"]))
    after = far_from_all_levels(trained, sample_scene)
    trained.levels = levels
    assert after > before + 1


def test_levels_follow_widths_once_nothing_grows(sample_scene: Scene) -> None:
    fit = run(ScaffoldGs(detail=Octree(levels=4), growth=GROWN), sample_scene, 0, 100)
    model, voxel = anchor_model(fit), float(fit.memory["voxel"])
    levels = model.levels
    assert levels is not None
    level_sizes(model, voxel)
    assert model.levels is not None
    assert torch.equal(levels, model.levels), "step 100 has done so"
    in_cells = [model.anchors[levels == level] / cell(voxel, level, 3) for level in range(4)]
    off_grid = sum(int(((places - places.round()).abs() > 0.01).any(1).sum()) for places in in_cells)
    assert off_grid > 0, "none was shown from further away"


def test_anchors_of_wide_gaussians_are_shown_from_further_away() -> None:
    widths = torch.tensor([0.5, 1.9, 2.1, 4.1, 1e6])  # of Gaussians, in cells of the last level
    log_scales = (2 * widths).log()[:, None].repeat(1, 6)
    found = as_coarse_as_they_show(torch.tensor([3.0, 3, 3, 3, 3]), log_scales, torch.tensor([1.0, 3.0]), voxel=1.0)
    assert found.tolist() == [3, 3, 2, 1, 0]
    assert as_coarse_as_they_show(torch.tensor([1.0]), log_scales[:1], torch.tensor([1.0, 3.0]), voxel=1.0).item() == 1


def test_levels_survive_a_compact_file(trained: AnchorModel, sample_scene: Scene, tmp_path: object) -> None:
    path = f"{tmp_path}/model.safetensors"
    write_compact(path, Stored("scaffold_gs", {}, trained.state_dict(), sample_scene.source_from_world))
    model = ScaffoldGs(detail=Octree(levels=4)).restore({"model": read_compact(path).tensors})
    assert trained.levels is not None
    assert model.levels is not None
    assert torch.equal(model.levels, trained.levels)
    assert model.detail is not None


def test_baking_shows_what_the_cameras_see(trained: AnchorModel) -> None:
    assert len(trained.gaussians()) > 0
