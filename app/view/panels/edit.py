"""The Edit tab: select Gaussians, change or remove them, clean up; every step can be undone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anchorfield.app.view.panels import edit_change, edit_clean, edit_history, edit_select
from anchorfield.app.view.panels.editing import Desk
from anchorfield.app.view.panels.widgets import put

if TYPE_CHECKING:
    import viser

    from anchorfield.app.view.app import Viewer

BEGIN = (
    "Choose a tool and draw over the picture. Selected Gaussians turn **yellow**; then delete, move or recolour them."
)


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
        editor = desk.started if reason is None else None
        put(words, content=f"Nothing can be edited: {reason}." if reason else _words(desk) if editor else BEGIN)
        for part in parts:
            put(part, visible=reason is None)
        put(undo, visible=reason is None)

    desk.on_change(update)
    viewer.every_second(update)
    update()


def _words(desk: Desk) -> str:
    """How many there are, and of which kind."""
    editor = desk.started
    if editor is None:
        return BEGIN
    parts = [f"**{len(editor.gaussians):,}** Gaussians", f"**{int(editor.selection.sum()):,}** selected"]
    for name, mask in (("hidden", editor.hidden), ("locked", editor.locked)):
        if count := int(mask.sum()):
            parts.append(f"**{count:,}** {name}")
    return ", ".join(parts)
