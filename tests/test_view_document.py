"""What the viewer has open: runs, files, captures and nothing, each with reasons for what it lacks."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from test_app_capture import make_capture
from test_app_training import SETTINGS

from anchorfield.app import Run, placement, train
from anchorfield.app.edit import operation_from_json
from anchorfield.app.edit.writing import edited, training_cameras
from anchorfield.app.export import export
from anchorfield.app.journal import silent
from anchorfield.app.view.document import Document, open_document
from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.renderer.splatting import splat
from anchorfield.renderer.types import PARAMETERS


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("document")
    train(make_capture(folder / "made"), settings=SETTINGS, steps=3, out=folder / "run", show=silent)
    export(Run.open(folder / "run"), folder / "local.ply", "local")
    export(Run.open(folder / "run"), folder / "model.safetensors")
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained / "run", tmp_path / "run"))


def test_a_run_is_open_with_all_it_has(run: Path) -> None:
    document = open_document(run)
    assert document.run is not None
    assert (document.name, document.path, document.drawable) == ("made", run, True)
    assert document.scene is not None
    assert document.no_scene_reason is None
    camera = document.scene.views[0].camera
    assert torch.equal(document.draw(camera).rgb, document.run.render(camera).rgb)
    assert len(document.gaussians()) == len(document.run.gaussians())
    assert document.no_editor_reason is None
    assert not document.edited


@pytest.mark.parametrize("name", ["local.ply", "model.safetensors"])
def test_a_file_says_why_it_has_no_photographs(trained: Path, name: str) -> None:
    document = open_document(trained / name)
    assert document.name == name
    assert document.scene is None
    assert "--scene" in str(document.no_scene_reason)
    assert document.placement.unit == "units"
    assert document.drawable
    with_photos = open_document(trained / "model.safetensors", trained / "made")
    assert with_photos.scene is not None
    assert with_photos.no_scene_reason is None


def test_a_capture_is_open_before_anything_is_trained(trained: Path) -> None:
    document = open_document(trained / "made")
    assert (document.name, document.run, document.model, document.editor) == ("made", None, None, None)
    assert not document.drawable
    assert document.scene is not None
    with pytest.raises(UsageError, match="nothing is trained"):
        document.draw(document.scene.views[0].camera)
    with pytest.raises(UsageError, match="nothing is trained"):
        document.gaussians()
    assert "nothing is trained" in str(document.no_editor_reason)
    up = np.mean([-v.camera.world_to_camera[1, :3].numpy() for v in document.scene.views], axis=0)
    assert np.allclose(document.placement.up, up / np.linalg.norm(up), atol=1e-6)


def test_nothing_may_be_open() -> None:
    document = open_document(None)
    assert (document.path, document.scene, document.model, document.drawable) == (None, None, None, False)
    assert "nothing is open" in str(document.no_scene_reason)
    assert "nothing is open" in str(document.no_editor_reason)
    assert np.array_equal(document.source_from_world, np.eye(4))
    assert document.placement.up == (0, -1, 0)


def test_what_is_neither_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        open_document(tmp_path / "absent")
    with pytest.raises(DataError, match="no capture found"):
        open_document(tmp_path)
    (tmp_path / "x.ply").write_text("ply")
    with pytest.raises(DataError, match=r"x\.ply"):
        open_document(tmp_path / "x.ply")


def test_a_placement_is_kept_with_the_run_and_seen_by_all(run: Path) -> None:
    document = open_document(run)
    seen: list[int] = []
    document.on_change(lambda: seen.append(document.version))
    document.placement = document.placement.centred((1, 2, 3)).scaled((0, 0, 0), (1, 0, 0), 2)
    assert seen == [1]
    again = open_document(run).placement
    assert again.metres
    assert again.scale == pytest.approx(2)
    assert np.allclose(again.origin, (1, 2, 3))


def test_a_placement_of_a_capture_goes_to_the_run_that_is_trained(trained: Path, run: Path) -> None:
    document = open_document(trained / "made")
    document.placement = document.placement.scaled((0, 0, 0), (1, 0, 0), 5)
    assert not (trained / "made" / placement.FILE).exists()
    document.adopt(Run.open(run))
    assert document.run is not None
    assert document.drawable
    kept = placement.read(run, document.run.source_from_world)
    assert kept is not None
    assert kept.scale == pytest.approx(5)


def test_a_listener_that_fails_hurts_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    document, seen = Document(), list[int]()

    def broken() -> None:
        raise RuntimeError("of a listener")

    document.on_change(broken)
    document.on_change(lambda: seen.append(document.version))
    document.changed()
    assert seen == [1]
    assert "of a listener" in capsys.readouterr().err


def test_a_model_in_training_is_drawn_inside_its_turn_and_not_edited(run: Path) -> None:
    document = open_document(run)
    assert document.run is not None
    lock = threading.Lock()
    document.follow(document.run.model, lambda: lock)  # type: ignore[arg-type, return-value]
    assert document.training
    assert document.editor is None
    assert "in training" in str(document.no_editor_reason)
    assert document.scene is not None
    camera, done = document.scene.views[0].camera, threading.Event()

    def draw() -> None:
        document.draw(camera)
        done.set()

    with lock:
        drawer = threading.Thread(target=draw)
        drawer.start()
        assert not done.wait(0.2)
    drawer.join(30)
    assert done.is_set()
    document.follow(None)
    assert not document.training


def test_edits_are_drawn_and_undone_ones_are_not(run: Path) -> None:
    document = open_document(run)
    editor = document.editor
    assert editor is not None
    assert document.run is not None
    assert document.editor is editor
    assert document.scene is not None
    assert not document.edited  # nothing was done: the model itself is drawn
    camera = document.scene.views[0].camera
    before = document.draw(camera).rgb
    half = {"operation": "select_plane", "point": [0, 0, 0], "normal": [0, 0, 1], "mode": "set"}
    editor.do(operation_from_json(half))
    count = int(editor.selection.sum())
    assert 0 < count < len(editor.gaussians)
    editor.do(operation_from_json({"operation": "delete"}))
    assert document.edited
    assert len(document.gaussians()) == len(document.run.gaussians()) - count
    after = document.draw(camera).rgb
    assert not torch.allclose(after, before, atol=1e-2)
    assert torch.equal(after, splat(editor.shown(), camera, document.background).rgb)
    while editor.undo():
        pass
    assert torch.allclose(document.draw(camera).rgb, before, atol=1e-5)
    document.adopt(Run.open(run))
    assert not document.edited
    assert document.editor is not editor


def test_clean_up_here_and_in_a_replay_judge_by_the_same_cameras(run: Path) -> None:
    document = open_document(run)
    opened, editor = document.run, document.editor
    assert opened is not None
    assert editor is not None
    expected = training_cameras(opened, pytest.fail)
    assert [camera.world_to_camera.tolist() for camera in editor.cameras] == [
        camera.world_to_camera.tolist() for camera in expected
    ]
    editor.do(operation_from_json({"operation": "clean_up", "kind": "outside", "strength": 0.5}))
    again = edited(opened, editor.script(), pytest.fail)
    for name in PARAMETERS:
        assert torch.equal(getattr(again.gaussians, name), getattr(editor.gaussians, name))
