"""What the parts of the Edit tab share: doing an operation, and what is said about it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from anchorfield.app.view.panels.widgets import Latest
from anchorfield.renderer.errors import AnchorfieldError, UsageError

if TYPE_CHECKING:
    from anchorfield.app.edit import Editor, Operation
    from anchorfield.app.view.app import Viewer


class Desk:
    """The editor of what is open, for the tab's parts; its methods are called inside actions."""

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer
        self._listeners: list[Callable[[], None]] = []
        self._previews = Latest(viewer, "Preview")
        self._started: tuple[Editor, object] | None = None  # with the run that it edits
        self._lock = threading.Lock()
        viewer.on_open(self._opened)

    @property
    def started(self) -> Editor | None:
        """The editor where something was edited or selected already: asking does not make one."""
        kept = self._started  # training may have put another run in the place of the edited one
        return kept[0] if kept and kept[1] is self.viewer.document.run else None

    @property
    def editor(self) -> Editor:
        """The editor; raises UsageError in words where nothing can be edited."""
        document = self.viewer.document
        reason = document.no_editor_reason
        if reason is not None:
            self._started = None
            raise UsageError(reason)
        found = document.editor
        if found is None:
            raise UsageError("nothing can be edited here")
        self._started = found, document.run
        return found

    def do(self, operation: Operation) -> str:
        """Do an operation for all to see; returns its sentence."""
        sentence = self.editor.do(operation)
        self.changed()
        return capital(sentence)

    def undo(self) -> str:
        """Take the last step back."""
        sentence = self.editor.undo()
        self.changed()
        return capital(sentence or "there is nothing to undo")

    def redo(self) -> str:
        """Do again what was undone."""
        sentence = self.editor.redo()
        self.changed()
        return capital(sentence or "there is nothing to do again")

    def preview(
        self, make: Callable[[], Operation], tell: Callable[[str | None], None], client: int | None = None
    ) -> None:
        """Tint what an operation would take; of many wishes in a row only the newest is followed.

        `tell` is given the sentence, or None where it could not be.
        """

        def run() -> None:
            try:
                mask, sentence = self.editor.preview(make())
            except AnchorfieldError:
                tell(None)
                raise
            self.show_preview(mask)
            tell(capital(sentence))

        self._previews.ask(run, client)

    def show_preview(self, mask: Tensor | None) -> None:
        """Tint a proposal, or no longer."""
        self.editor.show_preview(mask)
        self.viewer.document.changed()

    def end_preview(self) -> None:
        """No proposal is tinted any more."""
        if self.started is not None and self.viewer.document.no_editor_reason is None:
            self._previews.ask(lambda: self.show_preview(None))

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` after every edit, and when another scene is open."""
        self._listeners.append(callback)

    def changed(self) -> None:
        """Something was edited: draw, and tell the tab's parts."""
        self.viewer.document.changed()
        self._tell()

    def _opened(self) -> None:
        self._started = None
        self._tell()

    def _tell(self) -> None:
        with self._lock:
            for listener in self._listeners:
                listener()


def capital(sentence: str) -> str:
    """With a capital letter at its beginning."""
    return sentence[:1].upper() + sentence[1:]
