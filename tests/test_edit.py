"""The editor: selections against plain references, undo bit for bit, bounded memory, scripts that repeat."""

from __future__ import annotations

import contextlib
import json
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anchorfield.app.edit import Editor, operation_from_json, replay, selecting, values
from anchorfield.app.edit import operations as ops
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import AnchorfieldError, DataError, UsageError
from anchorfield.renderer.splatting import splat
from anchorfield.renderer.types import PARAMETERS, SH_C0, Gaussians
from anchorfield.scenes.splat_ply import read_ply, write_ply

COUNT = 400
BOX = {"operation": "select_box", "centre": [0, 0, 3], "half_extents": [0.5, 0.7, 0.6], "wxyz": [0.9, 0.1, 0.3, 0.2]}


def cloud(count: int = COUNT, seed: int = 0, degree: int = 2) -> Gaussians:
    """Gaussians around (0, 0, 3)."""
    g = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=torch.randn(count, 3, generator=g) * 0.6 + torch.tensor([0, 0, 3.0]),
        log_scales=torch.randn(count, 3, generator=g) * 0.4 - 3,
        quats=torch.randn(count, 4, generator=g),
        logit_opacities=torch.randn(count, generator=g),
        sh=torch.randn(count, (degree + 1) ** 2, 3, generator=g) * 0.3,
    )


def camera(x: float = 0.1) -> Camera:
    pose = torch.eye(4)
    pose[0, 3] = x
    return Camera(pose, 90.0, 80.0, 50.5, 41.0, 100, 80)


def same(a: Gaussians, b: Gaussians) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in PARAMETERS)


def snapshot(editor: Editor) -> list[Tensor]:
    masks = [editor.selection, editor.hidden, editor.locked]
    return [getattr(editor.gaussians, name).clone() for name in PARAMETERS] + [mask.clone() for mask in masks]


def pixel(point: Tensor, seen: Camera) -> tuple[float, float, float]:
    """Where one point shows, in Python's own numbers."""
    pose = seen.world_to_camera.double().tolist()
    x, y, z = (sum(pose[r][c] * float(point[c]) for c in range(3)) + pose[r][3] for r in range(3))
    return seen.fx * x / z + seen.cx, seen.fy * y / z + seen.cy, z


def clear_of(value: float, *borders: float) -> bool:
    return all(abs(value - border) > 1e-6 for border in borders)


corner = st.floats(-20, 120)


@given(corner, corner, corner, corner, st.floats(-1, 1))
def test_rectangle_takes_the_centres_between_its_corners(x0: float, y0: float, x1: float, y1: float, tx: float) -> None:
    gaussians, seen = cloud(100), camera(tx)
    mask = selecting.rectangle(gaussians.means, seen, x0, y0, x1, y1)
    for point, taken in zip(gaussians.means, mask.tolist(), strict=True):
        x, y, z = pixel(point, seen)
        inside = min(x0, x1) <= x <= max(x0, x1) and min(y0, y1) <= y <= max(y0, y1) and z > seen.near
        assert taken == inside or not (clear_of(x, x0, x1) and clear_of(y, y0, y1))


@given(st.lists(st.tuples(corner, corner), min_size=3, max_size=12))
def test_lasso_takes_what_its_line_encloses_an_odd_number_of_times(points: list[tuple[float, float]]) -> None:
    gaussians, seen = cloud(100), camera()
    mask = selecting.lasso(gaussians.means, seen, tuple(points))
    for point, taken in zip(gaussians.means, mask.tolist(), strict=True):
        x, y, _ = pixel(point, seen)
        crossings, clear = 0, True
        for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
            if (ay <= y) != (by <= y):
                at = ax + (y - ay) * (bx - ax) / (by - ay)
                crossings += x < at
                clear &= clear_of(x, at)
            clear &= clear_of(y, ay)
        assert taken == bool(crossings % 2) or not clear


@given(st.lists(st.tuples(corner, corner), min_size=1, max_size=8), st.floats(0, 40))
def test_brush_takes_what_lies_within_its_radius(points: list[tuple[float, float]], radius: float) -> None:
    gaussians, seen = cloud(100), camera()
    mask = selecting.brush(gaussians.means, seen, tuple(points), radius)
    for point, taken in zip(gaussians.means, mask.tolist(), strict=True):
        x, y, _ = pixel(point, seen)
        nearest = min(distance(x, y, a, b) for a, b in zip(points, points[1:] or points, strict=False))
        assert taken == (nearest <= radius) or not clear_of(nearest, radius)


