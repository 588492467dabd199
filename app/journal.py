"""What a run tells: events as JSON lines on disk, words in a log, and one of three ways to show both while it runs."""

from __future__ import annotations

import json
import math
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from anchorfield.app import files
from anchorfield.app.machine import human_bytes, human_time

Event = Mapping[str, Any]
"""`event` is its kind: start, resumed, step, evaluated, saved, message, warning or end; the rest depends on it."""

Show = Callable[[Event], None]

EVENTS, LOG = "events.jsonl", "log.txt"
PLAIN_SECONDS = 5.0  # between two lines where there is no terminal


class Journal:
    """Writes every event to the run's folder and shows it. A full disk silences the files, never the run."""

    def __init__(self, folder: Path, show: Show) -> None:
        self._show = show
        self._events = _append(folder / EVENTS)
        self._log = _append(folder / LOG)
        self._silenced = False

    def event(self, kind: str, **facts: Any) -> None:
        """Record what happened."""
        event = {"event": kind, **files.strict(facts)}
        self._write(self._events, json.dumps(event))
        if kind != "step":
            self._write(self._log, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {sentence(event)}")
        self._show(event)

    def say(self, text: str) -> None:
        """A line for people."""
        self.event("message", text=text)

    def warn(self, text: str) -> None:
        """Something that people should know and that does not stop the run."""
        self.event("warning", text=text)

    def trace(self, problem: BaseException) -> Path:
        """Put an exception's traceback into the log; returns the log."""
        self._write(self._log, "".join(traceback.format_exception(problem)))
        return Path(self._log.name)

    def close(self) -> None:
        """Close the files; what could not be written stays unwritten."""
        for file in (self._events, self._log):
            try:
                file.close()
            except OSError:
                self._silenced = True

    def _write(self, file: IO[str], line: str) -> None:
        try:
            file.write(line + "\n")
            file.flush()
        except OSError as problem:
            if not self._silenced:
                self._silenced = True
                self._show({"event": "warning", "text": f"cannot write {file.name}: {problem.strerror}; going on"})


def read_events(folder: Path) -> list[Event]:
    """The events of a run in order, without those that a later resume made undone and without a torn last line."""
    events: list[Event] = []
    try:
        lines = (folder / EVENTS).read_text(errors="replace").splitlines()
    except OSError:
        return events
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:  # a kill in the middle of a line
            continue
        if isinstance(event, dict) and event.get("event") == "resumed":
            events = [earlier for earlier in events if earlier.get("step", 0) <= event["step"]]
        if isinstance(event, dict):
            events.append(event)
    return events


def sentence(event: Event) -> str:
    """An event in words."""
    kind = event["event"]
    if kind in ("message", "warning"):
        return ("warning: " if kind == "warning" else "") + str(event["text"])
    if kind == "step":
        return f"{event['progress']:4.0%}  {measures(event)}"
    if kind == "evaluated":
        return f"step {event['step']}: held-out PSNR {event['psnr']:.2f} dB over {event['views']} views"
    if kind == "saved":
        return f"step {event['step']}: saved {event['path']} ({event['save_seconds']:.2f} s)"
    if kind == "resumed":
        return f"continuing at step {event['step']}, {human_time(event['seconds'])} of training behind it"
    if kind == "end":
        return f"{event['status']} at step {event['step']}, {human_time(event['seconds'])} of training"
    return f"{kind}: " + ", ".join(f"{name} {value}" for name, value in event.items() if name != "event")


def measures(event: Event) -> str:
    """The figures of a step event: ETA, step, speed, loss, PSNR, count, memory."""
    parts = [f"step {event['step']}", f"{human_time(event['seconds'])} gone, {human_time(event['eta'])} left"]
    parts += [f"{event['steps_per_second']:.1f} steps/s", f"loss {event['loss']:.4f}"]
    if event.get("psnr") is not None:
        parts.append(f"PSNR {event['psnr']:.2f} dB")
    if event.get("count") is not None:
        parts.append(f"{event['count']:,} Gaussians")
    return ", ".join([*parts, human_bytes(event["memory"])])


@contextmanager
def shown(as_json: bool = False) -> Iterator[Show]:
    """The way to show events that fits: JSON lines where asked for, a live line on a terminal, else plain lines."""
    if as_json:
        yield show_json
    elif sys.stdout.isatty():
        with live() as show:
            yield show
    else:
        yield plain_lines()


def silent(event: Event) -> None:
    """Show nothing."""


def show_json(event: Event) -> None:
    """One JSON object a line on stdout."""
    print(json.dumps(event), flush=True)


def plain_lines() -> Show:
    """Words on stdout, warnings on stderr; steps only every few seconds."""
    last = -math.inf

    def show(event: Event) -> None:
        nonlocal last
        now = time.monotonic()
        if event["event"] == "step":
            if now - last < PLAIN_SECONDS:
                return
            last = now
        print(sentence(event), file=sys.stderr if event["event"] == "warning" else sys.stdout, flush=True)

    return show


@contextmanager
def live() -> Iterator[Show]:
    """A progress bar that follows the steps, with the other events above it."""
    from rich.console import Group
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    bar, words = ProgressBar(total=1.0), Text()
    with Live(Group(bar, words), refresh_per_second=4) as display:

        def show(event: Event) -> None:
            if event["event"] == "step":
                bar.update(event["progress"])
                words.plain = sentence(event)
            else:
                style = "yellow" if event["event"] == "warning" else ""
                display.console.print(Text(sentence(event), style=style))

        yield show


def _append(path: Path) -> IO[str]:
    """`path` opened for more lines; a line that a kill tore is ended first."""
    torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - the journal lives as long as the run
    if torn:
        file.write("\n")
    return file
