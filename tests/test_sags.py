"""SAGS: curvature, points between points, encodings that do not depend on the camera, and SAGS-Lite."""

from __future__ import annotations

import math
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from anchorfield.cuda_ext.anchors import decode_anchors
from anchorfield.methods import Fit
from anchorfield.methods._anchors import AnchorModel, anchor_model
from anchorfield.methods._growth import Growth
from anchorfield.methods.sags import TABLES, Sags, _contracted, between, curvatures
from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.renderer.neighbours import nearest_neighbours
from anchorfield.scenes.scene import Scene

STEPS = 60
GROWING = Growth(threshold=1e-7, every=10, patience=0.01, start=0.1, stop=1.0)


def run(method: Sags, scene: Scene, first: int, last: int, state: object = None) -> Fit:
    fit = None
    for fit in islice(method.fit(scene, state), last - first):  # type: ignore[arg-type]
        fit.progress = fit.step / STEPS
    assert fit is not None
    return fit


def shaken(model: AnchorModel, seed: int = 0) -> AnchorModel:
    """With features that differ, as after a long training."""
    with torch.no_grad():
        model.features.add_(torch.randn(model.features.shape, generator=torch.Generator().manual_seed(seed)))
    return model


def curvature_of(points: Tensor) -> Tensor:
    return curvatures(points, nearest_neighbours(points, 10)[0])


def sheet(count: int, seed: int) -> Tensor:
    """Points on a plane that is tilted to all axes."""
    places = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return places @ torch.tensor([[0.6, 0.3, 0.2], [-0.1, 0.8, 0.4]], dtype=torch.float64)


def test_a_plane_is_flat_and_a_sphere_is_not() -> None:
    directions = torch.nn.functional.normalize(torch.randn(400, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    assert float(curvature_of(sheet(400, 0)).max()) < 1e-6
    ball = curvature_of(directions)
    assert float(ball.min()) > 1e-3
    assert float(ball.max()) <= 1 / 3
    torch.testing.assert_close(curvature_of(5 * directions), ball, atol=1e-6, rtol=1e-4)


def test_curvature_is_a_share_of_singular_values() -> None:
    points = torch.randn(30, 3, generator=torch.Generator().manual_seed(1)).double()
    neighbours = nearest_neighbours(points, 10)[0]
    for found, row in zip(curvatures(points, neighbours), neighbours.long(), strict=True):
        values = np.linalg.svd((points[row] - points[row].mean(0)).numpy(), compute_uv=False)
        assert float(found) == pytest.approx(values[2] / values.sum(), abs=1e-9)


def test_points_between_four_on_a_line() -> None:
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2.1, 0, 0], [3.3, 0, 0]])
    assert between(points, 1, 1).tolist() == [[0, 1], [1, 2], [2, 3]]
    assert between(points, 0, 0).tolist() == []
    assert len(between(points, 9, 9)) == 6, "no more than there are pairs"
    assert between(points[:1], 9, 5).tolist() == []


@given(seed=st.integers(0, 100), curved=st.integers(0, 8))
def test_pairs_are_unique_and_near(seed: int, curved: int) -> None:
    points = torch.randn(60, 3, generator=torch.Generator().manual_seed(seed))
    pairs = between(points, 9, curved)
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert len({tuple(pair) for pair in pairs.tolist()}) == len(pairs)
    near = nearest_neighbours(points, 10)[0].tolist()
    assert all(b in near[a] or a in near[b] for a, b in pairs.tolist())


def test_flat_surfaces_get_more_points_than_curved_ones() -> None:
    bumps = torch.randn(300, 3, generator=torch.Generator().manual_seed(2))
    points = torch.cat([sheet(60, 3).float() + 20, bumps])
    pairs = between(points, 9, 2)
    flat = int((pairs < 60).all(1).sum())
    assert flat > 60 * 9 / 2
    assert len(pairs) - flat <= 300 * 2


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=3))
def test_all_of_space_has_a_place_in_the_grid(point: list[float]) -> None:
    place = _contracted(torch.tensor([point]))
    assert float(place.min()) >= 0
    assert float(place.max()) <= 1
    if math.hypot(*point) <= 1:
        torch.testing.assert_close(place, torch.tensor([point]) / 4 + 0.5)


def test_the_first_points_fill_half_of_the_cap(sample_scene: Scene) -> None:
    assert sample_scene.points is not None
    cap = 4 * len(sample_scene.points.xyz)
    sparse = anchor_model(run(Sags(cap=cap, flat=0, curved=0), sample_scene, 0, 1))
    dense = anchor_model(run(Sags(cap=cap), sample_scene, 0, 1))
    assert len(sparse.anchors) < len(dense.anchors) <= cap // 2 + 500


