"""The compact file: layout in an independent reader, error of the codes, and damage of every kind."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

from anchorfield.app import Run
from anchorfield.app.checkpoint import model_bytes
from anchorfield.renderer.errors import DataError
from anchorfield.scenes import compact
from anchorfield.scenes.compact import ROWS, Stored, quantised, read_compact, restored, write_compact

COUNT = 700
Arrays = dict[str, np.ndarray[Any, Any]]


def made(count: int = COUNT) -> Stored:
    """Random splats."""
    g = torch.Generator().manual_seed(3)
    shapes = {"means": (3,), "log_scales": (3,), "quats": (4,), "logit_opacities": (), "sh": (4, 3)}
    tensors = {name: torch.randn(count, *shape, generator=g) for name, shape in shapes.items()}
    frame = np.diag([2.0, 2, 2, 1])
    frame[:3, 3] = 1, 2, 3
    tensors["background"] = torch.tensor([0.1, 0.2, 0.3])
    return Stored("gaussian_splatting", {"sh_degree": 1}, tensors, frame, (0.1, 0.2, 0.3), 7, 1.5, 2, "4")


def shown(path: Path) -> None:
    """All that a user can ask of a file without its photographs."""
    Run.open(path).gaussians("source")


def rewritten(path: Path, change: Any) -> Path:
    """The file with tensors and metadata altered by `change(tensors, metadata)`."""
    metadata = header(path)["__metadata__"]
    arrays = safetensors.numpy.load_file(path)
    change(arrays, metadata)
    path.write_bytes(safetensors.numpy.save(arrays, metadata))
    return path


def header(path: Path) -> dict[str, Any]:
    """The safetensors header, read by hand."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length])  # type: ignore[no-any-return]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_compact(tmp_path / "a.safetensors", made())
    return tmp_path / "a.safetensors"


def test_an_independent_reader_finds_the_documented_layout(file: Path) -> None:
    stored, described = made(), header(file)
    arrays = safetensors.numpy.load_file(file)
    kinds = {name: entry["dtype"] for name, entry in described.items() if name != "__metadata__"}
    coded = {"means": "U16", "log_scales": "U8", "quats": "U8", "logit_opacities": "U8", "sh": "U8"}
    assert kinds == {**coded, **{f"{name}:columns": "F32" for name in coded}, "background": "F32"}
    assert {name: arrays[name].shape for name in stored.tensors} == {
        n: tuple(t.shape) for n, t in stored.tensors.items()
    }
    assert described["__metadata__"]["format"] == "anchorfield model"
    assert json.loads(described["__metadata__"]["model"])["source_from_world"] == stored.source_from_world.tolist()
    for name in coded:
        centre, spread, low, step = arrays[f"{name}:columns"].astype(np.float64)
        codes = arrays[name].reshape(COUNT, -1)
        values = (centre + spread * np.sinh(low + step * codes)).reshape(arrays[name].shape)
        np.testing.assert_allclose(read_compact(file).tensors[name], values, rtol=1e-6, atol=1e-7)


def test_everything_but_the_tensors_comes_back_as_it_was(file: Path) -> None:
    ours, theirs = made(), read_compact(file)
    for field in dataclasses.fields(Stored):
        if field.name not in ("tensors", "source_from_world"):
            assert getattr(ours, field.name) == getattr(theirs, field.name), field.name
    assert np.array_equal(ours.source_from_world, theirs.source_from_world)
    assert torch.equal(ours.tensors["background"], theirs.tensors["background"])


def test_it_is_nearly_four_times_smaller(tmp_path: Path) -> None:
    write_compact(tmp_path / "a.safetensors", made(20000))
    ratio = model_bytes({"model": made(20000).tensors}) / (tmp_path / "a.safetensors").stat().st_size
    assert 92 / (26 + 0.1) < ratio < 92 / 26  # bytes of a Gaussian of degree 1, and the header


@given(
    hn.arrays(np.float32, hn.array_shapes(min_dims=1, max_dims=3, max_side=9), elements=st.floats(-1e6, 1e6, width=32)),
    st.sampled_from([8, 16]),
)
def test_a_code_is_off_by_at_most_half_a_step(values: np.ndarray[Any, Any], bits: int) -> None:
    codes, ranges = quantised(values, bits)
    assert codes.shape == values.shape
    assert codes.dtype.itemsize * 8 == bits
    rows = values.reshape(len(values), -1).astype(np.float64)
    centre, spread, low, step = ranges.astype(np.float64)
    bent = np.arcsinh((rows - centre) / spread)
    error = np.abs(low + step * codes.reshape(rows.shape) - bent)
    rounding = 2**-23 * (np.abs(low) + 2**bits * step)  # low and step are themselves float32
    assert (error <= step / 2 + rounding).all()
    assert np.isfinite(restored(codes, ranges)).all()


def test_a_column_of_one_value_is_exact() -> None:
    values = np.full((ROWS, 2), 0.7, np.float32)
    assert np.array_equal(restored(*quantised(values, 8)), values)


def test_small_tensors_keep_poses_and_vectors_exact(tmp_path: Path) -> None:
    g = torch.Generator().manual_seed(0)
    tensors = {"views": torch.randn(5, 22, generator=g) * 900, "heads.a": torch.randn(70, 32, generator=g)}
    tensors |= {"heads.b": torch.randn(70, generator=g), "large": torch.full((2, 2), 1e6), "none": torch.zeros(0, 3)}
    write_compact(tmp_path / "a.safetensors", dataclasses.replace(made(), tensors=tensors))
    read = read_compact(tmp_path / "a.safetensors").tensors
    for name in ("views", "heads.b", "large", "none"):
        assert torch.equal(read[name], tensors[name])
    assert torch.equal(read["heads.a"], tensors["heads.a"].half().float())


