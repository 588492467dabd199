"""The verb `edit`: the same script gives the same file, and what is no script is refused in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from edited import BOX
from test_app_capture import call, make_capture

from anchorfield.app import Run, train
from anchorfield.app.edit import Editor, operation_from_json, writing
from anchorfield.app.edit import operations as ops
from anchorfield.app.journal import silent
from anchorfield.scenes.splat_ply import read_ply

SCRIPT = [
    {**BOX, "centre": [0.5, 0, 0], "half_extents": [0.4, 5, 5]},
    {"operation": "delete"},
    {"operation": "clean_up", "kind": "floaters", "strength": 0.7},
    {"operation": "clean_up", "kind": "dust", "strength": 0.7},
    {"operation": "clean_up", "kind": "needles", "strength": 0.7},
    {"operation": "clean_up", "kind": "outside", "strength": 0.3},
    {"operation": "adjust", "contrast": 1.1},
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("edit")
    capture = make_capture(folder / "capture")
    return train(capture, settings={"cap": 300, "sh-degree": 1}, steps=60, out=folder / "run", show=silent)


@pytest.mark.parametrize("ending", [".ply", ".safetensors"])
def test_the_same_script_gives_the_same_file(
    run: Run, ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "edits.json").write_text(json.dumps({"operations": SCRIPT}))
    for name in ("a", "b"):
        code, out, err = call(
            capsys, "edit", run.path, "--script", tmp_path / "edits.json", "-o", tmp_path / f"{name}{ending}"
        )
        assert (code, err) == (0, "")
        assert "deleted" in out
    assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


def test_what_the_viewer_saves_gives_its_file_again(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cameras = writing.training_cameras(run, print)
    editor = Editor(run.gaussians(), cameras, source_from_world=run.source_from_world)
    for entry in SCRIPT:
        editor.do(operation_from_json(entry))
    editor.do(ops.SelectLasso(camera=cameras[0], points=((1.0, 2.0), (20.3, 0.1), (11.7, 22.2)), front_only=True))
    editor.do(ops.SelectNone())
    editor.undo()
    writing.write(editor, run, tmp_path / "live.ply")
    writing.write_script(tmp_path / "edits.json", editor)
    arguments = ("--script", tmp_path / "edits.json", "-o", tmp_path / "again.ply", "--json")
    code, out, err = call(capsys, "edit", run.path, *arguments)
    assert (code, err) == (0, "")
    assert json.loads(out)["gaussians"] == len(editor.gaussians) == len(read_ply(tmp_path / "again.ply"))
    assert json.loads(out)["steps"] == editor.history()[: editor.position]
    assert (tmp_path / "live.ply").read_bytes() == (tmp_path / "again.ply").read_bytes()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("3", "expected a list"),
        ('{"operations": [{"operation": "delte"}]}', "Did you mean 'delete'"),
        ('[{"operation": "grow", "distance": NaN}]', "distance: expected a number"),
        ('[{"operation": "grow", "distance": 1' + "0" * 400 + "}]", "distance: expected a number"),
        ('[{"operation": "grow", "distance": 1' + "0" * 9000 + "}]", ""),
        ('[{"operation": "select_sphere", "centre": [1e999, 0, 0], "radius": 1}]', "expected a number"),
    ],
)
def test_hostile_scripts_are_refused_in_words(
    run: Run, content: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "edits.json").write_text(content)
    code, _, err = call(capsys, "edit", run.path, "--script", tmp_path / "edits.json", "-o", tmp_path / "out.ply")
    assert code == 3
    assert words in err
    assert "edits.json" in err
    assert "unexpected" not in err
    assert not (tmp_path / "out.ply").exists()


def test_usage_of_edit(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "edits.json").write_text('[{"operation": "delete"}]')
    script = ("--script", tmp_path / "edits.json")
    for arguments, code, words in [
        ((run.path,), 2, "--script"),
        ((run.path, *script, "-o", tmp_path / "x.obj"), 2, "unknown ending"),
        ((run.path, *script, "-o", tmp_path / "x.ply"), 2, "operation 1 of 1: delete: nothing is selected"),
        ((run.path, "--script", tmp_path / "none.json", "-o", tmp_path / "x.ply"), 3, "does not exist"),
        ((run.path, "--script", tmp_path, "-o", tmp_path / "x.ply"), 3, "cannot be read"),
    ]:
        got, _, err = call(capsys, "edit", *arguments)
        assert (got, words in err) == (code, True), err


def test_a_script_for_another_scene_is_replayed_with_a_warning(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = {
        "digest": "0" * 64,
        "cameras": 3,
        "operations": [{"operation": "clean_up", "kind": "dust", "strength": 0}],
    }
    (tmp_path / "edits.json").write_text(json.dumps(script))
    arguments = ("--script", tmp_path / "edits.json", "-o", tmp_path / "x.ply")
    code, _, err = call(capsys, "edit", run.path, *arguments)
    assert code == 0
    assert "other Gaussians" in err
    assert "made with 3 cameras" in err
