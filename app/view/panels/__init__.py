"""The viewer's tabs: each module's `build(viewer)` fills one."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anchorfield.app.view.app import Viewer

ORDER = ("start", "view", "train", "cameras", "compare", "edit", "world", "path", "mesh", "export", "jobs")


def build_all(viewer: Viewer) -> None:
    """Fill the tabs of the viewer, in order."""
    for name in ORDER:
        if importlib.util.find_spec(f"{__name__}.{name}"):
            importlib.import_module(f"{__name__}.{name}").build(viewer)
