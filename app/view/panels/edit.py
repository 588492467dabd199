"""The Edit tab: select Gaussians, change or remove them, clean up; every step can be undone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anchorfield.app.view.panels import edit_change, edit_clean, edit_history, edit_select
from anchorfield.app.view.panels.edit_select import TOOL
from anchorfield.app.view.panels.editing import Desk
from anchorfield.app.view.panels.pointer import pointer_of
from anchorfield.app.view.panels.widgets import put
from anchorfield.methods import CanStart

if TYPE_CHECKING:
    import viser

    from anchorfield.app.view.app import Viewer

BEGIN = (
    "Choose a tool and draw over the picture. Selected Gaussians turn **yellow**; then delete, move or recolour them."
)

BAKED = "*This model makes its splats anew for each view. Edits work on splats baked from it; what is saved are those.*"


def build(viewer: Viewer) -> None:
    """The tab, part after part."""
    desk = Desk(viewer)
    with viewer.tab("Edit", "pencil"):
        words = viewer.gui.add_markdown("")
        undo = edit_history.buttons(desk)
        parts: list[viser.GuiFolderHandle] = [
            edit_select.build(desk),
            edit_change.build(desk),
            edit_change.build_colours(desk),
            edit_clean.build(desk),
            edit_history.build(desk),
        ]

    def update() -> None:
        reason = viewer.document.no_editor_reason
        put(words, content=f"Nothing can be edited: {reason}." if reason else _words(desk))
        if reason is not None:
            pointer_of(viewer).release(TOOL)
        for part in parts:
            put(part, visible=reason is None)
        put(undo, visible=reason is None)

    desk.on_change(update)
    viewer.every_second(update)
    update()


def _words(desk: Desk) -> str:
    """How many there are, and of which kind; before the first edit, what to do."""
    editor, run = desk.started, desk.viewer.document.run
    if editor is None:
        baked = run is not None and not isinstance(run.job.settings, CanStart)
        return f"{BEGIN}\n\n{BAKED}" if baked else BEGIN
    parts = [f"**{len(editor.gaussians):,}** Gaussians", f"**{int(editor.selection.sum()):,}** selected"]
    for name, mask in (("hidden", editor.hidden), ("locked", editor.locked)):
        if count := int(mask.sum()):
            parts.append(f"**{count:,}** {name}")
    return ", ".join(parts)
