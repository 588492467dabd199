"""The editor: undo bit for bit, bounded memory, what is hidden and locked, threads."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from edited import BOX, COUNT, camera, cloud, same, similarity, snapshot, ten_edits

from anchorfield.app.edit import Editor, operation_from_json, selecting
from anchorfield.app.edit import operations as ops
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import UsageError
from anchorfield.renderer.splatting import splat


def test_hidden_and_locked_are_neither_selected_nor_changed() -> None:
    editor = Editor(cloud())
    first = editor.gaussians
    editor.do(ops.SelectSphere(centre=(0, 0, 3), radius=0.5))
    locked = editor.selection.clone()
    editor.do(ops.Lock())
    editor.do(ops.SelectRange(attribute="x", low=0.3))
    hidden = editor.selection.clone()
    assert not bool((hidden & locked).any())
    editor.do(ops.Hide())
    assert len(editor.shown()) == COUNT - int(hidden.sum())
    editor.do(ops.SelectAll())
    assert torch.equal(editor.selection, ~(locked | hidden))
    editor.do(ops.SelectNone())
    editor.do(ops.Transform(matrix=similarity(2.0)))
    kept = locked | hidden
    assert torch.equal(editor.gaussians.means[kept], first.means[kept])
    assert not bool((editor.gaussians.means[~kept] == first.means[~kept]).all(1).any())
    editor.do(ops.Crop(to="box", centre=(100, 100, 100)))
    assert same(editor.gaussians, selecting.rows(first, torch.nonzero(kept).squeeze(1)))
    editor.do(ops.Unhide())
    editor.do(ops.Unlock())
    assert not bool(editor.hidden.any())
    assert not bool(editor.locked.any())


def test_ten_edits_undone_and_done_again_are_exact_bit_for_bit(tmp_path: Path) -> None:
    editor = Editor(cloud())
    states = [snapshot(editor)]
    for operation in ten_edits(tmp_path / "other.ply"):
        editor.do(operation)
        states.append(snapshot(editor))
    for expected in reversed(states[:-1]):
        assert editor.undo()
        assert all(torch.equal(a, b) for a, b in zip(snapshot(editor), expected, strict=True))
    assert editor.undo() is None
    assert editor.position == 0
    for expected in states[1:]:
        assert editor.redo()
        assert all(torch.equal(a, b) for a, b in zip(snapshot(editor), expected, strict=True))
    assert editor.redo() is None
    assert len(editor.history()) == editor.position == 11


def test_a_new_edit_forgets_what_was_undone() -> None:
    editor = Editor(cloud())
    editor.do(ops.SelectAll())
    editor.do(ops.SelectNone())
    editor.undo()
    editor.do(operation_from_json(BOX))
    assert editor.redo() is None
    assert len(editor.history()) == 2
    assert [entry["operation"] for entry in editor.script()["operations"]] == ["select_all", "select_box"]


def test_memory_stays_bounded_over_200_edits() -> None:
    memory = 20_000
    editor = Editor(cloud(), memory=memory)
    told = False
    for number in range(100):
        editor.do(ops.SelectSphere(centre=(0.01 * number, 0, 3), radius=0.5))
        told |= "can no longer be undone" in editor.do(ops.Adjust(opacity=0.999))
        assert editor.undo_bytes <= memory
    assert told
    assert 0 < editor.undoable < 200
    assert len(editor.history()) == 200
    assert len(editor.script()["operations"]) == 200
    undone = 0
    while editor.undo():
        undone += 1
    assert undone == 200 - editor.position
    assert editor.position > 0


def test_transform_shows_the_same_from_a_camera_that_moves_along() -> None:
    g = cloud(degree=3)
    seen = camera()
    matrix = similarity(1.0)
    editor = Editor(g)
    editor.do(ops.Transform(matrix=matrix))
    pose = torch.linalg.inv(matrix @ torch.linalg.inv(seen.world_to_camera.double())).float()
    moved = Camera(pose, seen.fx, seen.fy, seen.cx, seen.cy, seen.width, seen.height)
    before, after = splat(g, seen, torch.zeros(3)).rgb, splat(editor.gaussians, moved, torch.zeros(3)).rgb
    assert torch.allclose(before, after, atol=2e-3)


def test_adjust_is_an_affine_map_of_every_colour() -> None:
    editor = Editor(cloud())
    before = editor.gaussians
    editor.do(ops.Adjust(saturation=0))
    grey = selecting.colours(editor.gaussians)
    assert torch.allclose(grey, grey[:, :1].expand(-1, 3), atol=1e-6)
    assert torch.allclose(
        grey[:, 0], selecting.colours(before) @ torch.tensor([0.2126, 0.7152, 0.0722]).double(), atol=1e-6
    )
    editor.undo()
    editor.do(ops.Adjust(brightness=0.2, contrast=1.5))
    expected = (selecting.colours(before) - 0.5) * 1.5 + 0.5 + 0.2
    assert torch.allclose(selecting.colours(editor.gaussians), expected, atol=1e-5)
    assert torch.equal(editor.gaussians.logit_opacities, before.logit_opacities)
    editor.undo()
    editor.do(ops.Adjust(opacity=0.5))
    assert torch.allclose(editor.gaussians.logit_opacities.sigmoid(), before.logit_opacities.sigmoid() / 2, atol=1e-6)
    editor.undo()
    editor.do(ops.Adjust())
    assert same(editor.gaussians, before)


def test_selection_and_preview_are_tinted_only_in_what_is_shown() -> None:
    editor = Editor(cloud())
    plain = editor.shown()
    assert plain is editor.shown()
    mask, sentence = editor.preview(operation_from_json(BOX))
    assert int(mask.sum()) > 5
    assert "would be selected" in sentence
    assert not bool(editor.selection.any())
    version = editor.version
    editor.show_preview(mask)
    assert editor.version > version
    assert not torch.equal(editor.shown().sh[mask], plain.sh[mask])
    assert torch.equal(editor.shown().sh[~mask], plain.sh[~mask])
    assert same(editor.gaussians, plain)
    editor.show_preview(None)
    assert same(editor.shown(), plain)
    with pytest.raises(UsageError, match="mask of 400"):
        editor.show_preview(mask[:5])


def test_histogram_counts_what_is_not_hidden() -> None:
    editor = Editor(cloud())
    editor.do(operation_from_json(BOX))
    editor.do(ops.Hide())
    counts, edges = editor.histogram("opacity", 10)
    assert counts.sum() == int((~editor.hidden).sum())
    assert len(edges) == 11
    with pytest.raises(UsageError, match="opacity, size"):
        editor.histogram("nonsense")  # type: ignore[arg-type]


def test_threads_edit_and_look_at_the_same_time() -> None:
    editor = Editor(cloud())
    problems: list[Exception] = []

    def work(seed: int) -> None:
        try:
            for number in range(20):
                editor.do(ops.SelectSphere(centre=(0.1 * seed, 0.01 * number, 3), radius=0.4))
                shown = editor.shown()
                assert len(shown.means) == len(shown.sh) == len(shown.quats)
                editor.undo()
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert same(editor.gaussians, cloud())
