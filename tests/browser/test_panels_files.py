"""The tabs World, Path, Mesh, Export and Jobs as a person uses them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import trimesh
from conftest import PATIENT, Page, Program, running, wait_for

from anchorfield.scenes.splat_ply import read_ply

pytestmark = PATIENT


@pytest.fixture(scope="module")
def folder(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run for this module to work on."""
    return Path(shutil.copytree(trained, tmp_path_factory.mktemp("files") / "run"))


@pytest.fixture(scope="module")
def program(folder: Path) -> Iterator[Program]:
    """The viewer on it."""
    with running("view", folder, folder=folder.parent) as started:
        yield started


def click(page: Page, x: float, y: float) -> None:
    """Click a share of the picture."""
    box = page.tab.locator("canvas[data-engine]").bounding_box()
    assert box
    page.tab.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])


def test_two_clicks_and_a_length_set_the_scale(program: Program, page: Page, folder: Path) -> None:
    page.open(program.url).show("World")
    page.settled()
    page.says("set the scale")
    page.field("Length (m)").fill("0.25")
    page.field("Length (m)").press("Enter")
    page.press("Click its two ends")
    page.says("Click the two ends of what is 0.25 m long")
    click(page, 0.4, 0.6)
    page.says("Point 1 of 2")
    click(page, 0.6, 0.65)
    page.says(re.compile("lengths are in metres"))
    page.settled()
    page.shot("world-scale")
    kept = json.loads((folder / "placement.json").read_text())
    assert kept["metres_per_unit"] > 0
    page.press("Measure a length")
    page.says(re.compile("Click where the length begins"))
    page.tab.wait_for_timeout(5000)  # until older sentences have gone
    click(page, 0.4, 0.6)
    page.says("Point 1 of 2")
    click(page, 0.6, 0.65)
    page.says(re.compile(r"^(25\d?|24\.\d|25\.\d) ?(cm|mm)$"))
    page.shot("world-measured")


def test_up_and_origin_are_kept(program: Program, page: Page, folder: Path) -> None:
    page.open(program.url).show("World")
    page.settled()
    page.press("Three points of the floor")
    page.says(re.compile("Click three points of the floor"))
    for number, (x, y) in enumerate(((0.3, 0.55), (0.6, 0.9), (0.8, 0.55)), 1):
        click(page, x, y)
        page.says(f"Point {number} of 3" if number < 3 else "The three points lie level now")
    page.press("Click the origin")
    page.says("Click the point that becomes the origin")
    click(page, 0.5, 0.6)
    page.says("The origin is where you clicked")
    page.settled()
    page.shot("world-origin")
    kept = json.loads((folder / "placement.json").read_text())
    assert np.linalg.norm(kept["up"]) == pytest.approx(1)
    assert np.linalg.norm(kept["origin"]) > 0
    page.press("Turn upside down")
    page.says("Up and down have changed places")
    flipped = json.loads((folder / "placement.json").read_text())
    assert np.allclose(flipped["up"], [-value for value in kept["up"]], atol=1e-6)
    page.press("Turn upside down")
    wait_for(lambda: json.loads((folder / "placement.json").read_text())["up"] != flipped["up"], "up again")


def test_nothing_solid_under_a_click_is_said(program: Program, page: Page) -> None:
    page.open(program.url).show("World")
    page.settled()
    page.press("Click the origin")
    page.says("Click the point that becomes the origin")
    page.tab.keyboard.press("Escape")
    page.says("Origin: put away")


