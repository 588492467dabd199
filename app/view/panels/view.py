"""The View tab: what kind of picture, how large, and what is drawn over it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anchorfield.app.view.app import Viewer

MODES = {
    "Colour": "rgb",
    "Depth": "depth",
    "Normals": "normal",
    "Opacity": "alpha",
    "Error against photo": "error",
    "Gaussians per pixel": "count",
}
KEYS = ("1", "2", "3", "4", "5", "6")


def build(viewer: Viewer) -> None:
    """The tab, and a hotkey for each kind of picture."""
    gui = viewer.gui
    with viewer.tab("View", "eye"):
        mode = gui.add_dropdown("Show", tuple(MODES), hint="What each pixel means. Keys 1 to 6.")
        mode.on_update(lambda _: viewer.set_look(dataclasses.replace(viewer.look, mode=MODES[mode.value])))

    def pick(name: str) -> str:
        mode.value = name
        return f"{name} is shown"

    for key, name in zip(KEYS, MODES, strict=True):
        viewer.command(f"Show: {name}", key, lambda client, name=name: pick(name), icon="eye")
