"""The Open tab: what a person who has nothing open does first, and how to open something else."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from anchorfield.app.run import CONFIG
from anchorfield.renderer.errors import DataError, UsageError

if TYPE_CHECKING:
    from anchorfield.app.view.app import Viewer

SAMPLE = Path(__file__).resolve().parents[3] / "assets" / "sample"
WELCOME = """**Start here**

1. **Open** a folder with photos and their cameras (COLMAP or `transforms.json`) to train on,
   or a run or model file to look at.
2. **Train**: press *Start training*; the scene appears and sharpens while you watch.
3. **Look, edit, export**: the other tabs. Every action is also in the palette: press `Ctrl K`.

Drag to turn, right-drag to move, scroll to come closer."""
NONE_YET = "(none found below runs/)"
RECENT = 20


def build(viewer: Viewer) -> None:
    """The tab."""
    gui = viewer.gui
    with viewer.tab("Open", "folder-open"):
        welcome = gui.add_markdown(WELCOME, visible=viewer.document.path is None)
        with gui.add_folder("A folder or file on this machine"):
            path = gui.add_text("Path", "", hint="A capture, a run folder, or a model (.ply, .safetensors)")
            viewer.button("Open", lambda _: _open(viewer, path.value), icon="folder-open")
        with gui.add_folder("Recent runs"):
            runs = gui.add_dropdown("Run", tuple(_runs()) or (NONE_YET,), hint="Runs below the folder runs/ here")
            viewer.button("Open this run", lambda _: _open_run(viewer, runs.value), icon="history")
        if SAMPLE.is_dir():
            with gui.add_folder("No photos at hand?"):
                viewer.button(
                    "Try the sample",
                    lambda _: _open(viewer, str(SAMPLE)),
                    icon="sparkles",
                    colour="green",
                    hint="64 photos that come with the program; good after a minute of training",
                )
        with gui.add_folder("A model on your computer", expand_by_default=False):
            upload = gui.add_upload_button(
                "Send a model file", mime_type=".ply,.safetensors", hint="Up to 50 MB (.ply, .safetensors)"
            )
            upload.on_upload(
                lambda event: viewer.act("Send a model file", lambda: _received(viewer, event.target.value))
            )

    def update() -> None:
        welcome.visible = viewer.document.path is None
        runs.options = tuple(_runs()) or (NONE_YET,)

    viewer.on_open(update)


def _open(viewer: Viewer, text: str) -> str:
    text = text.strip().strip("\"'")
    if not text:
        raise UsageError("type the path of a folder or file first")
    path = Path(text).expanduser()
    if not path.exists():
        raise DataError(f"{path} does not exist on the machine that runs anchorfield")
    return viewer.open(path)


def _open_run(viewer: Viewer, label: str) -> str:
    if label == NONE_YET:
        raise UsageError("no runs were found: train one first")
    found = _runs()
    if label not in found:
        raise DataError(f"{label} is no longer there")
    return viewer.open(found[label])


def _runs() -> dict[str, Path]:
    """Run folders below ./runs, newest first, under a short label."""
    found = sorted(Path("runs").glob(f"**/{CONFIG}"), key=lambda file: file.stat().st_mtime, reverse=True)[:RECENT]
    return {f"{file.parent.relative_to('runs')} · {_when(file)}": file.parent for file in found}


def _when(file: Path) -> str:
    """When a file was written, in words."""
    return time.strftime("%d %b %H:%M", time.localtime(file.stat().st_mtime))


def _received(viewer: Viewer, file: object) -> str:
    name, content = Path(str(getattr(file, "name", ""))).name, getattr(file, "content", b"")
    if not name.lower().endswith((".ply", ".safetensors")):
        raise DataError(f"{name} is neither .ply nor .safetensors")
    folder = Path("runs") / "received"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(content)
    return viewer.open(path)
