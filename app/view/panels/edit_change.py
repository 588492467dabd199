"""Changing what is selected: delete, copy, set aside, move with a gizmo, recolour; and bringing splats in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import viser
from viser.transforms import SO3

from anchorfield.app import files
from anchorfield.app.edit import Editor
from anchorfield.app.edit import operations as ops
from anchorfield.app.view import frame
from anchorfield.app.view.panels import outputs
from anchorfield.app.view.panels.edit_shapes import upright
from anchorfield.app.view.panels.editing import Desk
from anchorfield.app.view.panels.widgets import Latest, on_hand, put
from anchorfield.renderer.errors import UsageError

GIZMO = "/move"
NONE = "(nothing set aside)"
MOST_UPLOAD = 2 << 30  # bytes of a splat file


def build(desk: Desk) -> viser.GuiFolderHandle:
    """The folder, and hotkeys."""
    viewer, gui = desk.viewer, desk.viewer.gui
    with gui.add_folder("Change the selection") as folder:
        viewer.button("Delete", lambda _: desk.do(ops.Delete()), icon="trash", colour="red", hint="Key Delete")
        group = gui.add_button_group(
            "", ("Duplicate", "Keep only this"), hint="The copy is selected; the rest is deleted"
        )
        named = {"Duplicate": ops.Duplicate, "Keep only this": ops.Crop}
        group.on_click(
            lambda event: viewer.act(event.target.value, lambda: desk.do(named[event.target.value]()), event.client_id)
        )
        _Move(desk)
        _layers(desk)
    for name, key, operation in (
        ("Delete the selection", "delete", ops.Delete),
        ("Duplicate the selection", "shift+C", ops.Duplicate),
        ("Keep only the selection", None, ops.Crop),
    ):
        viewer.command(name, key, lambda _, operation=operation: desk.do(operation()))  # type: ignore[misc]
    return folder


def _layers(desk: Desk) -> None:
    """Setting aside, bringing back, and bringing a file in."""
    viewer, gui = desk.viewer, desk.viewer.gui
    with gui.add_folder("Set aside and bring in", expand_by_default=False):
        name = gui.add_text("Name", "part")
        viewer.button(
            "Set the selection aside",
            lambda _: desk.do(ops.Separate(name.value)),
            icon="box",
            hint="Out of the scene, but kept",
        )
        kept = gui.add_dropdown("Set aside", (NONE,))
        back = viewer.button(
            "Bring it back",
            lambda _: desk.do(ops.Merge(layer=kept.value)),
            icon="package-import",
            hint="Into the scene, selected",
        )
        upload = gui.add_upload_button(
            "Bring in a .ply file", icon=_icon("upload"), mime_type=".ply", hint="Splats of another scene"
        )
    upload.on_upload(
        lambda event: viewer.act(
            "Bring in", lambda: _merge(desk, event.target.value.name, event.target.value.content), event.client_id
        )
    )

    def update() -> None:
        names = tuple(desk.started.separated) if desk.started else ()
        put(kept, options=names or (NONE,), disabled=not names)
        put(back, disabled=not names)

    desk.on_change(update)
    update()


def _merge(desk: Desk, name: str, content: bytes) -> str:
    if len(content) > MOST_UPLOAD:
        raise UsageError("that file is too large to be brought in here")
    out = files.output_file(outputs.target(desk.viewer, f"brought-in-{name}", (".ply",)))
    files.write_atomically(out, content)  # kept: a script that is replayed needs it
    return desk.do(ops.Merge(file=str(out.resolve())))


@dataclass(frozen=True)
class _Held:
    """A move in the making: the step that shows it, to be taken back when the gizmo moves on."""

    editor: Editor
    steps: int


class _Move:
    """A gizmo at the middle of the selection; the Gaussians follow it, and letting go is one step."""

    def __init__(self, desk: Desk) -> None:
        self._desk, self._viewer = desk, desk.viewer
        viewer, gui = desk.viewer, desk.viewer.gui
        self._latest = Latest(viewer, "Move")
        self._controls: viser.TransformControlsHandle | None = None
        self._from = np.eye(4)
        self._held: _Held | None = None
        with gui.add_folder("Move, turn, scale"):
            self._on = gui.add_checkbox("Show the arrows", False, hint="Drag arrows to move, arcs to turn. Key Shift M")
            self._factor = gui.add_number("Scale by", 1.0, min=0.01, max=100.0, step=0.05)
            viewer.button(
                "Scale", lambda _: self._scale(), icon="arrows-maximize", hint="About the middle of the selection"
            )
        on_hand(viewer, "Move", self._on, self._toggle)
        viewer.command("Move and turn the selection", "shift+M", self._flip)
        viewer.on_open(self._hide)
        desk.on_change(self._follow)

    def _flip(self, client: int) -> str | None:
        put(self._on, value=not self._on.value)
        return self._toggle(client)

    def _toggle(self, _: int) -> str | None:
        if not self._on.value:
            self._hide()
            return None
        try:
            self._show()
        except UsageError:
            put(self._on, value=False)
            raise
        return "Drag the arrows to move, the arcs to turn" if self._selected() else "Nothing is selected: all will move"

    def _selected(self) -> bool:
        return bool(self._desk.editor.selection.any())

    def _middle(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The median of what an operation would move."""
        editor = self._desk.editor
        chosen = editor.selection if self._selected() else ~(editor.hidden | editor.locked)
        if not bool(chosen.any()):
            raise UsageError("there is nothing to move")
        return np.asarray(editor.gaussians.means[chosen].double().median(0).values.numpy())

    def _show(self) -> None:
        position = frame.to_viser(self._middle())[0]
        wxyz = upright(np.asarray(self._viewer.document.placement.up)).wxyz
        self._controls = self._viewer.server.scene.add_transform_controls(
            GIZMO, scale=1.5, depth_test=False, position=position, wxyz=wxyz
        )
        self._controls.on_update(lambda event: self._moved(event.phase == "end", event.client_id))
        self._from = self._pose()

    def _hide(self) -> None:
        put(self._on, value=False)
        if self._controls is not None:
            self._controls.remove()
            self._controls = None
        self._held = None

    def _pose(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        pose = np.eye(4)
        if self._controls is not None:
            pose[:3, :3] = SO3(np.asarray(self._controls.wxyz, dtype=np.float64)).as_matrix()
            pose[:3, 3] = frame.to_local(self._controls.position)
        return pose

    def _moved(self, end: bool, client: int | None) -> None:
        if end:
            self._viewer.act("Move", lambda: self._apply(True), client)
        else:
            self._latest.ask(lambda: self._apply(False), client)

    def _apply(self, end: bool) -> str | None:
        """Show the move so far as a step in the place of the one before; at the end it stays."""
        editor, pose = self._desk.editor, self._pose()
        if self._controls is None:
            return None
        if self._holds(editor):
            editor.undo()
        self._held = None
        matrix = pose @ np.linalg.inv(self._from)
        if np.allclose(matrix, np.eye(4), rtol=0, atol=1e-7):
            self._desk.changed()
            return None
        sentence = editor.do(_transform(matrix))
        self._held = _Held(editor, editor.position)
        if end:
            self._held, self._from = None, pose
        self._desk.changed()
        return sentence if end else None

    def _holds(self, editor: Editor) -> bool:
        """Whether the last step is the move in the making, and nobody's else."""
        held = self._held
        return held is not None and held.editor is editor and held.steps == editor.position == len(editor.history())

    def _follow(self) -> None:
        """After an edit of another kind the arrows go where the selection is now."""
        if self._controls is None or self._held is not None:
            return
        editor = self._desk.started
        if editor is None:
            self._hide()
            return
        try:
            middle = self._middle()
        except UsageError:
            self._hide()
            return
        if np.linalg.norm(middle - self._from[:3, 3]) > 1e-6:
            self._controls.position = frame.to_viser(middle)[0]
            self._from = self._pose()

    def _scale(self) -> str:
        middle, factor = self._middle(), float(self._factor.value)
        matrix = np.eye(4)
        matrix[:3, :3] *= factor
        matrix[:3, 3] = middle - factor * middle
        return self._desk.do(_transform(matrix))


def _transform(matrix: np.ndarray[Any, np.dtype[np.float64]]) -> ops.Transform:
    return ops.Transform(tuple(tuple(float(value) for value in row) for row in matrix))  # type: ignore[arg-type]


def build_colours(desk: Desk) -> viser.GuiFolderHandle:
    """Sliders for colour and opacity, applied together."""
    viewer, gui = desk.viewer, desk.viewer.gui
    with gui.add_folder("Colours", expand_by_default=False) as folder:
        gui.add_markdown("*Of the selection, or of everything where nothing is selected.*")
        sliders = {
            "brightness": gui.add_slider("Brightness", -0.5, 0.5, 0.01, 0.0),
            "contrast": gui.add_slider("Contrast", 0.0, 3.0, 0.05, 1.0),
            "saturation": gui.add_slider("Saturation", 0.0, 3.0, 0.05, 1.0, hint="0 is black and white"),
            "temperature": gui.add_slider("Warmth", -1.0, 1.0, 0.05, 0.0),
            "opacity": gui.add_slider("Opacity", 0.0, 2.0, 0.05, 1.0, hint="A factor"),
        }
        start = {name: handle.value for name, handle in sliders.items()}

        def reset() -> None:
            for name, handle in sliders.items():
                put(handle, value=start[name])

        def apply() -> str:
            sentence = desk.do(ops.Adjust(**{name: float(handle.value) for name, handle in sliders.items()}))
            reset()
            return sentence

        viewer.button("Apply the colours", lambda _: apply(), icon="palette", colour="green")
        viewer.button("Reset the sliders", lambda _: reset(), icon="rotate")
    return folder


def _icon(name: str) -> Any:
    return name
