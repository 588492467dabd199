"""The Export tab: what is open, with its edits, in a file of another program; made as a job."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from anchorfield.app import export, files
from anchorfield.app.model_files import SPLATS
from anchorfield.app.run import FrameOfReference, Run
from anchorfield.app.view.document import Document
from anchorfield.app.view.panels import outputs
from anchorfield.app.view.panels.widgets import put
from anchorfield.renderer.errors import UsageError
from anchorfield.scenes.similarity import transformed
from anchorfield.scenes.splat_ply import write_ply

if TYPE_CHECKING:
    from anchorfield.app.view.app import Viewer

ABOUT = {
    ".ply": "Gaussian splats for SuperSplat, Blender add-ons, game engines and most other programs. Nothing is lost.",
    ".safetensors": "The model in few bytes, to be opened here again or sent on.",
    ".html": "One web page with a viewer in it: opens in any browser, without a network.",
}
NAMES = {"source": "As captured", "placed": "As placed in the World tab", "local": "As trained"}
HINT = "Where the origin is, which way is up and how long a unit is"


def build(viewer: Viewer) -> None:
    """The tab."""
    panel = _Panel(viewer)
    viewer.on_open(panel.opened)
    viewer.every_second(panel.update)
    viewer.command("Export", "X", lambda _: panel.export(), icon="file-export")


class _Panel:
    """Format, coordinates, name, and the file that was made last."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._last: Path | None = None
        gui = viewer.gui
        with viewer.tab("Export", "file-export"):
            self._words = gui.add_markdown("")
            self._format = gui.add_dropdown("Format", tuple(export.WRITERS))
            self._about = gui.add_markdown("")
            frames = tuple(NAMES[name] for name in get_args(FrameOfReference))
            self._frame = gui.add_dropdown("Coordinates", frames, hint=HINT)
            self._name = gui.add_text("Name", "scene", hint="Of the file, without its ending")
            self._measure = gui.add_checkbox(
                "Measure what it loses",
                False,
                hint="Renders the held-out views from the file and compares them with the model",
            )
            self._start = viewer.button(
                "Export",
                lambda _: self.export(),
                icon="file-export",
                colour="green",
                hint="A job in the background. Key X",
            )
            self._made = gui.add_markdown("")
            self._send = viewer.button(
                "Download",
                lambda client: outputs.send(viewer, client, self._last),
                icon="download",
                hint="To this computer",
            )
        self._format.on_update(lambda _: self.update())
        self.opened()

    def opened(self) -> None:
        """Another scene: another name, no file yet."""
        self._last = None
        put(self._name, value=outputs.stem(self._viewer))
        self.update()

    def update(self) -> None:
        """Say what can be exported."""
        reason = self._reason()
        edited = self._viewer.document.edited
        if reason:
            text = f"Nothing can be exported: {reason}."
        else:
            text = f"{'With your edits, into' if edited else 'Into'} `{outputs.folder(self._viewer)}`"
        made = outputs.written(self._last) if self._last and self._last.exists() else ""
        put(self._words, content=text)
        put(self._about, content=f"*{ABOUT.get(self._format.value, '')}*")
        put(self._start, disabled=reason is not None)
        put(self._made, content=made)
        put(self._send, visible=bool(made))
        put(self._measure, visible=not edited and self._viewer.document.scene is not None)

    def export(self) -> str:
        """Put the job into the queue."""
        if reason := self._reason():
            raise UsageError(f"nothing can be exported: {reason}")
        name = self._name.value.strip().removesuffix(self._format.value) + self._format.value
        out = outputs.target(self._viewer, name, export.WRITERS)
        kind = next(key for key, words in NAMES.items() if words == self._frame.value)
        document = self._viewer.document
        if kind == "placed" and document.run is not None and not document.edited:
            document.run.placed()  # says in words where nobody placed it
        self._viewer.jobs.add(f"Export {name}", self._exporting(document, out, kind, self._measure.value))  # type: ignore[arg-type]
        return f"{name} is being written: see the Jobs tab"

    def _reason(self) -> str | None:
        document = self._viewer.document
        if document.training:
            return "the model is in training; stop it first"
        if document.run is None:
            return "nothing is trained yet"
        return None

    def _exporting(
        self, document: Document, out: Path, frame: FrameOfReference, measure: bool
    ) -> Generator[tuple[float, str], None, Path]:
        run = document.run
        if run is None:
            raise UsageError("nothing is trained yet")
        written = None
        if document.edited:
            yield 0.1, "writing"
            count = export_edited(document, out, frame)
        else:
            written = yield from export.exporting(run, out, frame)
            count = written.count
        self._last = out
        text = outputs.written(out)
        if measure and not document.edited:
            yield 0.5, f"{count:,} rows are written; comparing with the model"
            lost = export.loss(run, out, frame, written)
            text += f"; {lost}" if isinstance(lost, str) else f"; it loses {lost.loss:.3f} dB over {lost.views} views"
        self.update()
        yield 1.0, text
        return out


def export_edited(document: Document, out: Path, frame: FrameOfReference) -> int:
    """Write the edited Gaussians by the file's ending: through a splat file, which every writer can read as a run."""
    source = document.source_from_world
    gaussians = document.gaussians()
    if len(gaussians) == 0:
        raise UsageError("every Gaussian was deleted: there is nothing to write")
    if frame == "source":
        gaussians = transformed(gaussians, source)
    elif frame == "placed":
        gaussians = transformed(gaussians, document.placement.placed_from_world(source))
    if out.suffix.lower() == SPLATS:
        write_ply(files.output_file(out), gaussians)
        return len(gaussians)
    with tempfile.TemporaryDirectory() as folder:
        between = Path(folder) / f"{out.stem}{SPLATS}"
        write_ply(between, gaussians)
        return export.export(Run.open(between), out, "local").count
