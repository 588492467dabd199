"""3DGS PLY files: exact layout, independent readers, odd and damaged files; Gaussians under similarities."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import captures
import gsply
import numpy as np
import plyfile
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from anchorfield.renderer.errors import DataError
from anchorfield.renderer.types import Gaussians
from anchorfield.scenes.atomic import replacing
from anchorfield.scenes.ply import read_points
from anchorfield.scenes.similarity import decomposed, harmonics_basis, transformed
from anchorfield.scenes.splat_ply import read_ply, write_ply

FIELDS = ("means", "log_scales", "quats", "logit_opacities", "sh")


def made(count: int = 50, degree: int = 3, seed: int = 0, antialiased: bool = False) -> Gaussians:
    """Random Gaussians."""
    g = torch.Generator().manual_seed(seed)
    shapes = (count, 3), (count, 3), (count, 4), (count,), (count, (degree + 1) ** 2, 3)
    return Gaussians(*(torch.randn(shape, generator=g) for shape in shapes), antialiased=antialiased)


def same(a: Gaussians, b: Gaussians) -> bool:
    """Bit for bit."""
    return a.antialiased == b.antialiased and all(torch.equal(getattr(a, name), getattr(b, name)) for name in FIELDS)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("antialiased", [False, True])
def test_round_trip(tmp_path: Path, degree: int, antialiased: bool) -> None:
    gaussians = made(degree=degree, antialiased=antialiased)
    write_ply(tmp_path / "a.ply", gaussians)
    assert same(read_ply(tmp_path / "a.ply"), gaussians)
    assert [path.name for path in tmp_path.iterdir()] == ["a.ply"]


def test_more_rows_than_one_block_and_none(tmp_path: Path) -> None:
    for count in (0, 1, (1 << 16) + 1):
        gaussians = made(count, degree=0)
        write_ply(tmp_path / "a.ply", gaussians)
        assert same(read_ply(tmp_path / "a.ply"), gaussians)


def test_property_order_in_an_independent_reader(tmp_path: Path) -> None:
    gaussians = made()
    write_ply(tmp_path / "a.ply", gaussians)
    read = plyfile.PlyData.read(tmp_path / "a.ply")
    rest = [f"f_rest_{index}" for index in range(45)]
    expected = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *rest, "opacity"]
    expected += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    assert [prop.name for prop in read["vertex"].properties] == expected
    assert {prop.val_dtype for prop in read["vertex"].properties} == {"f4"}
    assert (read.byte_order, read.text) == ("<", False)
    vertex = read["vertex"].data
    assert (
        vertex["f_rest_16"].tolist() == gaussians.sh[:, 2, 1].tolist()
    )  # green, second coefficient after the constant
    assert vertex["rot_0"].tolist() == gaussians.quats[:, 0].tolist()
    assert not np.any([vertex[name] for name in ("nx", "ny", "nz")])


def test_gsply_reads_the_same(tmp_path: Path) -> None:
    gaussians = made()
    write_ply(tmp_path / "a.ply", gaussians)
    read = gsply.plyread(tmp_path / "a.ply")
    np.testing.assert_array_equal(read.means, gaussians.means)
    np.testing.assert_array_equal(read.scales, gaussians.log_scales)
    np.testing.assert_array_equal(read.quats, gaussians.quats)
    np.testing.assert_array_equal(np.ravel(read.opacities), gaussians.logit_opacities)
    np.testing.assert_array_equal(read.sh0, gaussians.sh[:, 0])


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_other_orders_types_bodies_and_elements(tmp_path: Path, text: bool, byte_order: str) -> None:
    gaussians = made(20, degree=1)
    write_ply(tmp_path / "a.ply", gaussians)
    vertex = plyfile.PlyData.read(tmp_path / "a.ply")["vertex"].data
    names = [name for name in reversed(vertex.dtype.names) if name not in ("nx", "ny", "nz")]
    kinds = [(name, "f8" if name in "xyz" else "f4") for name in names] + [("label", "u1")]
    shuffled = np.zeros(20, kinds)
    for name in names:
        shuffled[name] = vertex[name]
    extra = plyfile.PlyElement.describe(np.zeros(3, [("a", "i2"), ("b", "f8")]), "camera")
    faces = plyfile.PlyElement.describe(np.array([([0, 1, 2],)], [("vertex_indices", "O")]), "face")
    elements = [extra, plyfile.PlyElement.describe(shuffled, "vertex"), faces]
    plyfile.PlyData(elements, text=text, byte_order=byte_order).write(str(tmp_path / "b.ply"))
    assert same(read_ply(tmp_path / "b.ply"), gaussians)


def test_real_file_and_gsply_agree() -> None:
    path = captures.data("splats") / "chair.ply"
    ours, theirs = read_ply(path), gsply.plyread(path)
    np.testing.assert_array_equal(ours.means, theirs.means)
    np.testing.assert_array_equal(ours.quats, theirs.quats)


def test_rows_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    gaussians = made(10)
    gaussians.means[3, 1] = float("nan")
    gaussians.sh[5, 2, 0] = float("inf")
    gaussians.logit_opacities[7] = float("inf")  # opacity 1: kept
    gaussians.quats[8] = 0
    write_ply(tmp_path / "a.ply", gaussians)
    with pytest.warns(UserWarning, match="2 of 10 Gaussians"):
        read = read_ply(tmp_path / "a.ply")
    assert len(read) == 8
    assert read.logit_opacities[5] == 15
    assert read.quats[6].tolist() == [1, 0, 0, 0]


def edited(path: Path, old: str, new: str) -> None:
    """Change the header of a PLY."""
    content = path.read_bytes()
    assert old.encode() in content
    path.write_bytes(content.replace(old.encode(), new.encode(), 1))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("ply\n", "plx\n", "not a PLY"),
        ("end_header", "end_footer", "no 'end_header'"),
        ("element vertex 50", "element vertex 51", "truncated"),
        ("element vertex 50", "element vertex 999999999999999", "truncated"),
        ("element vertex 50", "element vertex -1", "needs a count"),
        ("element vertex 50", "element point 50", "no element 'vertex'"),
        ("binary_little_endian", "binary_middle_endian", "no known format"),
        ("property float x", "property quad x", "no known type"),
        ("property float x", "property list uchar int x", "lists"),
        ("property float opacity", "property float opacitx", "without opacity"),
        ("property float f_dc_0", "property float red", "plain point cloud"),
        ("property float f_rest_7", "property float f_rust_7", "9, 24 or 45"),
        ("property float nx", "property float x", "two properties"),
    ],
)
def test_bad_headers_are_explained(tmp_path: Path, old: str, new: str, words: str) -> None:
    write_ply(tmp_path / "a.ply", made())
    edited(tmp_path / "a.ply", old, new)
    with pytest.raises(DataError, match=words) as caught:
        read_ply(tmp_path / "a.ply")
    assert "a.ply" in str(caught.value)


def test_compressed_ply_is_named() -> None:
    with pytest.raises(DataError, match="compressed"):
        read_ply(captures.data("splats") / "chair.compressed.ply")


@given(st.data())
def test_damaged_files_never_crash(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "a.ply"
    write_ply(path, made(5, degree=1))
    whole = bytearray(path.read_bytes())
    header = whole.index(b"end_header")
    del whole[data.draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole)))) :]
    for _ in range(data.draw(st.integers(0, 4)) if whole else 0):
        last = len(whole) - 1
        whole[data.draw(st.one_of(st.integers(0, last), st.integers(0, min(header, last))))] = data.draw(
            st.integers(0, 255)
        )
    path.write_bytes(whole)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read = read_ply(path)
        except DataError as caught:
            read, error = None, caught
    if read is None:
        assert str(path) in str(error)
    else:
        assert all(torch.isfinite(getattr(read, name)).all() for name in FIELDS)


def test_point_clouds(tmp_path: Path) -> None:
    head = "ply\nformat ascii 1.0\nelement vertex 1\nproperty double x\nproperty double y\nproperty double z\n"
    (tmp_path / "a.ply").write_text(head + "end_header\n1 2 3\n")
    xyz, rgb = read_points(tmp_path / "a.ply")
    assert (xyz.tolist(), rgb.tolist()) == ([[1, 2, 3]], [[128, 128, 128]])
    (tmp_path / "a.ply").write_text(head + "end_header\n1 2\n")
    with pytest.raises(DataError, match="expected 3 numbers"):
        read_points(tmp_path / "a.ply")


def half_written(path: Path, error: BaseException) -> None:
    """A write that ends in an error."""
    with replacing(path) as file:
        file.write(b"new")
        raise error


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    for error, shown in ((OSError(28, "No space left on device"), DataError), (KeyboardInterrupt(), KeyboardInterrupt)):
        with pytest.raises(shown):
            half_written(path, error)
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(DataError, match="cannot be written"):
        write_ply(tmp_path / "no folder" / "a.ply", made(1))


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    write_ply(tmp_path / "a.ply", made(3))
    # In a process whose files may not grow beyond 16 KiB: a write fails half-way, as on a full disk.
    script = (
        "import resource, signal, sys, torch; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384));"
        "from anchorfield.scenes.splat_ply import write_ply; from anchorfield.renderer.types import Gaussians;"
        "z = torch.zeros; write_ply(sys.argv[1], Gaussians(z(900, 3), z(900, 3), z(900, 4), z(900), z(900, 1, 3)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "a.ply"], capture_output=True, text=True, env=dict(os.environ)
    )
    assert "DataError" in ended.stderr
    assert "cannot be written" in ended.stderr
    assert same(read_ply(tmp_path / "a.ply"), made(3))
    assert [path.name for path in tmp_path.iterdir()] == ["a.ply"]


def similarity(seed: int, scale: float) -> np.ndarray:
    """A random rotation and translation with a scale."""
    matrix = np.eye(4)
    matrix[:3, :3] = scale * Rotation.random(random_state=seed).as_matrix()
    matrix[:3, 3] = np.random.default_rng(seed).normal(size=3)
    return matrix


def colours(gaussians: Gaussians, directions: np.ndarray) -> np.ndarray:
    """Colour of each Gaussian along its direction, before the clamp; [N, 3]."""
    terms = harmonics_basis(directions)[:, : gaussians.sh.shape[1], None] * gaussians.sh.double().numpy()
    return terms.sum(axis=1)


def covariances(gaussians: Gaussians) -> np.ndarray:
    """[N, 3, 3] in double precision."""
    axes = Rotation.from_quat(gaussians.quats.double().numpy()[:, [1, 2, 3, 0]]).as_matrix()
    scaled = axes * np.exp(gaussians.log_scales.double().numpy())[:, None]
    return scaled @ scaled.transpose(0, 2, 1)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_transformed_gaussians_look_the_same(degree: int) -> None:
    gaussians, matrix = made(40, degree), similarity(degree, 2.5)
    moved = transformed(gaussians, matrix)
    scale, rotation, translation = decomposed(matrix)
    assert scale == pytest.approx(2.5)
    directions = np.random.default_rng(5).normal(size=(40, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    np.testing.assert_allclose(colours(moved, directions @ rotation.T), colours(gaussians, directions), atol=3e-6)
    turned = scale**2 * rotation @ covariances(gaussians) @ rotation.T
    np.testing.assert_allclose(covariances(moved), turned, rtol=1e-4, atol=1e-5 * np.abs(turned).max())
    means = gaussians.means.double().numpy() @ (scale * rotation).T + translation
    np.testing.assert_allclose(moved.means.numpy(), means, rtol=1e-5, atol=1e-6)
    assert moved.means.dtype == torch.float32


def test_there_and_back() -> None:
    gaussians, matrix = made(40), similarity(1, 0.3)
    back = transformed(transformed(gaussians, matrix), np.linalg.inv(matrix))
    signs = (back.quats * gaussians.quats).sum(dim=1, keepdim=True).sign()  # q and -q are one rotation
    torch.testing.assert_close(back.quats * signs, gaussians.quats, atol=1e-5, rtol=1e-5)
    for name in ("means", "log_scales", "logit_opacities", "sh"):
        torch.testing.assert_close(getattr(back, name), getattr(gaussians, name), atol=1e-5, rtol=1e-5)


def test_basis_is_orthonormal() -> None:
    directions = np.random.default_rng(0).normal(size=(50_000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    products = 4 * np.pi * harmonics_basis(directions).T @ harmonics_basis(directions) / len(directions)
    np.testing.assert_allclose(products, np.eye(16), atol=0.05)


@pytest.mark.parametrize("matrix", [np.diag([1.0, 1, -1, 1]), np.diag([1.0, 2, 1, 1]), np.zeros((4, 4)), np.eye(3)])
def test_no_similarity(matrix: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected a"):
        transformed(made(1), matrix)
