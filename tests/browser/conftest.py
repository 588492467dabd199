"""Runs the viewer as a program and a real Chromium before it; every picture taken is kept for people to look at.

Screenshots go to the folder that ANCHORFIELD_SCREENSHOTS names, else to the test run's own. Where no Chromium is
found these tests are skipped, and say so.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import imageio.v3 as iio
import numpy as np
import pytest

from anchorfield.app.training import train

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator
    from playwright.sync_api import Page as Tab

SAMPLE = Path(__file__).resolve().parents[2] / "assets" / "sample"
PATIENT = pytest.mark.skipif(
    "ANCHORFIELD_PATIENT" not in os.environ,
    reason="minutes long, and not yet steady where the processor is busy: set ANCHORFIELD_PATIENT=1 to run it",
)
PATIENCE = 60.0  # seconds that anything may take on a busy machine


def wait_for(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait until a condition of the program (not of a page) holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(0.05)


def difference(first: bytes, second: bytes) -> float:
    """Mean absolute difference of two screenshots' colours in [0, 1]."""
    pictures = [iio.imread(data)[..., :3].astype(float) / 255 for data in (first, second)]
    return float(np.abs(pictures[0] - pictures[1]).mean())


@dataclass
class Program:
    """A running `anchorfield` with what it has printed."""

    process: subprocess.Popen[str]
    output: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The address that it printed."""

        def printed() -> re.Match[str] | None:
            return next(filter(None, (re.search(r"viewer: (http://\S+)", line) for line in self.output)), None)

        wait_for(lambda: printed() or self.process.poll() is not None, "the viewer's address")
        match = printed()
        assert match, "the viewer ended: " + "".join(self.output)
        return match.group(1)

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def stop(self) -> int:
        """Ctrl-C; returns the exit code."""
        if self.alive:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Page:
    """A browser page before the viewer."""

    def __init__(self, tab: Tab, folder: Path) -> None:
        self.tab, self._folder = tab, folder
        self.problems: list[str] = []  # what the page's own scripts complained about
        tab.on("pageerror", lambda error: self.problems.append(str(error)))

    def open(self, url: str) -> Page:
        """Go there and wait until the tabs are there and a picture is."""
        self.tab.goto(url)
        self.tab.get_by_role("tab").first.wait_for(timeout=1000 * PATIENCE)
        return self

    def show(self, name: str) -> Page:
        """Choose one of the viewer's tabs."""
        self.tab.get_by_role("tab", name=name, exact=True).click()
        return self

    def press(self, label: str) -> Page:
        """Click a button."""
        self.tab.get_by_role("button", name=label, exact=True).filter(visible=True).first.click()
        return self

    def key(self, name: str) -> Page:
        """Press a hotkey."""
        self.tab.keyboard.press(name)
        return self

    def says(self, text: str | re.Pattern[str], seconds: float = PATIENCE) -> Locator:
        """Wait until the page says so, anywhere."""
        found = self.tab.get_by_text(text).filter(visible=True).first
        found.wait_for(timeout=1000 * seconds)
        return found

    def leave_fields(self) -> Page:
        """Take the keyboard out of any widget, so that hotkeys are heard."""
        self.tab.evaluate("document.activeElement?.blur()")
        return self

    def field(self, label: str) -> Locator:
        """The input that stands beside a label."""
        return self.tab.get_by_label(label, exact=True).filter(visible=True).first

    def choose(self, label: str, option: str) -> Page:
        """Pick an entry of a dropdown."""
        self.field(label).click()
        self.tab.get_by_role("option", name=option, exact=True).filter(visible=True).first.click()
        return self

    def picture(self) -> bytes:
        """The middle of the scene as it is drawn now, without notifications and the line of status."""
        box = self.tab.locator("canvas[data-engine]").bounding_box()
        assert box
        x, y, width, height = (box[name] for name in ("x", "y", "width", "height"))
        return self.tab.screenshot(
            clip={"x": x + 0.4 * width, "y": y + 0.1 * height, "width": 0.5 * width, "height": 0.7 * height}
        )

    def settled(self) -> bytes:
        """The picture once it has stopped changing."""
        before = b""
        end = time.monotonic() + PATIENCE
        while (now := self.picture()) != before:
            assert time.monotonic() < end, "the picture never came to rest"
            before = now
            self.tab.wait_for_timeout(400)
        return now

    def rested(self) -> bytes:
        """The picture in its full size: it has rested for longer than the last step of the ladder takes."""
        self.settled()
        self.tab.wait_for_timeout(2000)
        return self.settled()

    def changed(self, before: bytes) -> bytes:
        """The settled picture, once it differs from `before`."""
        end = time.monotonic() + PATIENCE
        while self.picture() == before:
            assert time.monotonic() < end, "the picture did not change"
            self.tab.wait_for_timeout(300)
        return self.settled()

    def becomes(self, picture: bytes) -> None:
        """Wait until exactly this picture is at rest: the first one that seems to be may be on its way to full size."""
        wait_for(lambda: self.settled() == picture, "the picture as it was")

    def drag(self, dx: float, dy: float, button: str = "left", steps: int = 10) -> Page:
        """Drag over the middle of the scene."""
        box = self.tab.locator("canvas[data-engine]").bounding_box()
        assert box
        x, y = box["x"] + box["width"] * 0.35, box["y"] + box["height"] / 2
        self.tab.mouse.move(x, y)
        self.tab.mouse.down(button=button)  # type: ignore[arg-type]
        self.tab.mouse.move(x + dx, y + dy, steps=steps)
        self.tab.mouse.up(button=button)  # type: ignore[arg-type]
        return self

    def shot(self, name: str) -> Path:
        """Keep a screenshot of the whole page."""
        path = self._folder / f"{name}.png"
        self.tab.screenshot(path=path)
        return path


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures are kept."""
    named = os.environ.get("ANCHORFIELD_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def new_page(chromium: Browser, screenshots: Path) -> Iterator[Callable[[], Page]]:
    """Makes pages, each of a browser of its own (cookies, storage); none may have complained at the end."""
    pages: list[Page] = []

    def make(width: int = 1280, height: int = 800) -> Page:
        context = chromium.new_context(viewport={"width": width, "height": height})
        pages.append(Page(context.new_page(), screenshots))
        return pages[-1]

    yield make
    for page in pages:
        page.tab.context.close()
    assert not [problem for page in pages for problem in page.problems]


@pytest.fixture
def page(new_page: Callable[[], Page]) -> Page:
    """A page."""
    return new_page()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run on the sample capture."""
    folder = tmp_path_factory.mktemp("browser") / "run"
    train(SAMPLE, steps=120, downscale=4, out=folder, show=lambda event: None)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """The small run, for one test to do with as it likes."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@contextmanager
def running(*arguments: str | Path, folder: Path) -> Iterator[Program]:
    """`anchorfield` with some arguments, in a folder, on a free port."""
    command = [sys.executable, "-u", "-m", "anchorfield.app.cli", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder, env=dict(os.environ)
    )
    program = Program(process)

    def listen() -> None:
        assert process.stdout
        for line in process.stdout:
            program.output.append(line)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield program
    finally:
        program.stop()
        listener.join(5)
        if process.stdout:
            process.stdout.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Starts programs (see `running`) in a folder of the test's own."""
    with ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(running(*arguments, folder=tmp_path))


@pytest.fixture
def viewer(start: Callable[..., Program], run: Path) -> Program:
    """The viewer on the small run, for one test alone."""
    return start("view", run)


@pytest.fixture(scope="module")
def shared(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The viewer on the small run, for all tests of a module that leave it as it was."""
    with running("view", trained, folder=tmp_path_factory.mktemp("shared")) as program:
        yield program