def distance(x: float, y: float, a: tuple[float, float], b: tuple[float, float]) -> float:
    squared = (b[0] - a[0]) ** 2 + (b[1] - a[1]) ** 2
    t = 0.0 if squared == 0 else ((x - a[0]) * (b[0] - a[0]) + (y - a[1]) * (b[1] - a[1])) / squared
    t = min(1.0, max(0.0, t))
    return math.hypot(x - a[0] - t * (b[0] - a[0]), y - a[1] - t * (b[1] - a[1]))


def test_nothing_behind_the_camera_is_taken() -> None:
    behind = cloud()
    turned = Camera(torch.diag(torch.tensor([1.0, -1, -1, 1])), 90.0, 80.0, 50.0, 40.0, 100, 80)
    everywhere = ((-1e6, -1e6), (1e6, -1e6), (1e6, 1e6), (-1e6, 1e6))
    expected = -behind.means[:, 2] > turned.near
    assert torch.equal(selecting.rectangle(behind.means, turned, -1e6, -1e6, 1e6, 1e6), expected)
    assert torch.equal(selecting.lasso(behind.means, turned, everywhere), expected)


def test_solids_ranges_and_colours_agree_with_their_formulas() -> None:
    g = cloud()
    means = g.means.double()
    turn = selecting.rotation((0.9, 0.1, 0.3, 0.2))
    assert torch.allclose(turn @ turn.T, torch.eye(3).double(), atol=1e-12)
    assert torch.linalg.det(turn) > 0
    inside = torch.tensor(
        [bool((abs((p - torch.tensor([0, 0, 3.0])) @ turn) <= torch.tensor([0.5, 0.7, 0.6])).all()) for p in means]
    )
    assert torch.equal(selecting.box(g.means, (0, 0, 3), (0.5, 0.7, 0.6), (0.9, 0.1, 0.3, 0.2)), inside)
    ball = torch.tensor([math.dist(p, (0.1, 0, 3)) <= 0.8 for p in means.tolist()])
    assert torch.equal(selecting.sphere(g.means, (0.1, 0, 3), 0.8), ball)
    assert torch.equal(selecting.plane(g.means, (0, 0, 3), (0, 0, 5)), g.means[:, 2] >= 3)
    rgb = g.sh[:, 0].double() * SH_C0 + 0.5
    close = torch.tensor([math.dist(c, (0.5, 0.4, 0.5)) <= 0.15 for c in rgb.tolist()])
    assert torch.equal(selecting.colour(g, (0.5, 0.4, 0.5), 0.15), close)
    assert 0 < int(close.sum()) < COUNT
    assert torch.allclose(selecting.attribute(g, "size"), g.log_scales.double().exp().amax(1))
    for name in ("opacity", "size", "elongation", "distance", "red", "green", "blue", "x", "y", "z"):
        assert selecting.attribute(g, name).shape == (COUNT,)


def test_front_only_leaves_out_what_a_wall_covers() -> None:
    grid = torch.cartesian_prod(torch.linspace(-1, 1, 40), torch.linspace(-1, 1, 40))
    wall = torch.cat([grid, torch.full((len(grid), 1), 2.0)], 1)
    means = torch.cat([wall, wall * 2])
    count = len(means)
    sh = torch.zeros(count, 1, 3)
    g = Gaussians(means, torch.full((count, 3), -3.0), torch.eye(4)[:1].repeat(count, 1), torch.full((count,), 4.0), sh)
    editor = Editor(g)
    whole = {"operation": "select_rectangle", "camera": values.plain(camera(0)), "x0": 20, "y0": 20, "x1": 80, "y1": 60}
    editor.do(operation_from_json(whole | {"front_only": True}))
    assert int(editor.selection[: len(grid)].sum()) > 200
    assert int(editor.selection[len(grid) :].sum()) == 0
    editor.do(operation_from_json(whole))
    assert int(editor.selection[len(grid) :].sum()) > 200


def test_grow_and_shrink_against_all_pairs() -> None:
    editor = Editor(cloud())
    editor.do(operation_from_json(BOX))
    before = editor.selection.clone()
    pairs = torch.cdist(editor.gaussians.means.double(), editor.gaussians.means.double())
    editor.do(ops.Grow(distance=0.2))
    assert torch.equal(editor.selection, (pairs[:, before] <= 0.2).any(1))
    grown = editor.selection.clone()
    editor.do(ops.Shrink(distance=0.2))
    assert torch.equal(editor.selection, grown & ~(pairs[:, ~grown] <= 0.2).any(1))


