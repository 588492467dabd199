"""The View tab: what kind of picture, what hides what, and how much of the time it may take while training."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from anchorfield.app.view.broker import Share
from anchorfield.app.view.panels.widgets import on_hand, put

if TYPE_CHECKING:
    from anchorfield.app.view.app import Viewer

MODES: dict[str, Any] = {
    "Colour": "rgb",
    "Depth": "depth",
    "Normals": "normal",
    "Opacity": "alpha",
    "Error against photo": "error",
    "Gaussians per pixel": "count",
}
ABOUT = {
    "Colour": "The scene as a camera sees it.",
    "Depth": "How far each pixel's surface is: near is bright.",
    "Normals": "Which way surfaces face, from their depth.",
    "Opacity": "Where the scene lets the background through.",
    "Error against photo": "The nearest photo, carried to this camera, against the render.",
    "Gaussians per pixel": "How many are drawn there: bright is costly.",
}
KEYS = ("1", "2", "3", "4", "5", "6")
SHARES = {"Training first (5 %)": 0.05, "Balanced (10 %)": 0.1, "Picture first (50 %)": 0.5}


def build(viewer: Viewer) -> None:
    """The tab, and a hotkey for each kind of picture."""
    gui = viewer.gui
    with viewer.tab("View", "eye"):
        mode = gui.add_dropdown("Show", tuple(MODES), hint="What each pixel means. Keys 1 to 6.")
        about = gui.add_markdown(f"*{ABOUT['Colour']}*")
        hides = gui.add_checkbox(
            "Scene hides what is behind it",
            False,
            hint="Cameras, meshes and handles go behind the scene; slow in browsers without a graphics processor",
        )
        in_browser = gui.add_checkbox(
            "Let browsers draw",
            False,
            hint="With a graphics processor they get the Gaussians once, and draw. Key 8",
        )
        share = gui.add_dropdown(
            "While training",
            tuple(SHARES),
            initial_value="Balanced (10 %)",
            hint="How much of the time a resting picture may take from the training",
        )
        viewer.button("Look at the whole scene", viewer.home, icon="home", hint="Key 0")

    def pick(name: str) -> None:
        about.content = f"*{ABOUT[name]}*"
        viewer.set_look(dataclasses.replace(viewer.look, mode=MODES[name]))

    def pick_by_key(name: str) -> None:
        put(mode, value=name)
        pick(name)

    def hide() -> None:
        viewer.set_look(dataclasses.replace(viewer.look, depth=hides.value))

    def let_browsers_draw(client: int) -> str | None:
        viewer.set_look(dataclasses.replace(viewer.look, in_browser=in_browser.value))
        if in_browser.value and not viewer.serving.overlay.has_gpu(client):
            return "This browser has no graphics processor and keeps the program's pictures; others draw"
        return None

    def let_browsers_draw_by_key(client: int) -> str | None:
        put(in_browser, value=not in_browser.value)
        return let_browsers_draw(client)

    def allow() -> None:
        viewer.broker.share = Share(still=SHARES[share.value], moving=max(0.5, SHARES[share.value]))

    on_hand(viewer, "Show", mode, lambda _: pick(mode.value))
    on_hand(viewer, "Show", hides, lambda _: hide())
    on_hand(viewer, "Show", in_browser, let_browsers_draw)
    on_hand(viewer, "Show", share, lambda _: allow())
    viewer.command("Look at the whole scene", "0", viewer.home, icon="home")
    viewer.command("Let browsers draw", "8", let_browsers_draw_by_key, icon="device-desktop")
    for key, name in zip(KEYS, MODES, strict=True):
        viewer.command(f"Show: {name}", key, lambda client, name=name: pick_by_key(name), icon="eye")  # type: ignore[misc]
