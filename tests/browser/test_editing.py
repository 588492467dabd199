"""Editing and making files in the browser: every tool, undo to the original, clean-up, the same without a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Page, Program, running, wait_for

from anchorfield.app.run import Run
from anchorfield.scenes.splat_ply import read_ply

COUNTED = re.compile(r"[1-9][\d,]* Gaussians? selected")


@pytest.fixture(scope="module")
def folder(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run for this module to work on."""
    return Path(shutil.copytree(trained, tmp_path_factory.mktemp("editing") / "run"))


@pytest.fixture(scope="module")
def program(folder: Path) -> Iterator[Program]:
    """The viewer on it."""
    with running("view", folder, folder=folder.parent) as started:
        yield started


@pytest.fixture
def desk(program: Program, page: Page) -> Page:
    """The Edit tab, before a picture that has come to rest."""
    page.open(program.url).show("Edit")
    page.settled()
    return page.leave_fields()


def count(text: str) -> int:
    """The number in a sentence such as "1,203 Gaussians selected"."""
    found = re.search(r"[\d,]+", text)
    assert found
    return int(found.group().replace(",", ""))


@pytest.mark.parametrize(("key", "name"), [("r", "rectangle"), ("l", "lasso"), ("o", "brush")])
def test_drawing_selects(desk: Page, key: str, name: str) -> None:
    before = desk.settled()
    desk.key(key).drag(120, 90)
    desk.says(COUNTED)
    desk.changed(before)
    desk.shot(f"select-{name}")
    desk.key("Escape").key("u")


@pytest.mark.parametrize("name", ["Sphere", "Box", "Plane", "Colour", "By value"])
def test_shapes_and_values_preview(desk: Page, name: str) -> None:
    desk.tab.get_by_role("textbox").filter(visible=True).first.click()
    desk.tab.get_by_role("option", name=name, exact=True).click()
    desk.says("Select")
    desk.tab.wait_for_timeout(1500)
    desk.shot(f"select-{name.lower().replace(' ', '-')}")
    desk.leave_fields().key("v")


def test_delete_and_undo_come_back_bit_for_bit(desk: Page, folder: Path) -> None:
    original = Run.open(folder).gaussians("source")
    desk.key("r").drag(140, 110)
    selected = count(desk.says(COUNTED).inner_text())
    desk.key("Escape")
    before = desk.settled()
    desk.key("Delete")
    desk.says(re.compile("deleted"))
    desk.changed(before)
    desk.shot("deleted")
    save(desk, folder)
    assert len(read_ply(folder / "exports" / "run-edited.ply")) == len(original) - selected
    desk.key("u").key("u")
    desk.says(re.compile("undone|Undone|back", re.IGNORECASE))
    desk.tab.wait_for_timeout(500)
    save(desk, folder)
    restored = read_ply(folder / "exports" / "run-edited.ply")
    for field in ("means", "log_scales", "quats", "logit_opacities", "sh"):
        assert bool((getattr(restored, field) == getattr(original, field)).all())
    desk.shot("undone")


def save(page: Page, folder: Path) -> None:
    """Save the edited splats and wait for the file."""
    out = folder / "exports" / "run-edited.ply"
    out.unlink(missing_ok=True)
    button = page.tab.get_by_role("button", name="Save the edited splats").first
    if not button.is_visible():
        page.tab.get_by_text("Steps and saving").first.click()
    button.click()
    wait_for(out.is_file, "the edited splats")


def test_a_clean_up_is_proposed_and_the_script_gives_the_same_file(desk: Page, folder: Path, tmp_path: Path) -> None:
    before = desk.settled()
    desk.tab.get_by_text("Clean up", exact=True).first.click()
    desk.press("Propose")
    desk.says(re.compile(r"\(red\)"))
    desk.changed(before)
    desk.shot("proposed")
    desk.press("Discard")
    desk.says("Nothing was removed")
    desk.press("Propose")
    desk.says(re.compile(r"\(red\)"))
    desk.press("Apply")
    desk.says(re.compile("removed|deleted"))
    desk.shot("cleaned")
    save(desk, folder)
    desk.press("Save the steps")
    wait_for((folder / "exports" / "edits.json").is_file, "the steps")
    out = tmp_path / "again.ply"
    command = [
        sys.executable,
        "-m",
        "anchorfield.app.cli",
        "edit",
        folder,
        "--script",
        folder / "exports" / "edits.json",
    ]
    subprocess.run([*map(str, command), "-o", str(out)], check=True, capture_output=True)
    assert out.read_bytes() == (folder / "exports" / "run-edited.ply").read_bytes()


def test_files_are_made_as_jobs(program: Program, page: Page, folder: Path) -> None:
    page.open(program.url).show("Export").press("Export")
    wait_for(lambda: list((folder / "exports").glob("*.ply")), "the exported file")
    page.show("Mesh")
    page.press("Make the mesh")
    page.show("Jobs")
    page.says(re.compile("mesh", re.IGNORECASE))
    page.shot("jobs")
    wait_for(lambda: [p for p in folder.rglob("*") if p.suffix in (".glb", ".obj")], "the mesh", 120)
    page.show("Mesh")
    page.shot("mesh")


def test_a_path_is_rendered_here(program: Program, page: Page, folder: Path) -> None:
    page.open(program.url).show("Path")
    page.settled()
    page.leave_fields().key("k")
    page.drag(80, 20)
    page.settled()
    page.leave_fields().key("k")
    page.says("Whole path")
    page.shot("path")
