"""The Compare tab: two runs, or one and its photographs, on one camera; and what each costs and achieves."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from anchorfield.app.view.compare import Row, measuring, table
from anchorfield.app.view.overlay import Gesture
from anchorfield.app.view.panels.widgets import on_hand, put
from anchorfield.app.view.pictures import PHOTOGRAPH, Split
from anchorfield.renderer.errors import DataError, UsageError

if TYPE_CHECKING:
    from anchorfield.app.view.app import Viewer

OFF, BESIDE, DIFFERENCE = "One picture", "Split", "Difference"
ABOUT = {
    OFF: "Choose *Split* to see two of them on one camera.",
    BESIDE: "Drag the line in the picture.",
    DIFFERENCE: "Dark where both agree, bright where they differ.",
}
PHOTO = "The nearest photo"


def build(viewer: Viewer) -> None:
    """The tab."""
    panel = _Compare(viewer)
    viewer.on_open(panel.opened)
    viewer.command("Compare: split on or off", "7", lambda _: panel.toggle(), icon="layout-columns")


class _Compare:
    """Which two, how, and their table."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._rows: list[Row] = []
        gui = viewer.gui
        with viewer.tab("Compare", "layout-columns"):
            self._how = gui.add_dropdown("Show", (OFF, BESIDE, DIFFERENCE), hint="Key 7 switches the split")
            self._words = gui.add_markdown("")
            self._left = gui.add_dropdown("Left", ("",), hint="What is on the left of the line")
            self._right = gui.add_dropdown("Right", (PHOTO,), hint="What is on the right of the line")
            with gui.add_folder("Another run or model"):
                self._path = gui.add_text("Path", "", hint="A run folder, or a model (.ply, .safetensors)")
                viewer.button("Open beside", lambda _: self._open(), icon="folder-plus")
            with gui.add_folder("Figures"):
                viewer.button(
                    "Measure",
                    lambda _: self._measure(),
                    icon="chart-bar",
                    hint="PSNR and SSIM on the held-out photos, time, size, speed; a job in the background",
                )
                self._table = gui.add_markdown("*Not measured yet.*")
        for handle in (self._how, self._left, self._right):
            on_hand(viewer, "Compare", handle, lambda _: self._apply())
        viewer.serving.overlay.on_gesture(self._drag)
        self.opened()

    def opened(self) -> None:
        """Other things are open: their names, and no split."""
        names = tuple(self._viewer.comparison.names)
        self._rows = []
        self._left.options, self._right.options = names, (*names[1:], PHOTO, names[0])
        put(self._left, value=names[0])
        put(self._right, value=self._right.options[0])
        put(self._how, value=OFF)
        self._apply()

    def toggle(self) -> str | None:
        """Switch the split on or off."""
        put(self._how, value=OFF if self._how.value != OFF else BESIDE)
        return self._apply()

    def _apply(self) -> str | None:
        how, viewer = self._how.value, self._viewer
        put(self._words, content=f"*{ABOUT[how]}*")
        if how == OFF:
            viewer.serving.overlay.split(None, None)
            viewer.set_look(dataclasses.replace(viewer.look, split=None))
            return None
        right = PHOTOGRAPH if self._right.value == PHOTO else self._right.value
        if right == PHOTOGRAPH and viewer.document.scene is None:
            put(self._how, value=OFF)
            raise UsageError(f"there are no photos to compare with: {viewer.document.no_scene_reason}")
        at = viewer.look.split.at if viewer.look.split else 0.5
        split = Split(self._left.value, right, at, difference=how == DIFFERENCE)
        viewer.serving.overlay.split(None, at if how == BESIDE else None)
        viewer.set_look(dataclasses.replace(viewer.look, split=split))
        return None

    def _drag(self, gesture: Gesture) -> None:
        look = self._viewer.look
        if gesture.kind != "split" or look.split is None:
            return
        at = gesture.points[-1][0]
        self._viewer.set_look(dataclasses.replace(look, split=dataclasses.replace(look.split, at=at)))
        if gesture.done:
            self._viewer.serving.overlay.split(None, at)

    def _open(self) -> str:
        path = Path(self._path.value.strip().strip("\"'")).expanduser()
        if not self._path.value.strip() or not path.exists():
            raise DataError(f"{path} does not exist on the machine that runs anchorfield")
        return self._viewer.open_beside(path)

    def _measure(self) -> str:
        viewer = self._viewer
        runs = [(d.name, d.run) for d in (viewer.document, *viewer.others) if d.run is not None]
        if not runs:
            raise UsageError("nothing is trained yet: there is nothing to measure")
        self._rows = []

        def steps() -> Generator[tuple[float, str], None, None]:
            for index, (name, run) in enumerate(runs):
                measured = measuring(name, run)
                try:
                    while True:
                        share, sentence = next(measured)
                        yield (index + share) / len(runs), sentence
                except StopIteration as end:
                    self._rows.append(end.value)
                    put(self._table, content=table(self._rows))

        viewer.jobs.add("Measure", steps())
        return "Measuring: the table fills as views are rendered"
