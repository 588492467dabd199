"""Distances to meshes, fields that learn them, and the verb `fit-mesh`."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from numpy.typing import NDArray

from anchorfield.app.cli import main
from anchorfield.app.fit_mesh import fit_mesh
from anchorfield.renderer.distance_field import DistanceField, Samples, fit_distance
from anchorfield.renderer.errors import DataError
from anchorfield.renderer.mesh_distance import MeshDistance
from anchorfield.scenes.mesh_files import read_mesh

pytestmark = pytest.mark.usefixtures("one_torch_thread")

Array = NDArray[np.float64]
SIDES = np.array([0.5, 0.3, 0.2])


def places(count: int = 3000, reach: float = 1.0) -> Array:
    return np.random.default_rng(0).uniform(-reach, reach, (count, 3))


def of_box(points: Array) -> Array:
    beyond = np.abs(points) - SIDES / 2
    return np.asarray(np.linalg.norm(np.maximum(beyond, 0), axis=1) + np.minimum(beyond.max(1), 0))


def box(rounds: int = 0) -> trimesh.Trimesh:
    made = trimesh.creation.box(SIDES)
    for _ in range(rounds):
        made = made.subdivide()
    return made


@pytest.mark.parametrize("rounds", [0, 3])
def test_distances_to_a_box_are_exact(rounds: int) -> None:
    mesh = box(rounds)
    found = MeshDistance(mesh.vertices, mesh.faces).signed(places())
    np.testing.assert_allclose(found, of_box(places()), atol=1e-12)


def test_distances_to_a_ball_are_those_to_its_faces() -> None:
    mesh = trimesh.creation.icosphere(4, 0.5)
    found = MeshDistance(mesh.vertices, mesh.faces).signed(places())
    ball = np.linalg.norm(places(), axis=1) - 0.5
    sunk = 0.5 - np.linalg.norm(mesh.triangles_center, axis=1).min()  # faces lie that far inside at most
    assert np.all(found >= ball - 1e-12)
    assert np.all(found <= ball + sunk + 1e-12)
    some = places()[:100]
    exact = trimesh.proximity.closest_point_naive(mesh, some)[1]
    np.testing.assert_allclose(np.abs(found[:100]), exact, atol=1e-12)


def test_winding_numbers_count_shells_and_fall_off_through_a_hole() -> None:
    outer, inner = trimesh.creation.icosphere(3, 0.5), trimesh.creation.icosphere(3, 0.2)
    both = trimesh.util.concatenate([outer, inner])
    radius = np.linalg.norm(places(), axis=1)
    clear = (np.abs(radius - 0.5) > 0.02) & (np.abs(radius - 0.2) > 0.02)
    expected = (radius < 0.5).astype(int) + (radius < 0.2)
    found = MeshDistance(both.vertices, both.faces).winding(places())
    np.testing.assert_allclose(found[clear], expected[clear], atol=0.1)
    half = outer.faces[outer.triangles_center[:, 2] < 0]
    # A hemisphere takes up half of the sphere of directions about its middle.
    middle = MeshDistance(outer.vertices, half).winding(np.array([[0.0, 0, 0], [0, 0, -0.4], [0, 0, 0.4]]))
    assert middle[0] == pytest.approx(0.5, abs=0.05)
    assert middle[2] < 0.3 < 0.7 < middle[1]


def test_faces_without_area_change_nothing() -> None:
    mesh = box()
    faces = np.concatenate([mesh.faces, [[0, 0, 1], [2, 2, 2]]])
    found = MeshDistance(mesh.vertices, faces).signed(places(200))
    np.testing.assert_allclose(found, of_box(places(200)), atol=1e-12)


def learnt(steps: int) -> tuple[DistanceField, list[float]]:
    mesh, random = box(), torch.Generator().manual_seed(3)
    samples = Samples(mesh.vertices + 0.5, np.asarray(mesh.faces, np.int64), 8192, random)
    field = DistanceField(24, 14, random)
    spent = iter(range(steps))
    return field, list(islice(fit_distance(field, samples, random, lambda: next(spent) / steps), steps))


def test_a_box_is_learnt_and_the_same_seed_learns_the_same() -> None:
    field, errors = learnt(60)
    assert errors[-1] < 0.3 * errors[0]
    points = places(2000, 0.45)
    found = field.distance(torch.from_numpy(points + 0.5).float()).numpy()
    assert np.abs(found - of_box(points)).mean() < 0.1 * np.abs(of_box(points)).mean()
    far = np.abs(of_box(points)) > 0.05
    assert np.array_equal(found[far] < 0, of_box(points)[far] < 0)
    again, _ = learnt(60)
    assert torch.equal(field.weights, again.weights)
    assert torch.equal(field.encoding.table, again.encoding.table)


def test_a_ball_comes_back_in_its_own_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "ball.stl", tmp_path / "ball.ply"
    mesh = trimesh.creation.icosphere(2, 2.0)
    mesh.apply_translation([100, -50, 7])
    mesh.invert()  # faces that look inwards are turned
    mesh.export(source)
    settings = ["--seconds", "4", "--size", "14", "--resolution", "24", "--json"]
    assert main(["fit-mesh", str(source), "-o", str(out), *settings]) == 0
    said = json.loads(capsys.readouterr().out)
    made = trimesh.load_mesh(out)
    assert len(made.faces) == said["faces"]
    assert made.is_watertight
    assert made.volume == pytest.approx(abs(mesh.volume), rel=0.05)
    np.testing.assert_allclose(made.bounds, mesh.bounds, atol=0.1)
    gaps = trimesh.proximity.closest_point_naive(made, mesh.vertices)[1]
    assert 100 * gaps.mean() / (4 * 3**0.5) == pytest.approx(said["from_source"]["mean"], abs=0.3)
    assert said["to_source"]["mean"] < 1


def test_an_open_mesh_is_fitted_with_a_warning_in_words(tmp_path: Path) -> None:
    mesh = box()
    path = tmp_path / "open.ply"
    trimesh.Trimesh(mesh.vertices, mesh.faces[1:]).export(path)
    with pytest.warns(UserWarning, match="not watertight, 3 edges are open"):
        fit_mesh(path, tmp_path / "out.obj", 0.5, 14, 16)
    assert (tmp_path / "out.obj").stat().st_size > 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("v 0 0 0\nv 1 0 0\n", "no triangles|cannot be read"),
        ("v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n", "no triangle has an area"),
        ("v 0 0 nan\nv 1 0 0\nv 2 1 0\nf 1 2 3\n", "not finite"),
        ("v 0 0 0\nv 1 0 0\nv 2 1 0\nf 1 2 9\n", "cannot be read as a mesh|a vertex that is not there"),
        ("", "cannot be read as a mesh|no triangles"),
    ],
)
def test_what_is_no_mesh_is_refused_in_words(content: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "made.obj"
    path.write_text(content)
    with pytest.raises(DataError, match=words):
        read_mesh(path)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["missing.ply", "-o", "out.ply"], 3, "missing.ply does not exist"),
        (["notes.txt", "-o", "out.ply"], 3, "no ending of a mesh"),
        (["torn.ply", "-o", "out.ply"], 3, "torn.ply cannot be read as a mesh"),
        (["sheet.ply", "-o", "out.ply"], 3, "encloses nothing"),
        (["sheet.ply"], 2, "-o FILE"),
        (["sheet.ply", "-o", "out.stl"], 2, ".ply"),
        (["sheet.ply", "-o", "out.ply", "--seconds", "0"], 2, "--seconds"),
        (["sheet.ply", "-o", "out.ply", "--size", "40"], 2, "--size"),
        (["sheet.ply", "-o", "out.ply", "--resolution", "4"], 2, "--resolution"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*not watertight")  # the sheet is open: what is refused is that it has no inside
def test_fit_mesh_refuses_in_words(
    arguments: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("no mesh")
    trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [1, 1, 0]], [[0, 1, 2]]).export("sheet.ply")
    Path("torn.ply").write_bytes(Path("sheet.ply").read_bytes()[:-20])
    assert main(["fit-mesh", *arguments]) == code
    assert words in capsys.readouterr().err
    assert not Path("out.ply").exists()
