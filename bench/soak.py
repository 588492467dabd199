"""A soak of the viewer: two browsers orbit, change the picture, train and pause for minutes; nothing may break or grow.

    python -m bench.soak [--minutes M] [--run RUN] [--json FILE]

The viewer runs as the program that users start, on a copy of a run (by default one trained here on the sample capture).
Two browsers with state of their own drag the camera; one of them also trains, pauses, resumes, saves, stops, cleans up
and undoes through the panel's buttons; the other opens every tab and reloads the page. It fails on an error of a page,
a traceback or error in the program's output, a picture that does not follow the camera, and where the
program's resident memory after the warm-up (the first third) grows by more than 5 %.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench._chromium import CHROMIUM, FLAGS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "assets" / "sample"
GROWTH = 0.05  # of resident memory, after the warm-up
WARM_UP = 1 / 3  # of the soak
BAD = re.compile(r"Traceback|Error\b|Exception|error:", re.IGNORECASE)
PATIENCE = 90_000  # milliseconds that anything may take on a busy machine


@dataclass
class Program:
    """The viewer as a process, with what it prints and how much memory it holds."""

    process: subprocess.Popen[str]
    output: list[str] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)  # (seconds since the start, resident bytes)

    def watch(self) -> None:
        """Collect output and memory until the process ends."""
        assert self.process.stdout is not None
        threading.Thread(target=self._sample, daemon=True).start()
        for line in self.process.stdout:
            self.output.append(line.rstrip())

    def _sample(self) -> None:
        begin = time.monotonic()
        while self.process.poll() is None:
            try:
                pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
            except (OSError, IndexError, ValueError):
                return
            self.memory.append((time.monotonic() - begin, pages * os.sysconf("SC_PAGE_SIZE")))
            time.sleep(1.0)

    def url(self) -> str:
        """The address that it printed."""
        end = time.monotonic() + 120
        while time.monotonic() < end and self.process.poll() is None:
            for line in list(self.output):
                if found := re.search(r"viewer: (http://\S+)", line):
                    return found.group(1)
            time.sleep(0.1)
        raise SystemExit("the viewer printed no address:\n" + "\n".join(self.output))


@dataclass
class Visitor:
    """A page before the viewer and what went wrong on it."""

    name: str
    page: Page
    problems: list[str] = field(default_factory=list)
    drags: int = 0
    still: int = 0  # drags after which the picture did not change

    def enter(self, url: str) -> None:
        """Open the viewer."""
        self.page.on("pageerror", lambda error: self.problems.append(f"page: {error}"))
        self.page.on("console", lambda message: self._said(message.type, message.text))
        self.page.goto(url)
        self.page.get_by_role("tab").first.wait_for(timeout=PATIENCE)

    def _said(self, kind: str, text: str) -> None:
        if kind == "error":
            self.problems.append(f"console: {text}")

    def canvas(self) -> bytes:
        """The picture as it is now."""
        return self.page.locator("canvas").first.screenshot(timeout=PATIENCE)

    def drag(self, chance: random.Random) -> None:
        """Turn the camera a little and see that the picture follows."""
        box = self.page.locator("canvas").first.bounding_box()
        assert box
        before = self.canvas()
        x, y = box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.5
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + chance.choice((-90, 90)), y + chance.uniform(-10, 10), steps=8)
        self.page.mouse.up()
        self.drags += 1
        end = time.monotonic() + 20
        while self.canvas() == before:
            if time.monotonic() > end:
                self.still += 1
                return
            self.page.wait_for_timeout(200)

    def show(self, tab: str) -> None:
        """Choose a tab where there is one."""
        found = self.page.get_by_role("tab", name=tab, exact=True)
        if found.count():
            found.click(timeout=PATIENCE)

    def press(self, label: str) -> bool:
        """Click a button where it can be pressed within some seconds; says whether it could."""
        button = self.page.get_by_role("button", name=label, exact=True).filter(visible=True)
        end = time.monotonic() + 5
        while time.monotonic() < end:
            if button.count() and button.first.is_enabled():
                button.first.click(timeout=PATIENCE)
                return True
            self.page.wait_for_timeout(250)
        return False


@dataclass(frozen=True)
class Result:
    """What a soak found."""

    minutes: float
    drags: int
    actions: dict[str, int]
    warm: float  # bytes, median of the first tenth after the warm-up
    last: float  # bytes, median of the last tenth
    memory: list[tuple[int, int]]  # (seconds since the start, MiB)
    problems: list[str]

    @property
    def growth(self) -> float:
        """Share by which memory grew after the warm-up."""
        return self.last / self.warm - 1 if self.warm else 0.0


def soak(run: Path, minutes: float) -> Result:
    """Start the viewer on a run and use it for so long."""
    with _program(run) as program, _browsers(2) as pages:
        url = program.url()
        first, second = (Visitor(name, page) for name, page in zip(("first", "second"), pages, strict=True))
        for visitor in (first, second):
            visitor.enter(url)
        begin, actions = time.monotonic(), dict[str, int]()
        chance = random.Random(0)
        plan = _acts(first, second)
        while time.monotonic() - begin < 60 * minutes and program.process.poll() is None:
            for visitor in (first, second):
                visitor.drag(chance)
            name, act = next(plan)
            if act():
                actions[name] = actions.get(name, 0) + 1
        problems = _problems(program, (first, second), begin)
    return _result(program, (first, second), minutes, actions, problems)


def _acts(first: Visitor, second: Visitor) -> Iterator[tuple[str, Callable[[], bool]]]:
    """What is done between two drags, again and again."""

    def press(tab: str, label: str) -> Callable[[], bool]:
        def act() -> bool:
            first.show(tab)
            return first.press(label)

        return act

    def reload() -> bool:
        second.page.reload()
        second.page.get_by_role("tab").first.wait_for(timeout=PATIENCE)
        return True

    def wander() -> bool:
        for tab in second.page.get_by_role("tab").all():
            tab.click(timeout=PATIENCE)
        return True

    while True:
        yield "train", _first_of(press("Train", "Go on"), press("Train", "Start training"))
        yield "look", lambda: True
        yield "pause", press("Train", "Pause")
        yield "resume", press("Train", "Resume")
        yield "tabs", wander
        yield "save", press("Train", "Save now")
        yield "reload", reload
        yield "look", lambda: True
        yield "stop", press("Train", "Stop and save")
        yield "propose", press("Edit", "Propose")
        yield "apply", press("Edit", "Apply")
        yield "undo", press("Edit", "Undo")


def _first_of(*acts: Callable[[], bool]) -> Callable[[], bool]:
    return lambda: any(act() for act in acts)


def _problems(program: Program, visitors: tuple[Visitor, ...], begin: float) -> list[str]:
    problems = [f"{visitor.name} {problem}" for visitor in visitors for problem in visitor.problems]
    problems += [f"{v.name}: after {v.still} of {v.drags} drags the picture stood still" for v in visitors if v.still]
    if program.process.poll() is not None:
        problems.append(f"the viewer ended with {program.process.returncode} after {time.monotonic() - begin:.0f} s")
    return problems


def _result(
    program: Program, visitors: tuple[Visitor, ...], minutes: float, actions: dict[str, int], problems: list[str]
) -> Result:
    problems = [*problems, *(f"output: {line}" for line in program.output if BAD.search(line))]
    values = [held for seconds, held in program.memory if seconds > WARM_UP * 60 * minutes]
    tenth = max(1, len(values) // 10)
    warm = statistics.median(values[:tenth]) if values else 0.0
    last = statistics.median(values[-tenth:]) if values else 0.0
    series = [(round(seconds), held >> 20) for seconds, held in program.memory[::5]]
    result = Result(minutes, sum(v.drags for v in visitors), actions, warm, last, series, problems)
    if result.growth > GROWTH:
        problems.append(f"memory grew by {result.growth:.1%} after the warm-up, {GROWTH:.0%} are allowed")
    return result


@contextmanager
def _program(run: Path) -> Iterator[Program]:
    command = [sys.executable, "-u", "-m", "anchorfield.app.cli", "view", str(run), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=run.parent)
    program = Program(process)
    watcher = threading.Thread(target=program.watch, daemon=True)
    watcher.start()
    try:
        yield program
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            program.output.append("error: the viewer did not end on Ctrl-C")
            process.kill()
        watcher.join(10)


@contextmanager
def _browsers(count: int) -> Iterator[list[Page]]:
    """Pages of as many browsers, each with state of its own."""
    if CHROMIUM is None:
        raise SystemExit("no Chromium on this machine (Debian: apt install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browsers: list[Browser] = [
            playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS)) for _ in range(count)
        ]
        yield [browser.new_page(viewport={"width": 1000, "height": 620}) for browser in browsers]
        for browser in browsers:
            browser.close()


def main() -> int:
    """Soak and say what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--run", type=Path, help="a run to copy; trained on the bundled capture where it is not given")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell, also by children
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        run = Path(folder) / "run"
        if options.run:
            shutil.copytree(options.run, run)
        else:
            from anchorfield.app.journal import silent
            from anchorfield.app.training import train

            train(SAMPLE, steps=300, downscale=2, out=run, show=silent)
        result = soak(run, options.minutes)
    facts: dict[str, Any] = {**vars(result), "growth": result.growth}
    print(f"{result.minutes:g} minutes, {result.drags} drags, {result.actions}")
    print(f"memory after the warm-up {result.warm / 2**20:.0f} MiB, at the end {result.last / 2**20:.0f} MiB", end="")
    print(f" ({result.growth:+.1%})")
    print("\n".join(result.problems) or "no problem")
    if options.json:
        options.json.write_text(json.dumps(facts, indent=1) + "\n")
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
