"""What outlives a reload and a fault: where a person stood, and the program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import SAMPLE, Page, Program, difference, wait_for

FAULTY = """
import sys
from pathlib import Path
from anchorfield.app.view import app, document
draw = document.Document.draw
def faulty(self, camera):
    if Path("fault").exists():
        raise RuntimeError("the lamp is broken")
    return draw(self, camera)
document.Document.draw = faulty
sys.exit(app.serve([Path(sys.argv[1])], port=0))
"""


@pytest.fixture
def faulty(run: Path, tmp_path: Path) -> Iterator[Program]:
    """The viewer on the small run; drawing fails while a file called fault lies in its folder."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", FAULTY, str(run)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env=dict(os.environ),
    )
    program = Program(process)
    assert process.stdout
    lines = process.stdout
    threading.Thread(target=lambda: program.output.extend(lines), daemon=True).start()
    yield program
    program.stop()
    lines.close()


def test_what_the_system_ends_saves_its_training(start: Callable[..., Program], tmp_path: Path) -> None:
    run = tmp_path / "made"
    program = start("train", SAMPLE, "--downscale", "4", "--steps", "100000", "-o", run, "--view")
    events = run / "events.jsonl"
    wait_for(lambda: events.is_file() and '"step"' in events.read_text(), "the first steps")
    program.process.terminate()
    assert program.process.wait(60) == 0
    assert json.loads((run / "state.json").read_text())["status"] == "cancelled"
    assert any((run / "checkpoints").glob("step_*"))


def test_a_reload_brings_the_camera_back(viewer: Program, page: Page) -> None:
    page.open(viewer.url)
    first = page.settled()
    page.drag(200, 30)
    turned = page.changed(first)
    page.tab.wait_for_timeout(2500)  # the browser is told once a second where it stands
    page.tab.reload()
    page.tab.get_by_role("tab").first.wait_for()
    page.tab.wait_for_timeout(2000)
    assert difference(turned, page.settled()) < 0.3 * difference(turned, first)
    page.shot("reload-same-camera")


def test_an_error_while_drawing_is_in_the_page_and_the_program_lives(
    faulty: Program, page: Page, tmp_path: Path
) -> None:
    page.open(faulty.url)
    page.settled()
    (tmp_path / "fault").touch()
    page.drag(120, 20)
    page.says("the lamp is broken")
    page.shot("render-error")
    assert faulty.alive
    (tmp_path / "fault").unlink()
    before = page.picture()
    page.drag(120, 20)
    page.changed(before)
    assert not page.tab.get_by_text("the lamp is broken").filter(visible=True).count()
