"""Selections against plain references."""

from __future__ import annotations

import math

import torch
from edited import BOX, COUNT, camera, cloud
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from anchorfield.app.edit import Editor, operation_from_json, selecting, values
from anchorfield.app.edit import operations as ops
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.types import SH_C0, Gaussians


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
