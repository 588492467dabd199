"""The Jobs tab: long work in the background, one after another, with progress and a button to cancel each."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import viser

from anchorfield.app import machine
from anchorfield.app.jobs import Job
from anchorfield.app.view.panels.widgets import put

if TYPE_CHECKING:
    from anchorfield.app.view.app import Viewer

SHOWN = 8  # jobs, the newest first
ICONS = {"waiting": "⏳", "running": "▶", "done": "✔", "cancelled": "✖", "failed": "⚠"}
NOTHING = (
    "No jobs yet. Videos, meshes and exports are made here, one after another, while you go on looking and editing."
)


def build(viewer: Viewer) -> None:
    """The tab; it follows the queue, and says when a job has ended."""
    with viewer.tab("Jobs", "list-check") as tab:
        listed = _List(viewer, tab)
    viewer.jobs.on_change(lambda job: _tell(viewer, job))
    viewer.jobs.on_change(lambda _: listed.show())
    viewer.every_second(listed.show)
    viewer.command("Cancel the running job", None, lambda _: _cancel(viewer), icon="x")
    listed.show()


def _tell(viewer: Viewer, job: Job) -> None:
    if job.state == "done":
        viewer.notify(job.sentence or "done", title=job.name)
    elif job.state == "failed":
        viewer.notify(job.problem or "it failed", "error", title=job.name)
    elif job.state == "cancelled":
        viewer.notify("It was cancelled; nothing half done is left", "warning", title=job.name)


def _cancel(viewer: Viewer) -> str:
    running = viewer.jobs.running
    if running is None:
        return "No job is running"
    viewer.jobs.cancel(running)
    return f"{running.name} ends after its present step"


@dataclass
class _Row:
    folder: viser.GuiFolderHandle
    words: viser.GuiMarkdownHandle
    bar: Any
    cancel: viser.GuiButtonHandle


class _List:
    """A row for each of the newest jobs."""

    def __init__(self, viewer: Viewer, tab: viser.GuiTabHandle) -> None:
        self._viewer, self._tab = viewer, tab
        self._lock = threading.Lock()  # the clock and the jobs' thread both show
        self._rows: dict[Job, _Row] = {}
        self._made = 0
        self._empty = viewer.gui.add_markdown(NOTHING)

    def show(self) -> None:
        """Make the rows what the queue says now."""
        with self._lock:
            jobs = self._viewer.jobs.jobs[-SHOWN:]
            self._empty.visible = not jobs
            for job in [job for job in self._rows if job not in jobs]:
                self._rows.pop(job).folder.remove()
            for job in jobs:
                if job not in self._rows:
                    self._rows[job] = self._row(job)
                self._update(job, self._rows[job])

    def _row(self, job: Job) -> _Row:
        gui = self._viewer.gui
        self._made += 1
        with self._tab, gui.add_folder(job.name, order=-self._made) as folder:  # the newest above
            words = gui.add_markdown("")
            bar = gui.add_progress_bar(0.0)
            cancel = self._viewer.button(
                "Cancel", lambda _: self._cancel(job), icon="x", hint="End after its present step"
            )
        return _Row(folder, words, bar, cancel)

    def _update(self, job: Job, row: _Row) -> None:
        text = f"{ICONS[job.state]} **{job.state}** · {job.sentence or 'waits for its turn'}"
        if job.began is not None:
            text += f" · {machine.human_time(job.seconds)}"
        put(row.words, content=text)
        put(row.bar, value=round(100 * job.share, 1), animated=job.state == "running", visible=job.state == "running")
        put(row.cancel, visible=not job.over)

    def _cancel(self, job: Job) -> str:
        self._viewer.jobs.cancel(job)
        return f"{job.name} ends after its present step"