@pytest.mark.parametrize("lite", [False, True])
def test_what_is_kept_for_evaluation_equals_what_training_decodes(lite: bool, sample_scene: Scene) -> None:
    model = shaken(anchor_model(run(Sags(lite=lite), sample_scene, 0, 2)))
    camera = sample_scene.views[sample_scene.test[0]].camera
    training = model.train().render(camera).rgb
    evaluation = model.eval().render(camera).rgb
    assert torch.equal(evaluation, model.render(camera).rgb)
    assert float((training - evaluation).abs().mean()) < 1e-4, "only sums of another order may differ"


def test_a_point_hears_of_those_around_it_only(sample_scene: Scene) -> None:
    model = shaken(anchor_model(run(Sags(), sample_scene, 0, 2)))
    before = model.described().features.detach().clone()
    with torch.no_grad():
        model.features[0] -= 0.5  # the largest features of the scene are others'
    changed = (model.described().features - before).abs().amax(1) > 0
    assert changed[0]
    assert 1 < int(changed.sum()) < 120, "itself, those that list a neighbour of it, and nobody else"


def test_every_weight_learns(sample_scene: Scene) -> None:
    for method in (Sags(), Sags(lite=True)):
        first = {n: p.detach().clone() for n, p in run(method, sample_scene, 0, 1).model.named_parameters()}
        later = dict(run(method, sample_scene, 0, 20).model.named_parameters())
        assert not [name for name, value in first.items() if torch.equal(value, later[name])]


def test_lite_decodes_points_that_it_does_not_store(sample_scene: Scene) -> None:
    model = shaken(anchor_model(run(Sags(lite=True), sample_scene, 0, 2)))
    described, count = model.described(), len(model.anchors)
    parents = model.parents()
    assert parents is not None
    assert len(parents) == len(described.anchors) > 2 * count
    assert parents[:count].tolist() == [[i, i] for i in range(count)]
    torch.testing.assert_close(described.anchors, model.anchors[parents].mean(1))
    features = described.features[:, 32:64]  # with the neighbours' messages
    torch.testing.assert_close(features, features[:count][parents].mean(1))
    smaller = model.log_scales[parents].mean(1)[count:] - described.log_scales[count:]
    torch.testing.assert_close(smaller, torch.tensor([0.0] * 3 + [math.log(2)] * 3).expand_as(smaller))


def test_lite_steps_the_points_on_both_sides_of_one_that_is_seen(sample_scene: Scene) -> None:
    model = anchor_model(run(Sags(lite=True), sample_scene, 0, 1))
    parents = model.parents()
    assert parents is not None
    seen = torch.zeros(len(parents), dtype=torch.bool)
    seen[-1] = True
    assert torch.nonzero(model.owners(seen)).squeeze(1).tolist() == parents[-1].tolist()


@pytest.mark.parametrize("lite", [False, True])
def test_growing_resumes_and_restores(lite: bool, sample_scene: Scene) -> None:
    method = Sags(cap=1500, lite=lite, growth=GROWING)
    whole = run(method, sample_scene, 0, STEPS)
    half = STEPS // 2 + 3
    parts = run(method, sample_scene, half, STEPS, run(method, sample_scene, 0, half).state())
    for (name, ours), theirs in zip(whole.model.state_dict().items(), parts.model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    assert len(anchor_model(whole).anchors) > len(anchor_model(run(method, sample_scene, 0, 1)).anchors)
    camera = sample_scene.views[sample_scene.test[0]].camera
    assert torch.equal(whole.model.render(camera).rgb, method.restore(whole.state()).render(camera).rgb)


def test_a_table_of_no_known_size_is_refused(sample_scene: Scene) -> None:
    state = run(Sags(), sample_scene, 0, 1).state()
    with pytest.raises(DataError, match="hash grid, got 77 rows"):
        Sags().restore({**state, "model": {**state["model"], "structure.table": torch.zeros(77, 2)}})
    with pytest.raises(UsageError, match=f"{TABLES[0]} to {TABLES[-1]}"):
        Sags(table=30)


def test_what_all_points_share_counts_as_features_do(sample_scene: Scene) -> None:
    model = shaken(anchor_model(run(Sags(), sample_scene, 0, 2)))
    camera = sample_scene.views[sample_scene.test[0]].camera
    anchors, features, offsets, log_scales, shared = model.described()
    assert shared is not None
    whole = torch.cat([features, shared.expand(len(features), -1)], 1)
    seen, ours = model.decoded(camera)
    rows = torch.nonzero(seen).squeeze(1).int()
    theirs = decode_anchors(anchors, whole, offsets, log_scales, model.heads(), camera.centre, rows)
    assert torch.equal(ours.origin, theirs.origin)
    torch.testing.assert_close(ours.colours, theirs.colours, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.opacities, theirs.opacities, atol=1e-5, rtol=1e-4)


def test_lite_without_anything_between_is_a_small_sags(sample_scene: Scene) -> None:
    fit = run(Sags(lite=True, flat=0, curved=0), sample_scene, 0, 3)
    model = anchor_model(fit)
    assert len(model.described().anchors) == len(model.anchors)
