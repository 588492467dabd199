"""Placement: up, origin and scale survive the way to disk and into files; nonsense is told."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from test_app_capture import call, make_capture
from test_app_training import SETTINGS

from anchorfield.app import Run, paths, placement, train
from anchorfield.app.export import export
from anchorfield.app.journal import silent
from anchorfield.app.placement import Placement
from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.scenes.splat_ply import read_ply

Array = NDArray[np.float64]
numbers = st.floats(-10, 10)
points = st.tuples(numbers, numbers, numbers)
turns = st.tuples(numbers, numbers, numbers).map(lambda v: Rotation.from_rotvec(v).as_matrix())


def similarity(rotation: Array, scale: float, shift: tuple[float, ...]) -> Array:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = scale * rotation, shift
    return matrix


@st.composite
def cases(draw: st.DrawFn) -> tuple[Placement, Array]:
    up = draw(points.filter(lambda v: np.linalg.norm(v) > 1e-3))
    source_from_world = similarity(draw(turns), draw(st.floats(0.01, 100)), draw(points))
    made = placement.default(source_from_world).upwards(up).centred(draw(points))
    if draw(st.booleans()):
        made = made.scaled((0, 0, 0), (0, 1, 0), draw(st.floats(0.01, 100)))
    return made, source_from_world


@given(cases())
def test_the_placed_frame_is_upright_centred_and_in_its_units(case: tuple[Placement, Array]) -> None:
    made, source_from_world = case
    matrix = made.placed_from_world(source_from_world)
    linear = matrix[:3, :3]
    assert np.allclose(linear @ linear.T, made.scale**2 * np.eye(3), rtol=0, atol=1e-9 * made.scale**2)
    assert np.linalg.det(linear) > 0
    assert np.allclose(linear @ made.up / made.scale, [0, 0, 1], atol=1e-9)
    assert np.allclose(linear @ made.origin + matrix[:3, 3], 0, atol=1e-9 * max(1.0, made.scale * 20))


@given(cases())
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, case: tuple[Placement, Array]) -> None:
    made, source_from_world = case
    folder = tmp_path_factory.mktemp("run")
    placement.write(folder, made, source_from_world)
    read = placement.read(folder, source_from_world)
    assert read is not None
    assert np.allclose(read.up, made.up, atol=1e-9)
    assert np.allclose(read.origin, made.origin, atol=1e-6)
    assert read.scale == pytest.approx(made.scale, rel=1e-9)
    assert read.metres == made.metres
    assert placement.read(folder / "none", source_from_world) is None


def test_a_capture_that_stands_already_keeps_its_axes() -> None:
    """Up is z in the capture: nothing turns."""
    source_from_world = similarity(np.eye(3), 2.0, (1.0, 2.0, 3.0))
    made = placement.default(source_from_world).upwards((0, 0, 1))
    assert np.allclose(made.placed_from_world(source_from_world), source_from_world)
    down = made.upwards((0, 0, -1)).placed_from_world(source_from_world)
    assert np.allclose(down[:3, :3], 2 * np.diag([1, -1, -1]))


def test_two_points_and_a_length_give_the_scale() -> None:
    made = placement.default(np.eye(4))
    assert made.unit == "units"
    assert made.words((0, 0, 0), (0, 0, 2)) == "2 units"
    measured = made.scaled((0, 0, 0), (0, 0, 2), 0.5)
    assert measured.unit == "m"
    assert measured.measure((0, 0, 0), (4, 0, 0)) == pytest.approx(1.0)
    assert measured.words((0, 0, 0), (4, 0, 0)) == "1 m"
    with pytest.raises(UsageError, match="the same"):
        made.scaled((1, 1, 1), (1, 1, 1), 1)
    for length in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="above 0"):
            made.scaled((0, 0, 0), (1, 1, 1), length)


@pytest.mark.parametrize(
    ("length", "words"),
    [(1.234567, "1.23 m"), (0.5, "50 cm"), (0.0012, "1.2 mm"), (12345.0, "12.3 km"), (0.0, "0 mm"), (1e7, "10,000 km")],
)
def test_lengths_are_told_in_a_unit_that_suits(length: float, words: str) -> None:
    assert placement.length_in_words(length, True) == words


@given(turns, points, st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5))
def test_points_of_a_floor_give_its_normal_on_the_side_of_up(
    rotation: Array, shift: tuple[float, float, float], more: list[tuple[float, float]]
) -> None:
    flat = np.array([(0, 0), (1, 0), (0, 1), *more])
    floor = [rotation @ np.array([x, y, 0.0]) + shift for x, y in flat]
    for up in (rotation[:, 2], -rotation[:, 2]):
        assert np.allclose(placement.default(np.eye(4)).upwards(up).level(floor).up, up, atol=1e-6)


def test_points_that_make_no_floor_are_told() -> None:
    made = placement.default(np.eye(4))
    with pytest.raises(UsageError, match="one line"):
        made.level([(0, 0, 0), (1, 1, 1), (2, 2, 2)])
    with pytest.raises(UsageError, match="three points"):
        made.level([(0, 0, 0), (1, 1, 1)])
    with pytest.raises(UsageError, match="finite"):
        made.centred((0, 0, math.nan))
    with pytest.raises(UsageError, match="above 0"):
        made.upwards((0, 0, 0))


GOOD = {"format": 1, "up": [0, 0, 1], "origin": [0, 0, 0], "metres_per_unit": 1.0}


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"up": [0, 0, 0]},
        {"up": "north"},
        {"up": [0, 1]},
        {"origin": [0, 0, "1e999"]},
        {"origin": None},
        {"metres_per_unit": -1},
        {"metres_per_unit": 0},
        {"metres_per_unit": [1]},
    ],
)
def test_damaged_files_are_told(tmp_path: Path, change: dict[str, object]) -> None:
    (tmp_path / placement.FILE).write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(DataError, match=r"placement\.json"):
        placement.read(tmp_path, np.eye(4))
    for text in ("[]", "{}", "{"):
        (tmp_path / placement.FILE).write_text(text)
        with pytest.raises(DataError, match=r"placement\.json"):
            placement.read(tmp_path, np.eye(4))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("placed")
    train(make_capture(folder / "made"), settings=SETTINGS, steps=2, out=folder / "run", show=silent)
    return folder / "run"


def test_files_are_exported_in_the_placed_frame(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run.open(shutil.copytree(trained, tmp_path / "run"))
    status, _, words = call(capsys, "export", run.path, "-o", tmp_path / "x.ply", "--frame", "placed")
    assert status == 3
    assert "no placement.json" in words
    local = run.gaussians("local").means.double().numpy()
    made = placement.default(run.source_from_world).upwards((1, 2, -3)).centred(local[0])
    made = made.scaled(local[0], local[1], 0.25)
    placement.write(run.path, made, run.source_from_world)
    export(run, tmp_path / "placed.ply", "placed")
    means = read_ply(tmp_path / "placed.ply").means.double().numpy()
    assert np.allclose(means[0], 0, atol=1e-5)
    assert np.linalg.norm(means[1]) == pytest.approx(0.25, rel=1e-4)
    heights = (local - local[0]) @ np.asarray(made.up) * made.scale
    assert np.allclose(means[:, 2], heights, atol=1e-4 * np.abs(heights).max())
    status, out, _ = call(capsys, "export", run.path, "-o", tmp_path / "x.ply", "--frame", "placed", "--json")
    assert status == 0
    assert abs(json.loads(out)["loss"]) < 0.05  # dB


def test_paths_and_orbits_may_be_placed(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run.open(shutil.copytree(trained, tmp_path / "run"))
    up = (0.2, -1.0, 0.1)
    made = placement.default(run.source_from_world).upwards(up).centred((0.1, 0, 0)).scaled((0, 0, 0), (1, 0, 0), 3)
    placement.write(run.path, made, run.source_from_world)
    eye = made.placed_from_world(run.source_from_world) @ np.array([0.5, -0.5, 0.5, 1.0])
    file = tmp_path / "path.json"
    file.write_text(json.dumps({"keyframes": [{"position": eye[:3].tolist(), "look_at": [0, 0, 0]}]}))
    (camera,) = paths.read(file, 50.0, run.from_world, "placed").cameras(run.scene.views[0].camera)
    assert np.allclose(camera.centre.numpy(), [0.5, -0.5, 0.5], atol=1e-5)
    right = camera.world_to_camera[0, :3].double().numpy()
    assert abs(right @ np.asarray(made.up)) < 1e-5  # the horizon is level
    assert call(capsys, "render", run.path, "--path", file, "--frame", "placed", "-o", tmp_path / "a.png")[0] == 0
    for each in paths.orbit(run.scene, 3, made.up):
        assert abs(each.world_to_camera[0, :3].double().numpy() @ np.asarray(made.up)) < 1e-5
    orbit = ("render", run.path, "--orbit", "2", "--frame", "placed", "-o", tmp_path / "orbit")
    assert call(capsys, *orbit)[0] == 0
