"""Anchors: where they start, how they grow and go, and what is baked out of them."""

from __future__ import annotations

import dataclasses
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anchorfield.cuda_ext.anchors import decode_anchors
from anchorfield.methods import Fit
from anchorfield.methods._anchors import AnchorModel, DecodingHeads, anchor_model, seeded
from anchorfield.methods._growth import Growth, _new_anchors, cell_keys, keep_anchors
from anchorfield.methods._levels import voxelised
from anchorfield.methods.sags import Sags
from anchorfield.methods.scaffold_gs import ScaffoldGs
from anchorfield.renderer.errors import UsageError
from anchorfield.renderer.metrics import psnr
from anchorfield.renderer.splatting import splat
from anchorfield.scenes.scene import Scene

STEPS = 120


def run(method: ScaffoldGs | Sags, scene: Scene, first: int, last: int, state: object = None) -> Fit:
    fit = None
    for fit in islice(method.fit(scene, state), last - first):  # type: ignore[arg-type]
        fit.progress = fit.step / STEPS
    assert fit is not None
    return fit


@pytest.fixture(scope="module")
def trained(sample_scene: Scene) -> AnchorModel:
    return anchor_model(run(ScaffoldGs(), sample_scene, 0, STEPS))


@given(seed=st.integers(0, 1000), size=st.floats(0.01, 0.5))
def test_every_point_has_one_anchor_in_its_cell(seed: int, size: float) -> None:
    points = np.random.default_rng(seed).normal(size=(60, 3)).astype(np.float32)
    centres = voxelised(points, size)
    expected = {tuple(round(float(v) / size) for v in point) for point in points}
    assert sorted(tuple(round(float(v) / size) for v in centre) for centre in centres) == sorted(expected)


@given(st.lists(st.tuples(*[st.integers(-(2**20), 2**20 - 1)] * 3), min_size=2, max_size=40, unique=True))
def test_cells_have_keys_of_their_own(cells: list[tuple[int, int, int]]) -> None:
    assert len(torch.unique(cell_keys(torch.tensor(cells).float(), 1.0))) == len(cells)


def test_new_anchors_fill_empty_cells_once_with_the_largest_features() -> None:
    anchors = torch.tensor([[0.0, 0, 0]])
    points = torch.tensor([[0.1, 0, 0], [1.1, 0, 0], [0.9, 0, 0], [3.0, 0, 0]])
    features = torch.tensor([[9.0, 9], [1, 4], [2, 3], [5, 6]])
    gradients = torch.tensor([9.0, 1, 1, 2])
    fresh, pooled = _new_anchors(anchors, points, features, gradients, 1.0, 10)
    assert fresh.tolist() == [[1, 0, 0], [3, 0, 0]]
    assert pooled.tolist() == [[2, 4], [5, 6]]
    fresh, pooled = _new_anchors(anchors, points, features, gradients, 1.0, 1)
    assert fresh.tolist() == [[3, 0, 0]], "room goes to the largest gradient in an empty cell"
    assert pooled.tolist() == [[5, 6]]
    assert len(_new_anchors(anchors, points, features, gradients, 1.0, 0)[0]) == 0


def test_idle_anchors_go_with_all_that_is_theirs(sample_scene: Scene) -> None:
    fit = run(ScaffoldGs(), sample_scene, 0, 3)
    model = anchor_model(fit)
    count, offsets = model.offsets.shape[:2]
    fit.memory |= {
        "seen_count": torch.full((count,), 90.0),
        "opacity_sum": torch.full((count,), 90.0),
        "gradient_sum": torch.arange(count * offsets).float(),
        "gradient_count": torch.ones(count * offsets),
    }
    fit.memory["opacity_sum"][5] = 0.004 * 90
    fit.memory["seen_count"][7] = 10  # too seldom to judge
    fit.memory["opacity_sum"][7] = 0
    before, moment = model.features.detach().clone(), fit.optimiser.moments["features"][0].clone()
    Growth()._prune(fit)
    kept = torch.arange(count) != 5
    assert torch.equal(model.features.detach(), before[kept])
    assert torch.equal(fit.optimiser.moments["features"][0], moment[kept])
    assert fit.optimiser.parameters["features"] is model.features
    assert torch.equal(
        fit.memory["gradient_sum"][5 * offsets : 6 * offsets], torch.arange(6 * offsets, 7 * offsets).float()
    )
    assert int(fit.memory["seen_count"].count_nonzero()) == 1, "only those who were not judged are remembered"


def test_growth_stays_below_the_cap(sample_scene: Scene) -> None:
    method = ScaffoldGs(cap=900, growth=Growth(threshold=1e-7, every=20, patience=0.01, stop=1.0))
    fit = run(method, sample_scene, 0, 1)
    first = len(anchor_model(fit).anchors)
    fit = run(method, sample_scene, 0, STEPS)
    count = len(anchor_model(fit).anchors)
    assert first < count <= 900
    assert len(torch.unique(cell_keys(anchor_model(fit).anchors, float(fit.memory["voxel"])))) == count


def test_evaluation_shows_what_training_showed(trained: AnchorModel, sample_scene: Scene) -> None:
    camera = sample_scene.views[sample_scene.test[0]].camera
    training = trained.train().render(camera).rgb
    evaluation = trained.eval().render(camera).rgb
    assert torch.equal(evaluation, trained.render(camera).rgb)
    assert float((training - evaluation).abs().mean()) < 1e-4, "only sums of another order may differ"


