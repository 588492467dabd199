"""The benchmarks' own parts: made scenes look like trained ones, counts are right, regressions are found."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from captures import transforms

from anchorfield.cuda_ext import native
from anchorfield.cuda_ext.hash_grid import hash_grid as encode
from anchorfield.cuda_ext.projection import Projected
from anchorfield.methods._anchors import AnchorModel
from anchorfield.methods._levels import Octree
from anchorfield.methods.scaffold_gs import ScaffoldGs
from anchorfield.renderer.metrics import psnr
from anchorfield.renderer.splatting import flattened
from anchorfield.scenes.load import load_scene
from anchorfield.scenes.scene import Scene
from bench import (
    _lanes,
    _machine,
    _peer_gsplat,
    _peers,
    _statistics,
    check,
    hash_grid,
    image,
    levels,
    memory,
    mixed_scales,
    training_step,
)
from bench._machine import Ceiling
from bench._operations import Operation, Stages, evaluations
from bench._scenes import drawn, fox, made
from bench._timing import Timing, relative_deviation, timed

pytestmark = pytest.mark.usefixtures("one_torch_thread")

# Of the trained fox at 270x480, mean over its views (bench/README.md): per pixel but for the Gaussians
FOX = {"pairs 16": 1.00, "reached": 110.8, "blends": 94.0, "vectors 4x4": 7.41}


def test_a_made_scene_has_the_counts_of_the_trained_one() -> None:
    scene = made(round(fox().seen), 270, 480)
    flat = flattened(scene.gaussians, scene.camera)
    assert 0.93 * len(scene.gaussians) < flat.visible.sum() <= len(scene.gaussians)
    total = _lanes.counts(flat, 270, 480)
    for name, value in FOX.items():
        assert total[name] / (270 * 480) == pytest.approx(value, rel=0.15), name


def test_a_made_scene_has_the_statistics_it_is_made_from() -> None:
    scene = made(20_000, 270, 480, seed=1)
    found = _statistics.fitted(scene.gaussians, [scene.camera])
    aside, _, depth, major, ratio, logit = np.abs(found.quantiles - fox().quantiles)[:, 3:-5].max(axis=1)
    assert max(aside, depth, logit) < 0.15
    assert max(major, ratio) < 0.35  # areas are calibrated, and perspective widens the thin ones
    assert np.abs(found.correlation - fox().correlation).max() < 0.1


def test_drawing_is_reproducible_and_scales() -> None:
    first, again = (drawn(fox(), 100, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first, again)
    few, many = (
        evaluations(flattened(s.gaussians, s.camera), 270, 480) for s in (made(5000, 270, 480), made(20000, 270, 480))
    )
    assert many == pytest.approx(few, rel=0.6)  # the overdraw stays, but for the widening and what is cut off


def test_evaluations_are_the_pixels_that_gaussians_reach() -> None:
    scene = made(3000, 128, 96)
    flat = flattened(scene.gaussians, scene.camera)
    assert evaluations(flat, 128, 96) == pytest.approx(
        _lanes.counts(flat, 128, 96)["reached"], rel=0.1
    )  # what lies across the border is estimated


def flat_stack(count: int, middle: float, conic: float, opacity: float, extent: float) -> Projected:
    """Round Gaussians behind one another."""
    return Projected(
        means2d=torch.full((count, 2), middle),
        conics=torch.tensor([[conic, 0.0, conic]]).expand(count, 3),
        depths=torch.arange(count) + 1.0,
        opacities=torch.full((count,), opacity),
        extents=torch.full((count, 2), extent),
    )


def test_lanes_of_one_gaussian_are_counted_by_hand() -> None:
    one = flat_stack(1, 8.0, 2.0, 0.5, 2.3)
    total = _lanes.counts(one, 40, 33)
    centres = torch.arange(16) + 0.5 - 8
    inside = 0.5 * torch.exp(-(centres[:, None] ** 2 + centres**2)) >= 1 / 255
    assert total["blends"] == total["reached"] == inside.sum()
    assert total["vectors 16x1"] == inside.any(1).sum()
    assert total["vectors 4x4"] == 4
    assert total["pairs 16"] == total["pairs 32"] == 1
    assert total["pairs 8"] == 4
    assert total["evaluations 8"] == 4 * 64


def test_an_opaque_pixel_stops() -> None:
    count = 20
    stack = flat_stack(count, 16.0, 1e-4, 0.95, 200.0)
    total = _lanes.counts(stack, 32, 32)
    assert total["reached"] == count * 32 * 32
    assert 3 * 32 * 32 <= total["blends"] <= 4 * 32 * 32  # 0.05^3 > 1e-4 >= 0.05^4


def entry(ratio: float, deviation: float = 0.02) -> dict[str, float]:
    return {"ratio": ratio, "deviation": deviation}


def test_a_regression_is_found_and_noise_is_not() -> None:
    base = {"fast": entry(4.0), "noisy": entry(4.0, 0.1), "gone": entry(1.0), "memory": {"bytes": 1000.0}}
    same = {
        "fast": entry(4.9),
        "noisy": entry(5.5, 0.05),
        "gone": entry(0.5),
        "new": entry(99.0),
        "memory": {"bytes": 1090.0},
    }
    assert check.regressions(base, same) == []
    worse = {"fast": entry(5.1), "noisy": entry(6.0, 0.05), "memory": {"bytes": 1110.0}}
    assert [line.split(":")[0] for line in check.regressions(base, worse)] == ["gone", "fast", "noisy", "memory"]
    assert check.regressions({"wild": entry(1.0, 0.9)}, {"wild": entry(1.7)})
    assert check.merged(worse, {"fast": entry(4.5)})["fast"] == entry(4.5)
    assert check.merged(worse, {"fast": entry(6.5)})["fast"] == entry(5.1)


def stub_measurements(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *ratios: float) -> list[object]:
    """Measurements that give these ratios one after another; what was asked for is kept."""
    asked: list[object] = []
    left = list(ratios)

    def measured(names: object = None) -> dict[str, check.Entry]:
        asked.append(None if names is None else list(names))  # type: ignore[call-overload]
        return {"one": entry(left.pop(0))}

    monkeypatch.setattr(check, "BASELINE", tmp_path / "baseline.json")
    monkeypatch.setattr(check, "measured", measured)
    monkeypatch.setattr(check, "memory_entry", dict)
    return asked


def test_the_check_fails_only_where_a_repetition_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = stub_measurements(monkeypatch, tmp_path, 1.0)
    assert check.check() == 0
    assert "no baseline" in capsys.readouterr().out
    assert asked == []
    (tmp_path / "baseline.json").write_text(json.dumps({_machine.key(): {"one": entry(1.0)}}))
    asked = stub_measurements(monkeypatch, tmp_path, 2.0, 1.9, 1.1)
    assert check.check() == 0
    assert asked == [None, ["one"], ["one"]]
    stub_measurements(monkeypatch, tmp_path, 2.0, 1.9, 1.8)
    assert check.check() == 1
    assert "one: 1.80 times its floor, baseline 1.00" in capsys.readouterr().out


def test_updating_keeps_other_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub_measurements(monkeypatch, tmp_path, 2.0, 1.9)
    (tmp_path / "baseline.json").write_text(json.dumps({"another": {"one": entry(1.0)}}))
    check.update()
    assert check.baselines() == {"another": {"one": entry(1.0)}, _machine.key(): {"one": entry(1.9)}}


def test_the_committed_baseline_names_what_is_measured() -> None:
    for machine, entries in check.baselines().items():
        assert "threads" in machine
        for count, width, height in check.SCENES:
            for name in ("compositing", "compositing backward", "training step", "Adam"):
                assert f"{name}, {count:,} at {width}x{height}" in entries


def test_floors_add_up_and_the_slower_bound_counts() -> None:
    ceiling = Ceiling(flops=100.0, bandwidth=10.0)
    compute, traffic = Operation("a", int, lanes=100, traffic=1), Operation("b", int, lanes=1, traffic=50)
    assert compute.floor(ceiling) == 2.0
    assert traffic.floor(ceiling) == 5.0
    assert Operation("c", int, parts=(compute, traffic)).floor(ceiling) == 7.0


def test_timing_finds_how_long_a_run_takes() -> None:
    stream = _machine.Stream(2**12)
    found = timed([Operation("sleep", lambda: time.sleep(0.02), traffic=1.0)], stream, rounds=3, seconds=0.04)[0]
    assert 0.02 <= found.median < 0.2
    assert len(found.ratios) == 3
    assert found.spread[0] <= found.median <= found.spread[1]
    assert relative_deviation([1.0, 1.0, 2.0, 1.5]) == pytest.approx(0.2)
    assert np.isnan(Timing(found.operation).ratio)


def test_a_step_on_a_made_scene_leaves_it_as_it_was() -> None:
    stages = Stages(made(500, 64, 48))
    before = stages.made.gaussians.means.clone()
    steps = training_step.steps(stages)
    for _ in range(3):
        next(steps)
    assert torch.equal(stages.made.gaussians.means, before)
    names = [o.name for group in training_step.GROUPS for o in group.operations(stages)]
    assert len(set(names)) == len(names)
    operation = next(training_step.operations(stages))
    operation.run()
    assert operation.floor(Ceiling(1e9, 1e9)) > 0


def test_memory_of_a_gaussian_is_the_slope() -> None:
    assert memory.per_gaussian({1000: 5000, 3000: 9000}) == 2.0
    assert memory.fits(10, 64, 64)
    assert not memory.fits(10**12, 64, 64)


def test_a_peer_agrees_with_us_or_says_why_it_cannot() -> None:
    if _peer_gsplat.problem():
        assert all("pip install" in line for line in _peers.missing())
        pytest.skip(str(_peer_gsplat.problem()))
    stages = Stages(made(500, 64, 48))
    with torch.no_grad():
        ours = image.image(stages)
    assert psnr(_peer_gsplat.image(stages.made.gaussians, stages.camera), ours) > 50


def test_the_gsplat_substitutes_blend_as_we_do() -> None:
    stages = Stages(made(500, 64, 48))
    camera, flat = stages.camera, stages.flat
    radii = (flat.extents + 0.999).floor()  # gsplat's boxes are whole pixels
    values = (radii, *flat[:1], flat.depths, flat.conics, flat.opacities, stages.colours)
    pairs, offsets = _peer_gsplat._pairs(tuple(t.detach() for t in values), camera)
    found, _ = _peer_gsplat._blended(pairs, offsets, camera, None)
    with torch.no_grad():
        assert psnr(found, image.image(stages)) > 50


def test_ceilings_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _machine.ceiling(_machine.Stream(2**16), repeats=9)
    assert found.flops > 1e8
    assert found.bandwidth > 1e7
    assert _machine.key().startswith(native.instruction_set())


@pytest.mark.parametrize("name", hash_grid.LAYOUTS)
def test_the_hash_grid_in_torch_is_ours(name: str) -> None:
    layout = hash_grid.LAYOUTS[name]
    g = torch.Generator().manual_seed(5)
    positions = torch.rand(200, 3, generator=g, dtype=torch.float64)
    table = torch.randn(layout.rows, layout.features, generator=g, dtype=torch.float64)
    expected = encode(positions, table, layout)
    torch.testing.assert_close(hash_grid.torch_hash_grid(positions, table, layout), expected)


def test_a_capture_of_mixed_sizes_has_the_same_cameras_and_the_means_of_its_pixels(tmp_path: Path) -> None:
    transforms(tmp_path / "made", count=9)
    scene = load_scene(tmp_path / "made")
    (tmp_path / "mixed" / "images").mkdir(parents=True)
    mixed_scales.write(scene, tmp_path / "mixed")
    mixed = load_scene(tmp_path / "mixed")
    factors = mixed_scales.FACTORS
    assert (len(mixed.train), len(mixed.test)) == (len(factors) * len(scene.train), len(factors) * len(scene.test))
    index = scene.test[1]
    for factor in factors:
        view = next(v for v in mixed.views if v.name == f"images/{index:04d}_{factor}.png")
        expected = scene.views[index].camera
        height, width = 30 // factor, 40 // factor
        assert (view.camera.width, view.camera.height) == (width, height)
        assert view.camera.fx == pytest.approx(expected.fx * width / 40)
        place = mixed.source_from_world @ np.append(view.camera.centre.numpy(), 1)
        wanted = scene.source_from_world @ np.append(expected.centre.numpy(), 1)
        np.testing.assert_allclose(place, wanted, atol=1e-4)
        pixels = scene.views[index].load()[: height * factor, : width * factor].double()
        means = pixels.reshape(height, factor, width, factor, 3).mean((1, 3))
        torch.testing.assert_close(view.load().double(), means, atol=0.51, rtol=0)


def test_a_transparent_pixel_lends_its_neighbours_no_colour() -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = 200, 100, 50, 255
    assert mixed_scales.reduced(pixels, 2).tolist() == [[[200, 100, 50, 64]]]


def test_a_walk_away_from_levels_of_detail_is_measured(sample_scene: Scene) -> None:
    fit = next(ScaffoldGs(detail=Octree(levels=5)).fit(sample_scene))
    assert isinstance(fit.model.eval(), AnchorModel)
    camera = sample_scene.views[sample_scene.test[0]].camera
    far = camera.moved_back(9.0)
    assert float((far.centre - camera.centre).norm()) == pytest.approx(9, rel=1e-4)
    assert float((far.centre - camera.centre) @ camera.world_to_camera[2, :3]) == pytest.approx(-9, rel=1e-4)
    shown = len(fit.model.decoded(far)[1].means)
    with levels.shown_as_from(fit.model, 0):
        everything = len(fit.model.decoded(far)[1].means)
    assert shown < everything
    assert f"{shown:,}" in levels.line(fit.model, 4.0, [far])
