"""The viewer as a person meets it: it opens, turns, trains, flies, compares, and outlives what goes wrong."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest
from conftest import SAMPLE, Page, Program, difference, wait_for

from bench._chromium import CHROMIUM, FLAGS

NewPage = Callable[[], Page]


def status(run: Path) -> str:
    """What a run says of itself."""
    return str(json.loads((run / "state.json").read_text())["status"])


def test_a_run_opens_and_turns(shared: Program, page: Page) -> None:
    page.open(shared.url)
    first = page.settled()
    page.shot("open")
    page.drag(160, 40)
    page.changed(first)
    page.shot("orbit")


def test_every_kind_of_picture(shared: Program, page: Page) -> None:
    page.open(shared.url).show("View")
    before = page.settled()
    for key, name in zip("23456", ("depth", "normals", "opacity", "error", "count"), strict=True):
        page.leave_fields()
        page.key(key)
        before = page.changed(before)
        page.shot(f"mode-{name}")
    page.leave_fields().key("1")
    page.changed(before)


def test_a_photo_is_flown_to_and_shown_beside_its_render(shared: Program, page: Page) -> None:
    page.open(shared.url).show("Cameras")
    before = page.settled()
    page.press("Fly there")
    page.says("Render")
    page.says(re.compile(r"\d\d\.\d\d dB"))
    page.changed(before)
    page.shot("fly-to-photo")


def test_the_scene_hides_what_is_behind_it_and_no_longer(shared: Program, page: Page) -> None:
    page.open(shared.url).show("View")
    first = page.rested()
    page.tab.get_by_text("Scene hides what is behind it").click()
    covered = page.changed(first)
    page.shot("scene-hides")
    page.drag(160, 40)
    turned = page.changed(covered)
    page.tab.get_by_text("Scene hides what is behind it").click()
    page.rested()
    assert difference(page.picture(), turned) < 0.02
    page.drag(-160, -40)
    page.changed(turned)
    assert difference(page.rested(), first) < 0.02, "an old picture lies before the new ones"


def test_a_browser_with_a_graphics_processor_draws_for_itself(shared: Program, page: Page) -> None:
    page.open(shared.url).show("View")
    drawn_by_program = page.rested()
    page.leave_fields().key("8")
    page.says("This browser has no graphics processor")
    page.becomes(drawn_by_program)
    page.tab.add_init_script(  # the page believes that what draws is a device
        "WebGL2RenderingContext.prototype.getParameter = ((get) => function (name) {"
        " return name === 37446 ? 'a device' : get.call(this, name) })(WebGL2RenderingContext.prototype.getParameter)"
    )
    page.tab.reload()
    page.show("View")
    page.says(re.compile(r"drawn by this browser · [\d,]+ Gaussians"))
    itself = page.settled()
    page.shot("drawn-by-the-browser")
    assert difference(itself, drawn_by_program) < 0.02
    page.drag(160, 40)
    turned = page.changed(itself)
    page.says(re.compile("drawn by this browser"))
    page.leave_fields().key("8")
    page.says(re.compile(r"\d+x\d+ · \d+ ms"))
    page.rested()
    page.shot("drawn-by-the-program-again")
    assert difference(page.picture(), turned) < 0.02


def test_two_sides_of_a_split(shared: Program, page: Page) -> None:
    page.open(shared.url).show("Compare")
    alone = page.settled()
    page.leave_fields()
    page.key("7")
    page.says("Drag the line in the picture.")
    split = page.changed(alone)
    page.shot("compare-split")
    page.press("Measure")
    page.says(re.compile("PSNR dB"))
    page.shot("compare-table")
    page.key("7")
    assert page.changed(split) != split


def test_training_pauses_resumes_stops_and_is_kept(start: Callable[..., Program], page: Page, tmp_path: Path) -> None:
    program = start("train", SAMPLE, "--downscale", "4", "--steps", "100000", "-o", tmp_path / "made", "--view")
    page.open(program.url).show("Train")
    page.says(re.compile(r"step \d"))
    page.press("Pause")
    page.says("paused")
    page.says("Training is paused")
    page.shot("train-paused")
    page.press("Resume")
    page.says("training")
    page.tab.reload()
    page.show("Train")
    page.says(re.compile(r"steps/s"))
    page.shot("train-after-reload")
    page.press("Stop and save")
    page.says("Train longer")
    wait_for(lambda: status(tmp_path / "made") == "cancelled", "the run to be saved")
    page.shot("train-stopped")
    assert program.stop() == 0


def test_the_sample_is_one_click_from_an_empty_start(start: Callable[..., Program], page: Page) -> None:
    program = start("view")
    page.open(program.url)
    page.says("Start here")
    page.shot("empty")
    page.press("Try the sample")
    page.says("sample is open")
    page.show("Train")
    page.says(re.compile("photos to learn from"))


def test_a_reload_loses_nothing(shared: Program, page: Page) -> None:
    page.open(shared.url)
    before = page.settled()
    page.show("View")
    page.leave_fields()
    page.key("2")
    page.changed(before)
    depth = page.rested()
    page.tab.reload()
    page.show("View")
    page.says("How far each pixel's surface is: near is bright.")
    page.becomes(depth)
    page.leave_fields().key("1")
    assert page.changed(depth) != depth


def test_two_clients_have_cameras_of_their_own(shared: Program, new_page: NewPage) -> None:
    one, other = new_page().open(shared.url), new_page().open(shared.url)
    first, second = one.settled(), other.settled()
    one.drag(160, 40)
    one.changed(first)
    assert other.settled() == second
    other.show("View")
    other.leave_fields()
    other.key("4")
    other.changed(second)
    other.leave_fields().key("1")
    one.shot("client-one")
    other.shot("client-two")


def test_what_cannot_be_opened_is_said_and_the_program_lives(shared: Program, page: Page, tmp_path: Path) -> None:
    page.open(shared.url).show("Open")
    broken = tmp_path / "broken.ply"
    broken.write_text("ply\nnot a model\n")
    page.tab.get_by_role("textbox").filter(visible=True).first.fill(str(broken))
    page.press("Open")
    page.says(re.compile("broken.ply"))
    page.shot("error-in-words")
    assert shared.alive
    first = page.settled()
    page.drag(100, 30)
    page.changed(first)


def test_a_picture_that_fails_is_said_and_the_program_lives(viewer: Program, page: Page) -> None:
    page.open(viewer.url).show("View")
    page.settled()
    # A document without anything to draw, as after a model that vanished.
    page.show("Open")
    page.tab.get_by_role("textbox").filter(visible=True).first.fill(str(SAMPLE))
    page.press("Open")
    page.says(re.compile("nothing is trained yet", re.IGNORECASE))
    page.shot("nothing-to-draw")
    assert viewer.alive


def test_a_window_of_its_own(
    start: Callable[..., Program], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real browser, without a display: what it has opened is asked through its own port for developers."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    folder, profile = tmp_path / "bin", tmp_path / "profile"
    folder.mkdir()
    flags = ["--headless", "--remote-debugging-port=0", f"--user-data-dir={profile}", *FLAGS]
    (folder / "chromium").write_text(f'#!/bin/sh\necho $$ > {tmp_path}/pid\nexec {CHROMIUM} {" ".join(flags)} "$@"\n')
    (folder / "chromium").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    program = start("view", run, "--window")
    port = profile / "DevToolsActivePort"
    try:
        wait_for(lambda: port.is_file() and port.read_text().count("\n"), "the window's browser")

        def pages() -> list[dict[str, str]]:
            with urlopen(f"http://127.0.0.1:{port.read_text().splitlines()[0]}/json") as answer:
                return list(json.load(answer))

        wait_for(lambda: [p["title"] for p in pages() if p["url"].startswith(program.url)], "the viewer in the window")
        assert any("a window opens with chromium" in line for line in program.output)
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
