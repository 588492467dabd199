"""What stands above the tabs: the scene's name, the method, what is happening, and where it runs."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from anchorfield.app import machine
from anchorfield.renderer import backends

if TYPE_CHECKING:
    from anchorfield.app.view.app import Viewer

BADGES = {
    "ready": ("#8a94a6", "ready"),
    "training": ("#2f9e5b", "training"),
    "paused": ("#d08a1d", "paused"),
    "saving": ("#2f7fd0", "saving"),
    "finished": ("#2f9e5b", "finished"),
    "error": ("#d64545", "stopped by an error"),
}


def build(viewer: Viewer) -> None:
    """The lines above the tabs; they follow what is open once a second."""
    shown = viewer.gui.add_html(_text(viewer))

    def update() -> None:
        text = _text(viewer)
        if text != shown.content:
            shown.content = text

    viewer.on_open(update)
    viewer.every_second(update)


def _text(viewer: Viewer) -> str:
    document, live = viewer.document, viewer.live
    state = live.state if document.path or document.scene else "ready"
    colour, word = BADGES[state]
    method = _method(viewer)
    name = document.name or "Nothing open"
    place = f"{backends.current()} kernels, {machine.usable_cores()} cores"
    memory = f"{machine.human_bytes(machine.resident_bytes())} memory"
    return (
        '<div style="padding:2px 12px 6px;line-height:1.4;font-size:0.85em">'
        '<div style="display:flex;align-items:center;gap:8px">'
        f'<b style="font-size:1.2em;overflow:hidden;text-overflow:ellipsis;white-space:nowrap">{html.escape(name)}</b>'
        f'<span style="margin-left:auto;background:{colour};color:#fff;border-radius:9px;padding:1px 9px;'
        f'font-size:0.85em;white-space:nowrap">{word}</span></div>'
        f'<div style="opacity:0.65">{html.escape(method)} · {html.escape(place)} · {memory}</div></div>'
    )


def _method(viewer: Viewer) -> str:
    """What is trained or was, or what to do where there is nothing."""
    document, live = viewer.document, viewer.live
    if live.busy and live.method:
        return live.method.replace("_", " ")
    if document.run:
        return document.run.job.method.replace("_", " ")
    return "nothing trained yet" if document.path or document.scene else "open a folder, or try the sample"
