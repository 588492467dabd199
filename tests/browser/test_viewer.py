"""The viewer as a person meets it: it opens, turns, trains, flies, compares, and outlives what goes wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from conftest import SAMPLE, Page, Program, wait_for

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
