"""Clean-up: what could go is proposed and tinted; a slider says how much of it, and then it goes or not."""

from __future__ import annotations

import viser

from anchorfield.app.edit.operations import CleanUp
from anchorfield.app.view.panels.editing import Desk
from anchorfield.app.view.panels.widgets import put
from anchorfield.renderer.errors import UsageError

KINDS = {
    "Floaters in the air": "floaters",
    "Dust that nobody sees": "dust",
    "Needles": "needles",
    "All outside of the scene": "outside",
}
ABOUT = {
    "floaters": "Pieces that hang in front of surfaces, where photos look through to something behind.",
    "dust": "Gaussians that add nothing to see to any photo: the file gets smaller.",
    "needles": "Long thin ones that stick out and flicker when the camera moves.",
    "outside": "What lies far from what the cameras look at.",
}


def build(desk: Desk) -> viser.GuiFolderHandle:
    """The folder."""
    return _CleanUp(desk).folder


class _CleanUp:
    """Kind, strength, and what is proposed."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._proposed = False
        viewer, gui = desk.viewer, desk.viewer.gui
        with gui.add_folder("Clean up", expand_by_default=False) as self.folder:
            self._kind = gui.add_dropdown("Remove", tuple(KINDS))
            self._about = gui.add_markdown("")
            self._strength = gui.add_slider("Strength", 0.0, 1.0, 0.01, 0.5, hint="How much is proposed")
            self._propose = viewer.button(
                "Propose", lambda client: self._ask(client), icon="wand", hint="Shows in red what would go"
            )
            self._words = gui.add_markdown("")
            self._apply = viewer.button(
                "Apply", lambda _: self._do(), icon="check", colour="red", hint="Remove what is red"
            )
            self._discard = viewer.button("Discard", lambda _: self._forget(), icon="x", hint="Nothing is removed")
        self._kind.on_update(lambda event: self._changed(event.client_id))
        self._strength.on_update(lambda event: self._changed(event.client_id))
        desk.on_change(lambda: self._end(""))
        viewer.command("Propose a clean-up", None, lambda client: self._ask(client), icon="wand")
        self._changed(None)

    def _operation(self) -> CleanUp:
        return CleanUp(kind=KINDS[self._kind.value], strength=float(self._strength.value))  # type: ignore[arg-type]

    def _changed(self, client: int | None) -> None:
        put(self._about, content=f"*{ABOUT[KINDS[self._kind.value]]}*")
        if self._proposed and client is not None:
            self._desk.preview(self._operation, self._tell, client)

    def _ask(self, client: int) -> None:
        put(self._words, content="Looking through the photos …")
        self._desk.preview(self._operation, self._tell, client)

    def _tell(self, sentence: str | None) -> None:
        if sentence is None:
            self._end("")
            return
        self._proposed = True
        put(self._words, content=f"**{sentence}** (red)")
        self._buttons()

    def _do(self) -> str:
        if not self._proposed:
            raise UsageError("nothing is proposed yet: press Propose first")
        return self._desk.do(self._operation())

    def _forget(self) -> str:
        self._end("")
        self._desk.show_preview(None)
        return "Nothing was removed"

    def _end(self, words: str) -> None:
        self._proposed = False
        put(self._words, content=words)
        self._buttons()

    def _buttons(self) -> None:
        put(self._apply, visible=self._proposed)
        put(self._discard, visible=self._proposed)