def test_modes_join_selections() -> None:
    editor = Editor(cloud())
    a = selecting.sphere(editor.gaussians.means, (0, 0, 3), 0.9)
    b = selecting.sphere(editor.gaussians.means, (0.5, 0, 3), 0.9)
    for mode, expected in {"add": a | b, "remove": a & ~b, "intersect": a & b, "set": b}.items():
        editor.do(ops.SelectSphere(centre=(0, 0, 3), radius=0.9))
        editor.do(
            operation_from_json({"operation": "select_sphere", "centre": [0.5, 0, 3], "radius": 0.9, "mode": mode})
        )
        assert torch.equal(editor.selection, expected)


def test_hidden_and_locked_are_neither_selected_nor_changed() -> None:
    editor = Editor(cloud())
    first = editor.gaussians
    editor.do(ops.SelectSphere(centre=(0, 0, 3), radius=0.5))
    locked = editor.selection.clone()
    editor.do(ops.Lock())
    editor.do(ops.SelectRange(attribute="x", low=0.3))
    hidden = editor.selection.clone()
    assert not bool((hidden & locked).any())
    editor.do(ops.Hide())
    assert len(editor.shown()) == COUNT - int(hidden.sum())
    editor.do(ops.SelectAll())
    assert torch.equal(editor.selection, ~(locked | hidden))
    editor.do(ops.SelectNone())
    editor.do(ops.Transform(matrix=similarity(2.0)))
    kept = locked | hidden
    assert torch.equal(editor.gaussians.means[kept], first.means[kept])
    assert not bool((editor.gaussians.means[~kept] == first.means[~kept]).all(1).any())
    editor.do(ops.Crop(to="box", centre=(100, 100, 100)))
    assert same(editor.gaussians, selecting.rows(first, torch.nonzero(kept).squeeze(1)))
    editor.do(ops.Unhide())
    editor.do(ops.Unlock())
    assert not bool(editor.hidden.any())
    assert not bool(editor.locked.any())


def similarity(scale: float) -> Any:
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = scale * selecting.rotation((0.8, 0.3, 0.1, 0.5))
    matrix[:3, 3] = torch.tensor([0.1, 0.2, 0.3])
    return matrix


def ten_edits(path: Path) -> list[ops.Operation]:
    write_ply(path, cloud(30, seed=5))
    return [
        operation_from_json(BOX),
        ops.Transform(matrix=similarity(1.3)),
        ops.Adjust(brightness=0.1, contrast=1.2, saturation=0.7, temperature=-0.4, opacity=0.8),
        ops.Duplicate(),
        ops.Separate(layer="copy"),
        operation_from_json({**BOX, "centre": [0.4, 0, 3]}),
        ops.Delete(),
        ops.Merge(file=str(path)),
        ops.CleanUp(kind="dust", strength=0.9),
        ops.Merge(layer="copy"),
        ops.Lock(),
    ]


def test_ten_edits_undone_and_done_again_are_exact_bit_for_bit(tmp_path: Path) -> None:
    editor = Editor(cloud())
    states = [snapshot(editor)]
    for operation in ten_edits(tmp_path / "other.ply"):
        editor.do(operation)
        states.append(snapshot(editor))
    for expected in reversed(states[:-1]):
        assert editor.undo()
        assert all(torch.equal(a, b) for a, b in zip(snapshot(editor), expected, strict=True))
    assert editor.undo() is None
    assert editor.position == 0
    for expected in states[1:]:
        assert editor.redo()
        assert all(torch.equal(a, b) for a, b in zip(snapshot(editor), expected, strict=True))
    assert editor.redo() is None
    assert len(editor.history()) == editor.position == 11


def test_a_new_edit_forgets_what_was_undone() -> None:
    editor = Editor(cloud())
    editor.do(ops.SelectAll())
    editor.do(ops.SelectNone())
    editor.undo()
    editor.do(operation_from_json(BOX))
    assert editor.redo() is None
    assert len(editor.history()) == 2
    assert [entry["operation"] for entry in editor.script()["operations"]] == ["select_all", "select_box"]


def test_memory_stays_bounded_over_200_edits() -> None:
    memory = 20_000
    editor = Editor(cloud(), memory=memory)
    told = False
    for number in range(100):
        editor.do(ops.SelectSphere(centre=(0.01 * number, 0, 3), radius=0.5))
        told |= "can no longer be undone" in editor.do(ops.Adjust(opacity=0.999))
        assert editor.undo_bytes <= memory
    assert told
    assert 0 < editor.undoable < 200
    assert len(editor.history()) == 200
    assert len(editor.script()["operations"]) == 200
    undone = 0
    while editor.undo():
        undone += 1
    assert undone == 200 - editor.position
    assert editor.position > 0


