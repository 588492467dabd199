"""Meshes in files, read back by trimesh and plyfile."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray
from plyfile import PlyData
from scipy.spatial.transform import Rotation

from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.renderer.meshing import Mesh, with_normals
from anchorfield.scenes.mesh_files import in_source_frame, upright, write_mesh

ENDINGS = ("ply", "glb", "obj")


def tetrahedron() -> Mesh:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]], np.float32)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32)
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 128, 250]], np.uint8)
    return with_normals(Mesh(vertices, faces, colours))


def similarity() -> NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[:3, :3] = 2.5 * Rotation.from_rotvec([0.3, -0.5, 0.9]).as_matrix()
    matrix[:3, 3] = 10, -20, 30
    return matrix


def chunks(path: Path) -> tuple[dict[str, object], bytes]:
    """The parts of a .glb, its lengths checked."""
    content = path.read_bytes()
    magic, version, total, length, kind = struct.unpack_from("<4sIII4s", content)
    assert (magic, version, total, kind) == (b"glTF", 2, len(content), b"JSON")
    assert length % 4 == 0
    size, name = struct.unpack_from("<I4s", content, 20 + length)
    assert name == b"BIN\0"
    assert 28 + length + size == total
    return json.loads(content[20 : 20 + length]), content[28 + length :]


def normals_in(path: Path) -> NDArray[np.float64]:
    """The normals of a file's vertices as they are stored: trimesh makes its own from the faces."""
    if path.suffix == ".ply":
        vertex = PlyData.read(path)["vertex"]
        return np.stack([vertex[name] for name in ("nx", "ny", "nz")], 1).astype(np.float64)
    if path.suffix == ".obj":
        return np.array([line.split()[1:] for line in path.read_text().splitlines() if line[:3] == "vn "], np.float64)
    document, binary = chunks(path)
    accessor = document["accessors"][document["meshes"][0]["primitives"][0]["attributes"]["NORMAL"]]  # type: ignore[index]
    view = document["bufferViews"][accessor["bufferView"]]  # type: ignore[index]
    stored = np.frombuffer(binary, "<f4", 3 * accessor["count"], view["byteOffset"])
    return stored.reshape(-1, 3).astype(np.float64)


@pytest.mark.parametrize("ending", ENDINGS)
def test_other_programs_read_the_same_triangles(ending: str, tmp_path: Path) -> None:
    mesh, out = tetrahedron(), tmp_path / f"mesh.{ending}"
    write_mesh(out, mesh, similarity(), up=(0, 1, 0))
    read = trimesh.load(out, force="mesh", process=False)
    expected = mesh.vertices @ similarity()[:3, :3].T + similarity()[:3, 3]
    np.testing.assert_allclose(read.vertices, expected, rtol=1e-5)
    np.testing.assert_array_equal(read.faces, mesh.faces)
    assert read.volume == pytest.approx(2.5**3, rel=1e-5)
    turned = mesh.normals @ similarity()[:3, :3].T / 2.5  # type: ignore[operator]
    np.testing.assert_allclose(normals_in(out), turned, atol=1e-3)


@pytest.mark.parametrize("ending", ["ply", "obj"])
def test_colours_are_those_of_photographs(ending: str, tmp_path: Path) -> None:
    out = tmp_path / f"mesh.{ending}"
    write_mesh(out, tetrahedron())
    read = trimesh.load(out, process=False)
    np.testing.assert_allclose(read.visual.vertex_colors[:, :3], tetrahedron().colours, atol=1)


def test_colours_of_gltf_are_linear_light(tmp_path: Path) -> None:
    out = tmp_path / "mesh.glb"
    write_mesh(out, tetrahedron())
    (read,) = trimesh.load(out, process=False).geometry.values()
    linear = np.asarray(read.visual.vertex_attributes["color"]) / 65535
    assert linear.shape == (4, 4)
    assert (linear[:, 3] == 1).all()
    back = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    np.testing.assert_array_equal(np.rint(255 * back[:, :3]), tetrahedron().colours)


