"""Where the viewer writes files: into one folder, so that a browser can only add files there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from anchorfield.app import machine
from anchorfield.renderer.errors import UsageError

if TYPE_CHECKING:
    from anchorfield.app.view.app import Viewer

FOLDER = "exports"  # of a run; beside anything else
MOST_DOWNLOAD = 1 << 30  # bytes that are sent to a browser
SAFE = re.compile(r"[\w][\w .+-]{0,120}")


def folder(viewer: Viewer) -> Path:
    """The run's folder for what is made of it, else that beside the file or capture that is open."""
    document = viewer.document
    if document.run is not None and document.run.folder is not None:
        return document.run.folder / FOLDER
    if document.path is not None:
        return (document.path if document.path.is_dir() else document.path.parent) / FOLDER
    return Path.cwd() / FOLDER


def target(viewer: Viewer, name: str, endings: Iterable[str]) -> Path:
    """The file of that name in the folder; raises UsageError where it is no plain name with one of the endings."""
    name, known = name.strip(), tuple(endings)
    if not SAFE.fullmatch(name):
        raise UsageError(f"'{name}' is no file name: use letters, digits, spaces, dots and dashes, without folders")
    if Path(name).suffix.lower() not in known:
        raise UsageError(f"'{name}' needs one of the endings {', '.join(known)}")
    return folder(viewer) / name


def stem(viewer: Viewer) -> str:
    """A file name for what is open, without ending."""
    return re.sub(r"[^\w.-]+", "-", Path(viewer.document.name).stem).strip("-.") or "scene"


def written(path: Path) -> str:
    """For people: what was written, how large, and where."""
    if path.is_dir():
        return f"{len(list(path.iterdir()))} files are in {path}"
    return f"{path.name} ({machine.human_bytes(path.stat().st_size)}) is in {path.parent}"


def send(viewer: Viewer, client: int, path: Path | None) -> str:
    """Let a browser download a file."""
    if path is None or not path.exists():
        raise UsageError("there is nothing to download yet: make the file first")
    if path.is_dir():
        raise UsageError(f"that is a folder of pictures: it is in {path}")
    if path.stat().st_size > MOST_DOWNLOAD:
        raise UsageError(f"the file is too large to send ({written(path)})")
    viewer.client(client).send_file_download(path.name, path.read_bytes(), save_immediately=True)
    return f"{path.name} is being downloaded"
