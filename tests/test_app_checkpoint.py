"""Checkpoints: every state survives, every damage is told."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anchorfield.app import checkpoint
from anchorfield.renderer.errors import DataError

FACTS = {"method": "m", "settings": {"a": [1, 2]}, "step": 7, "seconds": 1.5, "psnr": math.inf}


def state() -> dict[str, Any]:
    shared = torch.arange(6.0)
    return {
        "model": {"means": torch.randn(5, 3), "empty": torch.zeros(0, 4), "a/b~c": torch.ones(2, dtype=torch.bfloat16)},
        "optimiser": {"rows": torch.tensor([True, False]), "step": 3, "rate": 1e-3},
        "random": torch.Generator().get_state(),
        "memory": {
            "part": shared[2:4],
            "whole": shared,
            "turned": torch.arange(6).reshape(2, 3).T,
            "scalar": torch.tensor(4),
            "low": -math.inf,
            "odd": math.nan,
            "nothing": None,
            "word": "ü",
            "yes": True,
            "big": 2**60,
            "none inside": {},
        },
    }


def same(first: Any, second: Any) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[name], second[name]) for name in first)
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and first.shape == second.shape and torch.equal(first, second)
    if isinstance(first, float) and math.isnan(first):
        return math.isnan(second)
    return type(first) is type(second) and bool(first == second)


def test_every_kind_of_leaf_survives(tmp_path: Path) -> None:
    written = state()
    loaded = checkpoint.load(checkpoint.save(tmp_path, written, FACTS))
    assert same(written, loaded.state)
    assert loaded.facts == FACTS


def test_what_is_no_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="/memory/x is a set"):
        checkpoint.save(tmp_path, {"memory": {"x": {1}}}, FACTS)
    assert list(tmp_path.iterdir()) == []


@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), which=st.sampled_from([0, 1, 2]))
def test_a_flipped_bit_is_noticed_or_harmless(where: float, bit: int, which: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = checkpoint.save(Path(folder), state(), FACTS)
        file = path / (checkpoint.TENSORS, checkpoint.STATE, checkpoint.MANIFEST)[which]
        content = bytearray(file.read_bytes())
        content[int(where * len(content))] ^= 1 << bit
        file.write_bytes(content)
        with pytest.raises(DataError, match="step_000000007"):
            checkpoint.load(path)


@given(share=st.floats(0, 0.999), which=st.sampled_from([0, 1, 2]))
def test_a_truncated_file_is_noticed(share: float, which: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = checkpoint.save(Path(folder), state(), FACTS)
        file = path / (checkpoint.TENSORS, checkpoint.STATE, checkpoint.MANIFEST)[which]
        file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
        assert checkpoint.problem(path) is not None


def test_another_version_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoint.save(tmp_path, state(), FACTS)
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    with pytest.raises(DataError, match="format version 1; this anchorfield reads version 2"):
        checkpoint.load(path)


def test_the_newest_valid_one_is_found(tmp_path: Path) -> None:
    paths = [checkpoint.save(tmp_path, state(), {**FACTS, "step": step}) for step in (10, 20, 30)]
    (paths[2] / checkpoint.TENSORS).unlink()
    (paths[1] / checkpoint.STATE).write_text("{}")
    warnings: list[str] = []
    found = checkpoint.latest_valid(tmp_path, warnings.append)
    assert found is not None
    assert found.path == paths[0]
    assert len(warnings) == 2
    assert "tensors.safetensors is missing" in warnings[0]
    (paths[0] / checkpoint.MANIFEST).write_text("[]")
    with pytest.raises(DataError, match="no usable checkpoint"):
        checkpoint.latest_valid(tmp_path, warnings.append)


def test_the_last_two_and_the_best_stay(tmp_path: Path) -> None:
    for step, psnr in ((1, 20.0), (2, 25.0), (3, None), (4, 24.0), (5, None), (6, None)):
        checkpoint.save(tmp_path, state(), {**FACTS, "step": step, "psnr": psnr})
        checkpoint.prune(tmp_path)
    assert [path.name[-1] for path in checkpoint.steps(tmp_path)] == ["2", "5", "6"]
    assert checkpoint.best(tmp_path) == tmp_path / "step_000000002"


def test_leftovers_of_a_kill_are_cleared_and_a_damaged_one_is_replaced(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, state(), FACTS)
    (path / checkpoint.STATE).write_text("")
    (tmp_path / f"{checkpoint.HIDDEN}step_000000009-1").mkdir()
    checkpoint.clear_leftovers(tmp_path)
    assert checkpoint.save(tmp_path, state(), FACTS) == path
    assert checkpoint.problem(path) is None
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_not_finite_names_the_tensor() -> None:
    good = {"model": {"a": torch.ones(2)}, "optimiser": {"b": torch.ones(2)}, "memory": {"low": torch.tensor(math.inf)}}
    assert checkpoint.not_finite(good) is None
    assert checkpoint.not_finite({**good, "optimiser": {"b": torch.tensor([1.0, math.nan])}}) == "/optimiser/b"