def test_a_path_is_made_played_and_rendered(program: Program, page: Page, folder: Path) -> None:
    page.open(program.url).show("Path")
    before = page.settled()
    page.press("Add this view")
    page.says("Keyframe 1 at 0 s")
    page.drag(120, 20)
    turned = page.changed(before)
    page.press("Add this view")
    page.says("Keyframe 2 at 2 s")
    page.drag(60, -40)
    page.changed(turned)
    page.press("Add this view")
    page.says("Keyframe 3 at 4 s")
    page.field("Length (s)").fill("1")
    page.field("Length (s)").press("Enter")
    page.says("1 s")
    page.field("Frames a second").fill("8")
    page.field("Frames a second").press("Enter")
    page.says("9 pictures")
    page.shot("path")
    page.press("Play")
    page.says("Stop playing")
    page.tab.get_by_role("button", name="Stop playing").wait_for(state="hidden")
    page.choose("Size", "640 x 360")
    page.press("Render")
    page.says("9 pictures are being rendered: see the Jobs tab")
    film = folder / "exports" / "path.mp4"
    wait_for(film.is_file, "the film")
    page.says(re.compile(r"path\.mp4 \(.*\) is in"))
    frames = imageio.imread(film)
    assert frames.shape[0] == 9
    assert frames.shape[1:3] == (360, 640)
    assert frames.std() > 10
    with page.tab.expect_download() as download:
        page.press("Download")
    assert download.value.suggested_filename == "path.mp4"
    page.tab.get_by_text("Files and ready-made paths").click()
    with page.tab.expect_download():
        page.press("Save keyframes")
    kept = json.loads((folder / "exports" / "path.json").read_text())
    assert [key["seconds"] for key in kept["keyframes"]] == [0, 0.5, 1]
    page.press("A round about the scene")
    page.says("9 keyframes")
    page.settled()
    page.shot("path-round")


def test_a_mesh_is_made_shown_and_saved(program: Program, page: Page, folder: Path) -> None:
    page.open(program.url).show("Mesh")
    page.says("No mesh yet.")
    before = page.settled()
    page.choose("Quality", "Quick look")
    page.press("Make the mesh")
    page.says("The mesh is being made: see the Jobs tab")
    page.says(re.compile(r"The mesh has [\d,]+ faces"), 300)
    page.changed(before)
    page.shot("mesh-shown")
    page.tab.get_by_label("Only its edges").click()
    page.tab.wait_for_timeout(1000)
    page.settled()
    page.shot("mesh-edges")
    page.press("Save")
    page.says(re.compile(r"\.glb \(.*\) is in"))
    (saved,) = (folder / "exports").glob("*.glb")
    assert len(trimesh.load(saved, force="mesh").faces) > 500


def test_exports_with_their_coordinates(program: Program, page: Page, folder: Path) -> None:
    page.open(program.url).show("Export")
    page.says("Nothing is lost.")
    page.press("Export")
    page.says(re.compile(r"\.ply \(.*\) is in"))
    page.shot("export")
    with page.tab.expect_download() as download:
        page.press("Download")
    assert download.value.suggested_filename.endswith(".ply")
    (saved,) = (folder / "exports").glob("*.ply")
    assert len(read_ply(saved)) == 5000
    name = page.tab.get_by_text("Name", exact=True).filter(visible=True).first
    name.locator("xpath=ancestor::*[.//input][1]//input").first.fill("../escaped")
    page.tab.wait_for_timeout(500)
    page.press("Export")
    page.says(re.compile("is no file name"))
    assert not list(folder.parent.glob("**/escaped*"))


def test_jobs_wait_run_and_are_cancelled(program: Program, page: Page, folder: Path) -> None:
    page.open(program.url).show("Mesh")
    page.choose("Quality", "Fine")
    page.press("Make the mesh")
    page.press("Make the mesh")
    page.show("Jobs")
    page.says("waiting")
    page.says("running")
    page.shot("jobs-running")
    for _ in range(2):
        page.tab.get_by_role("button", name="Cancel", exact=True).filter(visible=True).last.click()
        page.tab.wait_for_timeout(700)
    page.says("cancelled")
    page.tab.get_by_role("button", name="Cancel", exact=True).first.wait_for(state="hidden")
    page.shot("jobs-cancelled")
    assert program.alive
