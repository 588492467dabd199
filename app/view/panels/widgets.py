"""Small helpers for widgets: those that the program sets, and those that a person does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anchorfield.app.view.app import Viewer


def put(handle: Any, **fields: Any) -> None:
    """Set fields of a widget, where they differ: nothing is sent to browsers that they know."""
    for name, value in fields.items():
        if getattr(handle, name) != value:
            setattr(handle, name, value)


def on_hand(viewer: Viewer, title: str, handle: Any, function: Callable[[int], str | None]) -> None:
    """Run `function(client_id)` as an action when a person changes a widget; not when the program does."""
    handle.on_update(
        lambda event: (
            None if event.client_id is None else viewer.act(title, lambda: function(event.client_id), event.client_id)
        )
    )


class Latest:
    """Actions of which only the newest matters, such as those of a slider that is dragged."""

    def __init__(self, viewer: Viewer, title: str) -> None:
        self._viewer, self._title = viewer, title
        self._lock = threading.Lock()
        self._next: Callable[[], str | None] | None = None

    def ask(self, function: Callable[[], str | None], client: int | None = None) -> None:
        """Run `function` as an action, unless a newer one comes before its turn."""
        with self._lock:
            queued, self._next = self._next is not None, function
        if not queued:
            self._viewer.act(self._title, self._run, client)

    def _run(self) -> str | None:
        with self._lock:
            function, self._next = self._next, None
        return function() if function else None