def test_a_failed_write_leaves_the_old_file(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(DataError, match="no float32 tensor"):
        write_compact(file, dataclasses.replace(made(), tensors={"means": torch.zeros(3, dtype=torch.int64)}))
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def described(**entries: Any) -> Any:
    def change(_: Arrays, metadata: dict[str, str]) -> None:
        content = {**json.loads(metadata["model"]), **entries}
        metadata["model"] = json.dumps({name: value for name, value in content.items() if value is not ...})

    return change


def put(name: str, value: np.ndarray[Any, Any] | None) -> Any:
    def change(arrays: Arrays, _: dict[str, str]) -> None:
        if value is None:
            del arrays[name]
        else:
            arrays[name] = value

    return change


DAMAGE = {
    "other program": (lambda arrays, metadata: metadata.clear(), "none that anchorfield wrote"),
    "version": (lambda arrays, metadata: metadata.update(version="2"), "version 2"),
    "no JSON": (lambda arrays, metadata: metadata.update(model="{"), "description is damaged"),
    "deep JSON": (lambda arrays, metadata: metadata.update(model="[" * 100000), "description is damaged"),
    "a list": (lambda arrays, metadata: metadata.update(model="[]"), "no JSON object"),
    "unknown method": (described(method="gaussian_splating"), "gaussian_splatting"),
    "unknown setting": (described(settings={"sh_degre": 2}), "sh_degree"),
    "setting out of range": (described(settings={"sh_degree": 9}), "sh"),
    "settings": (described(settings=3), "description is damaged"),
    "no method": (described(method=...), "method"),
    "frame": (described(source_from_world=[[1, 2], [3, 4]]), "frame"),
    "mirrored frame": (described(source_from_world=np.diag([1.0, 1, -1, 1]).tolist()), "frame is damaged"),
    "far frame": (described(source_from_world=np.diag([1e200, 1e200, 1e200, 1]).tolist()), "out of range"),
    "infinite frame": (described(source_from_world=np.full((4, 4), np.inf).tolist()), "finite"),
    "ragged frame": (described(source_from_world=[[1], [2, 3]]), "damaged"),
    "background": (described(background=[1, 2]), "background"),
    "step": (described(step=-1), "out of range"),
    "downscale": (described(downscale=0), "out of range"),
    "missing tensor": (put("sh", None), "'sh' is missing"),
    "missing ranges": (put("sh:columns", None), "ranges are missing"),
    "ranges": (put("sh:columns", np.zeros((4, 3), np.float32)), r"ranges \[4, 12\]"),
    "ranges of integers": (put("sh:columns", np.zeros((4, 12), np.int32)), "type I32"),
    "halved ranges": (put("sh:columns", np.zeros((4, 12), np.float16)), "ranges are missing"),
    "infinite ranges": (put("sh:columns", np.full((4, 12), np.inf, np.float32)), "finite ranges"),
    "ranges beyond float32": (put("sh:columns", np.full((4, 12), 1e6, np.float32)), "not finite"),
    "wrong type": (put("means", np.zeros((COUNT, 3), np.float64)), "type F64"),
    "not finite": (put("background", np.array([0, np.nan, 0], np.float32)), "not finite"),
    "rows that differ": (put("means", np.zeros((3, 3), np.float32)), "does not fit"),
    "shape": (put("background", np.zeros((5,), np.float32)), "does not fit"),
    "nothing": (put("means", np.zeros((0, 3), np.float32)), "does not fit"),
    "no codes": (put("sh", np.zeros((0, 4, 3), np.uint8)), "ranges"),
    "many axes": (put("means", np.zeros((1,) * 9, np.float32)), "no sense"),
    "huge and empty": (put("means", np.zeros((1 << 40, 0), np.float32)), "no sense"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_told_in_words(name: str, file: Path) -> None:
    change, words = DAMAGE[name]
    with pytest.raises(DataError, match=words) as caught:
        shown(rewritten(file, change))
    assert "a.safetensors" in str(caught.value) or "missing" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"x" * 7, b"\xff" * 8, struct.pack("<Q", 1 << 62) + b"{}", b"ply\n"])
def test_other_content_is_told_in_words(content: bytes, file: Path) -> None:
    file.write_bytes(content)
    with pytest.raises(DataError, match="safetensors"):
        shown(file)


def test_a_file_cut_anywhere_is_told_in_words(file: Path) -> None:
    content = file.read_bytes()
    for length in [*range(0, 200, 7), *range(200, len(content), len(content) // 40)]:
        file.write_bytes(content[:length])
        with pytest.raises(DataError):
            shown(file)


def test_flipped_bits_end_in_a_model_or_in_words(file: Path) -> None:
    content = bytearray(file.read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    random = np.random.default_rng(0)
    for position in [*range(8), *random.integers(8, 8 + length, 250), *random.integers(8 + length, len(content), 50)]:
        altered = bytearray(content)
        altered[position] ^= 1 << int(random.integers(8))
        file.write_bytes(altered)
        with contextlib.suppress(DataError):
            shown(file)


def test_nothing_large_is_allocated_for_what_a_header_claims(file: Path) -> None:
    claimed = {"means": {"dtype": "F32", "shape": [1 << 40, 3], "data_offsets": [0, 12 << 40]}}
    text = json.dumps({**claimed, "__metadata__": header(file)["__metadata__"]}).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(DataError):
        read_compact(file)


def test_the_names_of_fine_tensors_are_those_of_positions() -> None:
    assert compact.FINE == ("means", "anchors", "views")