def test_transform_shows_the_same_from_a_camera_that_moves_along() -> None:
    g = cloud(degree=3)
    seen = camera()
    matrix = similarity(1.0)
    editor = Editor(g)
    editor.do(ops.Transform(matrix=matrix))
    pose = torch.linalg.inv(matrix @ torch.linalg.inv(seen.world_to_camera.double())).float()
    moved = Camera(pose, seen.fx, seen.fy, seen.cx, seen.cy, seen.width, seen.height)
    before, after = splat(g, seen, torch.zeros(3)).rgb, splat(editor.gaussians, moved, torch.zeros(3)).rgb
    assert torch.allclose(before, after, atol=2e-3)


def test_adjust_is_an_affine_map_of_every_colour() -> None:
    editor = Editor(cloud())
    before = editor.gaussians
    editor.do(ops.Adjust(saturation=0))
    grey = selecting.colours(editor.gaussians)
    assert torch.allclose(grey, grey[:, :1].expand(-1, 3), atol=1e-6)
    assert torch.allclose(
        grey[:, 0], selecting.colours(before) @ torch.tensor([0.2126, 0.7152, 0.0722]).double(), atol=1e-6
    )
    editor.undo()
    editor.do(ops.Adjust(brightness=0.2, contrast=1.5))
    expected = (selecting.colours(before) - 0.5) * 1.5 + 0.5 + 0.2
    assert torch.allclose(selecting.colours(editor.gaussians), expected, atol=1e-5)
    assert torch.equal(editor.gaussians.logit_opacities, before.logit_opacities)
    editor.undo()
    editor.do(ops.Adjust(opacity=0.5))
    assert torch.allclose(editor.gaussians.logit_opacities.sigmoid(), before.logit_opacities.sigmoid() / 2, atol=1e-6)
    editor.undo()
    editor.do(ops.Adjust())
    assert same(editor.gaussians, before)


def test_selection_and_preview_are_tinted_only_in_what_is_shown() -> None:
    editor = Editor(cloud())
    plain = editor.shown()
    assert plain is editor.shown()
    mask, sentence = editor.preview(operation_from_json(BOX))
    assert int(mask.sum()) > 5
    assert "would be selected" in sentence
    assert not bool(editor.selection.any())
    version = editor.version
    editor.show_preview(mask)
    assert editor.version > version
    assert not torch.equal(editor.shown().sh[mask], plain.sh[mask])
    assert torch.equal(editor.shown().sh[~mask], plain.sh[~mask])
    assert same(editor.gaussians, plain)
    editor.show_preview(None)
    assert same(editor.shown(), plain)
    with pytest.raises(UsageError, match="mask of 400"):
        editor.show_preview(mask[:5])


def test_histogram_counts_what_is_not_hidden() -> None:
    editor = Editor(cloud())
    editor.do(operation_from_json(BOX))
    editor.do(ops.Hide())
    counts, edges = editor.histogram("opacity", 10)
    assert counts.sum() == int((~editor.hidden).sum())
    assert len(edges) == 11
    with pytest.raises(UsageError, match="opacity, size"):
        editor.histogram("nonsense")  # type: ignore[arg-type]


def test_replaying_a_script_gives_the_same_bits(tmp_path: Path) -> None:
    editor = Editor(cloud())
    for operation in ten_edits(tmp_path / "other.ply"):
        editor.do(operation)
    script = json.loads(json.dumps(editor.script(), allow_nan=False))
    again = replay(cloud(), script)
    assert same(again.gaussians, editor.gaussians)
    assert again.script() == editor.script()
    assert not again.notes
    assert "other Gaussians" in replay(cloud(seed=3), script).notes[0]
    write_ply(tmp_path / "other.ply", cloud(30, seed=6))
    with pytest.raises(DataError, match=r"operation 8 of 11.*not the file"):
        replay(cloud(), script)