def test_baked_splats_look_like_the_model(trained: AnchorModel, sample_scene: Scene) -> None:
    baked = trained.eval().gaussians()
    cameras = [sample_scene.views[i].camera for i in sample_scene.test]
    scores = [psnr(splat(baked, c, trained.background).rgb, trained.render(c).rgb) for c in cameras]
    assert min(scores) > 27, "far closer to the model than the model to the photographs"


@pytest.mark.parametrize(
    "method",
    [ScaffoldGs(bank=True, distance=True), ScaffoldGs(appearance=8, offsets=5, features=16)],
    ids=["bank", "code"],
)
def test_variants_resume_and_restore(method: ScaffoldGs, sample_scene: Scene) -> None:
    whole = run(method, sample_scene, 0, 30)
    parts = run(method, sample_scene, 14, 30, run(method, sample_scene, 0, 14).state())
    for (name, ours), theirs in zip(whole.model.state_dict().items(), parts.model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    camera = sample_scene.views[sample_scene.test[0]].camera
    assert torch.equal(whole.model.render(camera).rgb, method.restore(whole.state()).render(camera).rgb)


def test_a_view_without_a_photograph_has_the_mean_appearance(sample_scene: Scene) -> None:
    model = anchor_model(run(ScaffoldGs(appearance=4), sample_scene, 0, 2))
    camera = sample_scene.views[sample_scene.test[0]].camera
    assert model.codes is not None
    with torch.no_grad():
        model.codes[:] = torch.randn(4)
        same = model.decoded(camera, 3)[1].colours
        assert torch.allclose(model.decoded(camera)[1].colours, same, atol=1e-6)
        model.codes[3] += 5
        assert not torch.allclose(model.decoded(camera, 3)[1].colours, same, atol=1e-3)


def test_starts_without_points(sample_scene: Scene) -> None:
    scene = dataclasses.replace(sample_scene, points=None)
    camera, photo = scene.views[scene.test[0]].camera, scene.photo(scene.test[0])
    before = psnr(run(ScaffoldGs(), scene, 0, 1).model.render(camera).rgb, photo)
    assert psnr(run(ScaffoldGs(), scene, 0, STEPS).model.render(camera).rgb, photo) > before + 3


def test_dropping_no_anchor_changes_nothing(sample_scene: Scene) -> None:
    fit = run(ScaffoldGs(), sample_scene, 0, 2)
    before = {name: value.clone() for name, value in fit.model.state_dict().items()}
    keep_anchors(fit, torch.ones(len(anchor_model(fit).anchors), dtype=torch.bool))
    assert all(torch.equal(value, before[name]) for name, value in fit.model.state_dict().items())


def test_with_few_photographs_a_step_leaves_anchors_out(trained: AnchorModel, sample_scene: Scene) -> None:
    camera = sample_scene.views[sample_scene.train[0]].camera
    all_seen, everything = trained.decoded(camera)
    seen, some = trained.decoded(camera, drop=0.25, random=torch.Generator().manual_seed(0))
    assert torch.equal(seen, all_seen), "those without Gaussians count as seen"
    offsets = trained.heads.offsets
    kept, shown = len((some.origin // offsets).unique()), len((everything.origin // offsets).unique())
    assert abs(kept / shown - 0.75) < 4 * (0.25 * 0.75 / shown) ** 0.5
    same = torch.isin(everything.origin, some.origin)
    torch.testing.assert_close(everything.opacities[same] / 0.75, some.opacities)
    torch.testing.assert_close(everything.colours[same], some.colours)


@pytest.mark.parametrize(
    "method", [ScaffoldGs(), Sags(drop=0.2), Sags(drop=0.2, lite=True)], ids=["scaffold_gs", "sags", "lite"]
)
def test_leaving_anchors_out_resumes_and_counts_what_is_shown(method: ScaffoldGs | Sags, sample_scene: Scene) -> None:
    few = dataclasses.replace(sample_scene, train=sample_scene.train[:8])
    whole = run(method, few, 0, 12)
    assert whole.memory["drop"] == 0.2
    parts = run(method, few, 7, 12, run(method, few, 0, 7).state())
    for (name, ours), theirs in zip(whole.model.state_dict().items(), parts.model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    without = run(dataclasses.replace(method, drop=0.0), few, 0, 12)
    for name, tolerance in (("seen_count", 0.01), ("opacity_sum", 0.25)):
        assert float(whole.memory[name].sum()) == pytest.approx(float(without.memory[name].sum()), rel=tolerance)


def test_a_bank_needs_features_in_fours() -> None:
    with pytest.raises(UsageError, match="multiple of 4"):
        ScaffoldGs(bank=True, features=30)


@pytest.mark.parametrize("seed", range(6))
def test_half_of_the_offsets_begin_visible_whatever_the_seed(seed: int) -> None:
    """Those that do not learn nothing: without care it was between one and nine of ten."""
    with seeded(seed):
        heads = DecodingHeads(32, 10, layers=1, distance=False, appearance=0)
    centre = torch.zeros(3)
    anchors = torch.nn.functional.normalize(torch.randn(400, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    rows = torch.arange(400, dtype=torch.int32)
    features, offsets, sizes = torch.zeros(400, 32), torch.zeros(400, 10, 3), torch.zeros(400, 6)
    decoded = decode_anchors(anchors, features, offsets, sizes, heads(), centre, rows)
    seen = torch.bincount(decoded.origin % 10, minlength=10)
    assert 3 <= int((seen > 200).sum()) <= 7
