"""Scripts of edits repeat, and what is none is refused in words."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edited import COUNT, camera, cloud, same, snapshot, ten_edits
from hypothesis import given, settings
from hypothesis import strategies as st

from anchorfield.app.edit import Editor, operation_from_json, replay, values
from anchorfield.app.edit import operations as ops
from anchorfield.renderer.errors import AnchorfieldError, DataError, UsageError
from anchorfield.renderer.types import PARAMETERS
from anchorfield.scenes.splat_ply import read_ply, write_ply


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
