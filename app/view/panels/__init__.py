"""The viewer's tabs: each module's `build(viewer)` fills one."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anchorfield.app.view.app import Viewer

START = "start"
ORDER = ("view", "train", "cameras", "compare", "edit", "world", "path", "mesh", "export", "jobs")


def build_all(viewer: Viewer) -> None:
    """Fill the tabs of the viewer; the first one is that which a person needs first."""
    for name in (*ORDER, START) if viewer.document.path else (START, *ORDER):
        importlib.import_module(f"{__name__}.{name}").build(viewer)
