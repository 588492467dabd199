"""Undo, redo, the list of steps, and what becomes of the edits: a script, a file, another round of training."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import viser

from anchorfield.app import files
from anchorfield.app.view.panels import outputs
from anchorfield.app.view.panels.editing import Desk
from anchorfield.app.view.panels.export import export_edited
from anchorfield.app.view.panels.widgets import put
from anchorfield.methods import CanStart
from anchorfield.renderer.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

LISTED = 12  # steps, the newest first
FREE, FROZEN, ONLY = "Everything may change", "Selection stays as it is", "Only the selection changes"


def buttons(desk: Desk) -> viser.GuiButtonGroupHandle:
    """Undo and redo, with their hotkeys."""
    viewer = desk.viewer
    group = viewer.gui.add_button_group("Steps", ("Undo", "Redo"), hint="Ctrl+Z and Ctrl+Shift+Z, or U and Shift+U")
    named = {"Undo": desk.undo, "Redo": desk.redo}
    group.on_click(lambda event: viewer.act(event.target.value, named[event.target.value], event.client_id))
    for hotkey, again in (("cmd/ctrl+Z", "cmd/ctrl+shift+Z"), ("U", "shift+U")):
        name = " (Ctrl+Z)" if hotkey.endswith("Z") else ""
        viewer.command(f"Undo the last edit{name}", hotkey, lambda _: desk.undo(), icon="arrow-back-up")
        viewer.command(f"Redo the edit{name}", again, lambda _: desk.redo(), icon="arrow-forward-up")
    return group


def build(desk: Desk) -> viser.GuiFolderHandle:
    """The list, and buttons to keep the edits."""
    viewer, gui = desk.viewer, desk.viewer.gui
    with gui.add_folder("Steps and saving", expand_by_default=False) as folder:
        steps = gui.add_markdown("")
        viewer.button(
            "Save the edited splats",
            lambda client: _save_splats(desk, client),
            icon="device-floppy",
            hint="A .ply file",
        )
        viewer.button(
            "Save the steps",
            lambda client: _save_steps(desk, client),
            icon="list-details",
            hint="edits.json: `anchorfield edit RUN --script edits.json` does the same again",
        )
        with gui.add_folder("Train again from here", expand_by_default=False):
            gui.add_markdown("Mends what an edit left open: training starts from the Gaussians as they are now.")
            what = gui.add_dropdown("What may change", (FREE, FROZEN, ONLY))
            minutes = gui.add_number("Minutes", 2.0, min=0.1, step=0.5)
            viewer.button(
                "Start",
                lambda _: _retrain(desk, what.value, minutes.value),
                icon="player-play",
                hint="See the Train tab",
            )

    def update() -> None:
        editor = desk.started
        if editor is None:
            put(steps, content="No steps yet.")
            return
        done, position = editor.history(), editor.position
        lines = [
            f"{number}. {text}" if number <= position else f"{number}. *~~{text}~~*"
            for number, text in list(enumerate(done, 1))[-LISTED:]
        ]
        if len(done) > LISTED:
            lines.insert(0, f"*… {len(done) - LISTED} before*  ")
        put(steps, content="\n".join(lines) or "No steps yet.")

    desk.on_change(update)
    update()
    return folder


def _save_splats(desk: Desk, client: int) -> str:
    viewer = desk.viewer
    desk.editor  # noqa: B018 - says in words where there is none
    out = outputs.target(viewer, f"{outputs.stem(viewer)}-edited.ply", (".ply",))
    export_edited(viewer.document, out, "source")
    outputs.send(viewer, client, out)
    return outputs.written(out)


def _save_steps(desk: Desk, client: int) -> str:
    viewer = desk.viewer
    out = files.output_file(outputs.target(viewer, "edits.json", (".json",)))
    files.write_atomically(out, json.dumps(desk.editor.script(), indent=1) + "\n")
    outputs.send(viewer, client, out)
    return outputs.written(out)


def _retrain(desk: Desk, what: str, minutes: float) -> str:
    viewer, editor = desk.viewer, desk.editor
    run = viewer.document.run
    frozen: Tensor | None = None
    if what != FREE:
        if not bool(editor.selection.any()):
            raise UsageError("nothing is selected: select what shall stay, or let everything change")
        frozen = editor.selection.clone() if what == FROZEN else ~editor.selection
    same = run.job.method if run is not None and isinstance(run.job.settings, CanStart) else None
    gaussians = viewer.document.gaussians()
    viewer.live.start(same, minutes=minutes, start=gaussians, frozen=frozen)
    return f"Training goes on from the edited Gaussians for {minutes:g} minutes"