def test_a_glb_follows_the_specification(tmp_path: Path) -> None:
    out = tmp_path / "mesh.glb"
    write_mesh(out, tetrahedron(), similarity())
    document, binary = chunks(out)
    accessors, views = document["accessors"], document["bufferViews"]
    assert isinstance(accessors, list)
    assert isinstance(views, list)
    primitive = document["meshes"][0]["primitives"][0]  # type: ignore[index]
    position = accessors[primitive["attributes"]["POSITION"]]
    moved = in_source_frame(tetrahedron(), similarity()).vertices
    np.testing.assert_array_equal(position["min"], moved.min(0))
    np.testing.assert_array_equal(position["max"], moved.max(0))
    sizes = {5126: 4, 5125: 4, 5123: 2}
    widths = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}
    for accessor in accessors:
        view = views[accessor["bufferView"]]
        row = sizes[accessor["componentType"]] * widths[accessor["type"]]
        assert view["byteLength"] == accessor["count"] * row
        assert view["byteOffset"] % 4 == 0
        assert view["byteOffset"] + view["byteLength"] <= len(binary)
    assert document["extensionsUsed"] == ["KHR_materials_unlit"]


@pytest.mark.parametrize(
    ("up", "means"),
    [
        ((0, 0, 1), (0, 0, 1)),
        ((0.1, 0.3, 5), (0, 0, 1)),  # an estimate near an axis is that axis
        ((0, -1, 0), (0, -1, 0)),
        ((0, 1, 0), (0, 1, 0)),
        ((-3, 0, 0.5), (-1, 0, 0)),
        ((1, 1, 1), (1, 1, 1)),
    ],
)
def test_a_glb_stands_upright(up: tuple[float, ...], means: tuple[float, ...], tmp_path: Path) -> None:
    turn = Rotation.from_quat(upright(up))
    np.testing.assert_allclose(turn.apply(means) / np.linalg.norm(means), [0, 1, 0], atol=1e-12)
    out = tmp_path / "mesh.glb"
    write_mesh(out, tetrahedron(), up=up)
    read = trimesh.load(out, force="mesh", process=False)  # trimesh applies the node's rotation, as viewers do
    np.testing.assert_allclose(read.vertices, turn.apply(tetrahedron().vertices), atol=1e-5)


def test_a_mesh_without_colours_and_normals_is_written_plainly(tmp_path: Path) -> None:
    plain = Mesh(tetrahedron().vertices, tetrahedron().faces)
    for ending in ENDINGS:
        out = tmp_path / f"mesh.{ending}"
        write_mesh(out, plain, up=(0, 1, 0))
        np.testing.assert_array_equal(trimesh.load(out, force="mesh", process=False).vertices, plain.vertices)


def test_a_strict_reader_takes_the_ply(tmp_path: Path) -> None:
    out = tmp_path / "mesh.ply"
    write_mesh(out, tetrahedron())
    read = PlyData.read(out)
    assert [entry.name for entry in read["vertex"].properties] == [*"xyz", "nx", "ny", "nz", "red", "green", "blue"]
    np.testing.assert_array_equal(np.stack(read["face"]["vertex_indices"]), tetrahedron().faces)
    np.testing.assert_array_equal(read["vertex"]["green"], tetrahedron().colours[:, 1])  # type: ignore[index]


def test_the_same_mesh_gives_the_same_bytes(tmp_path: Path) -> None:
    for ending in ENDINGS:
        first, second = tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"
        write_mesh(first, tetrahedron(), similarity())
        write_mesh(second, tetrahedron(), similarity())
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_cannot_be_written_leaves_the_old_file(ending: str, tmp_path: Path) -> None:
    out = tmp_path / f"mesh.{ending}"
    out.write_text("old")
    mesh = tetrahedron()
    mirror = np.diag([-1.0, 1, 1, 1])
    nowhere = Mesh(np.full_like(mesh.vertices, np.nan), mesh.faces)
    for wrong, matrix, words in (
        (Mesh(mesh.vertices, mesh.faces[:0]), np.eye(4), "no faces"),
        (nowhere, np.eye(4), "not finite"),
        (mesh, mirror, "without mirror or shear"),
        (mesh, np.full((4, 4), np.nan), "finite 4x4"),
        (mesh, np.eye(3), "finite 4x4"),
        (mesh, 1e38 * similarity(), "not finite"),
    ):
        with pytest.raises(DataError, match=words):
            write_mesh(out, wrong, matrix)
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_places_and_names_that_do_not_work_are_explained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown ending '\.fbx' for a mesh\. Known: \.ply, \.glb, \.obj"):
        write_mesh(tmp_path / "mesh.fbx", tetrahedron())
    with pytest.raises(DataError, match="does not exist"):
        write_mesh(tmp_path / "nowhere" / "mesh.ply", tetrahedron())
    (tmp_path / "mesh.ply").mkdir()
    with pytest.raises(DataError, match="cannot be written"):
        write_mesh(tmp_path / "mesh.ply", tetrahedron())
    with pytest.raises(UsageError, match="direction"):
        write_mesh(tmp_path / "mesh.glb", tetrahedron(), up=(0, 0, 0))