def test_merge_brings_files_into_the_editors_frame(tmp_path: Path) -> None:
    write_ply(tmp_path / "other.ply", cloud(30, seed=5, degree=3))
    matrix = np.diag([2.0, 2, 2, 1])
    editor = Editor(cloud(), source_from_world=matrix)
    assert editor.do(ops.Merge(file=str(tmp_path / "other.ply"))) == "30 Gaussians merged"
    assert torch.equal(editor.gaussians.means[COUNT:], read_ply(tmp_path / "other.ply").means / 2)
    assert editor.gaussians.sh.shape == (COUNT + 30, 9, 3)
    assert int(editor.selection.sum()) == 30


REFUSED = [
    None,
    [],
    "delete",
    {"operation": "explode"},
    {"operation": "delet"},
    {"operation": ["delete"]},
    {"operation": "delete", "extra": 1},
    {"operation": "select_sphere", "centre": [0, 0, float("nan")], "radius": 1},
    {"operation": "select_sphere", "centre": [0, 0, 10**400], "radius": 1},
    {"operation": "select_sphere", "centre": [0, 0], "radius": 1},
    {"operation": "select_sphere", "centre": "here", "radius": 1},
    {"operation": "select_sphere", "centre": [0, 0, 0], "radius": True},
    {"operation": "select_sphere", "centre": [0, 0, 0], "radius": -1},
    {"operation": "select_sphere", "centre": [0, 0, 0], "radius": float("inf")},
    {"operation": "select_sphere", "centre": [0, 0, 0]},
    {"operation": "select_sphere", "centre": [0, 0, 0], "radius": 1, "mode": "xor"},
    {"operation": "select_box", "centre": [0, 0, 0], "half_extents": [1, 1, 1], "wxyz": [0, 0, 0, 0]},
    {"operation": "select_plane", "point": [0, 0, 0], "normal": [0, 0, 0]},
    {"operation": "select_lasso", "camera": {}, "points": [[0, 0], [1, 1], [2, 0]]},
    {"operation": "select_rectangle", "x0": 0, "y0": 0, "x1": 1, "y1": 1},
    {"operation": "select_range", "attribute": "weight"},
    {"operation": "select_range", "attribute": "size", "low": 3, "high": 1},
    {"operation": "transform", "matrix": [[1, 0, 0, 0]] * 4},
    {"operation": "transform", "matrix": np.diag([1.0, 1, -1, 1]).tolist()},
    {"operation": "transform", "matrix": np.diag([0.0, 0, 0, 1]).tolist()},
    {"operation": "transform", "matrix": 3},
    {"operation": "adjust", "contrast": 1e300},
    {"operation": "clean_up", "kind": "floaters", "strength": 2},
    {"operation": "clean_up", "kind": ["floaters"], "strength": 1},
    {"operation": "merge"},
    {"operation": "merge", "file": "a\0b.ply"},
    {"operation": "merge", "file": "x" * 100_000},
    {"operation": "separate", "layer": " "},
    {"operation": "grow", "distance": {"a": 1}},
]


@pytest.mark.parametrize("value", REFUSED, ids=str)
def test_what_is_no_operation_is_refused_in_words(value: Any) -> None:
    with pytest.raises(UsageError) as caught:
        operation_from_json(value)
    assert 10 < len(str(caught.value)) < 500


def test_cameras_in_scripts_are_checked() -> None:
    good = values.plain(camera())
    bad: list[tuple[str, Any]] = [
        ("fx", 0), ("near", -1), ("fx", float("nan")), ("width", 10**9), ("width", 3.5), ("height", 0), ("height", "a"),
        ("world_to_camera", np.diag([2.0, 1, 1, 1]).tolist()), ("world_to_camera", [[1, 2], [3, 4]]),
    ]  # fmt: skip
    for name, value in bad:
        with pytest.raises(UsageError, match=f"camera.{name}"):
            operation_from_json({"operation": "select_lasso", "camera": {**good, name: value}, "points": [[0, 0]] * 3})


@pytest.mark.parametrize("operation", [ops.Delete(), ops.Duplicate(), ops.Separate(), ops.Hide(), ops.Crop()])
def test_what_needs_a_selection_says_so_and_changes_nothing(operation: ops.Operation) -> None:
    editor = Editor(cloud())
    with pytest.raises(UsageError, match="nothing is selected"):
        editor.do(operation)
    assert editor.version == 0
    assert editor.history() == []


def test_impossible_edits_change_nothing(tmp_path: Path) -> None:
    editor = Editor(cloud())
    editor.do(ops.SelectAll())
    before, version = snapshot(editor), editor.version
    (tmp_path / "broken.ply").write_bytes(b"ply\nformat nonsense\n")
    refused = [
        ops.Delete(),
        ops.Separate(),
        ops.Merge(layer="nowhere"),
        ops.Merge(file=str(tmp_path / "none.ply")),
        ops.Merge(file=str(tmp_path / "broken.ply")),
        ops.Merge(file=str(tmp_path)),
        ops.CleanUp(kind="outside", strength=0.5),
    ]
    for operation in refused:
        with pytest.raises(AnchorfieldError):
            editor.do(operation)
    assert editor.version == version
    assert all(torch.equal(a, b) for a, b in zip(snapshot(editor), before, strict=True))


@pytest.mark.parametrize(
    "script", [None, 3, {}, {"operations": 3}, {"format": "x", "operations": []}, [3], {"operations": [{}]}]
)
def test_what_is_no_script_is_refused_in_words(script: Any) -> None:
    with pytest.raises(UsageError):
        replay(cloud(), script)


def test_threads_edit_and_look_at_the_same_time() -> None:
    editor = Editor(cloud())
    problems: list[Exception] = []

    def work(seed: int) -> None:
        try:
            for number in range(20):
                editor.do(ops.SelectSphere(centre=(0.1 * seed, 0.01 * number, 3), radius=0.4))
                shown = editor.shown()
                assert len(shown.means) == len(shown.sh) == len(shown.quats)
                editor.undo()
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert same(editor.gaussians, cloud())


extreme = st.sampled_from(
    [0.0, -0.0, 1e-300, 1e-9, 1e9, -1e9, 1e12, 0.5, 1.0, 50.0, -3.0, float("nan"), 10**30, True, "1"]
)
vector = st.lists(extreme, min_size=3, max_size=3)
camera_entry = st.builds(
    lambda fx, cx, shift, width: {
        "world_to_camera": [[1, 0, 0, shift], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
        "fx": fx,
        "fy": 50,
        "cx": cx,
        "cy": 40,
        "width": width,
        "height": 80,
    },
    *(extreme, extreme, extreme, st.sampled_from([0, 1, 100, 16384, 10**9])),
)
points = st.lists(st.lists(extreme, min_size=2, max_size=2), max_size=5)
entry = st.one_of(
    st.builds(
        lambda c, p, r, f: {"operation": "select_brush", "camera": c, "points": p, "radius": r, "front_only": f},
        *(camera_entry, points, extreme, st.booleans()),
    ),
    st.builds(
        lambda c, p: {"operation": "select_lasso", "camera": c, "points": p, "front_only": True}, camera_entry, points
    ),
    st.builds(lambda c, r: {"operation": "select_sphere", "centre": c, "radius": r}, vector, extreme),
    st.builds(lambda c, h: {"operation": "select_box", "centre": c, "half_extents": h}, vector, vector),
    st.builds(lambda p, n: {"operation": "select_plane", "point": p, "normal": n}, vector, vector),
    st.builds(lambda d: {"operation": "grow", "distance": d}, extreme),
    st.builds(lambda d: {"operation": "shrink", "distance": d}, extreme),
    st.builds(lambda b, c, o: {"operation": "adjust", "brightness": b, "contrast": c, "opacity": o}, *[extreme] * 3),
    st.builds(
        lambda s, t: {"operation": "transform", "matrix": [[s, 0, 0, t], [0, s, 0, 0], [0, 0, s, 0], [0, 0, 0, 1]]},
        *[extreme] * 2,
    ),
    st.builds(
        lambda k, s: {"operation": "clean_up", "kind": k, "strength": s},
        *(st.sampled_from(["floaters", "dust", "needles", "outside"]), extreme),
    ),
    st.sampled_from([{"operation": name} for name in ("invert", "delete", "duplicate", "hide", "unhide", "crop")]),
)


@given(st.lists(entry, max_size=6))
@settings(max_examples=120)
def test_no_script_brings_the_editor_down(script: list[dict[str, Any]]) -> None:
    editor = Editor(cloud(60), [camera(0.1 * number) for number in range(4)])
    states = [snapshot(editor)]
    for value in script:
        version = editor.version
        with contextlib.suppress(AnchorfieldError):
            editor.do(operation_from_json(value))
            version += 1
        assert editor.version == version
        assert len(editor.history()) == version
        if version == len(states):
            states.append(snapshot(editor))
        assert all(torch.equal(a, b) for a, b in zip(snapshot(editor), states[-1], strict=True))
    assert all(bool(getattr(editor.gaussians, name).isfinite().all()) for name in PARAMETERS)
    while editor.undo():
        pass
    assert same(editor.gaussians, cloud(60))
