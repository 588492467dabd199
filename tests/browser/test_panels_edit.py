"""The Edit tab as a person uses it: tools, changes, clean-up, and undo to the first bit."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from captures import data
from conftest import PATIENT, Page, Program, wait_for
from PIL import Image

from anchorfield.app.export import export
from anchorfield.app.run import Run
from anchorfield.app.training import train

pytestmark = PATIENT

RED = (249, 45, 104)  # of the gizmo's square


def number(page: Page, pattern: str) -> int:
    """The number that the Edit tab says of something, e.g. "selected"."""
    text = page.says(re.compile(r"[\d,]+ Gaussians, [\d,]+ selected")).inner_text()
    found = re.search(rf"([\d,]+) {pattern}", text)
    return int(found.group(1).replace(",", "")) if found else 0


def waits(page: Page, pattern: str, condition: str, count: int = 0) -> int:
    """The number once it is more than, less than or equal to a count."""
    holds = {"more": lambda n: n > count, "less": lambda n: n < count, "is": lambda n: n == count}[condition]
    for _ in range(200):
        if holds(now := number(page, pattern)):
            return now
        page.tab.wait_for_timeout(100)
    raise AssertionError(f"{now} {pattern}; expected {condition} {count}")


def tool(page: Page, name: str) -> None:
    """Choose a selection tool by its place in the dropdown."""
    page.choose("Tool", name)


def draw(page: Page, points: list[tuple[float, float]]) -> None:
    """Drag over shares of the picture."""
    box = page.tab.locator("canvas[data-engine]").bounding_box()
    assert box
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.tab.mouse.move(*at[0])
    page.tab.mouse.down()
    for x, y in at[1:]:
        page.tab.mouse.move(x, y, steps=5)
    page.tab.mouse.up()


def open_edit(page: Page, program: Program) -> Page:
    """The Edit tab, without what floats over the picture."""
    page.open(program.url).show("Edit")
    page.settled()
    return page


def test_tools_that_draw_select_and_keys_combine(viewer: Program, page: Page) -> None:
    open_edit(page, viewer)
    tool(page, "Rectangle")
    draw(page, [(0.3, 0.4), (0.6, 0.7)])
    rectangle = waits(page, "selected", "more")
    page.settled()
    page.shot("select-rectangle")
    page.press("None")
    waits(page, "selected", "is", 0)
    tool(page, "Lasso")
    draw(page, [(0.3, 0.4), (0.6, 0.4), (0.45, 0.7), (0.3, 0.4)])
    lasso = waits(page, "selected", "more")
    page.settled()
    page.shot("select-lasso")
    assert lasso < rectangle
    tool(page, "Brush")
    page.tab.keyboard.down("Shift")
    draw(page, [(0.65, 0.6), (0.75, 0.6)])
    page.tab.keyboard.up("Shift")
    added = waits(page, "selected", "more", lasso)
    page.settled()
    page.shot("select-brush")
    page.tab.keyboard.down("Alt")
    draw(page, [(0.65, 0.6), (0.75, 0.6)])
    page.tab.keyboard.up("Alt")
    waits(page, "selected", "less", added)
    assert page.field("Tool").input_value() == "Brush"


def test_shapes_colour_and_values_select(viewer: Program, page: Page) -> None:
    open_edit(page, viewer)
    for name in ("Sphere", "Box", "Plane"):
        tool(page, name)
        page.says(re.compile(r"Gaussians would be selected"))
        page.settled()
        page.shot(f"select-{name.lower()}-preview")
        page.press("Select these")
        waits(page, "selected", "more")
        page.press("None")
        waits(page, "selected", "is", 0)
    tool(page, "Colour")
    draw(page, [(0.45, 0.5), (0.45, 0.5)])
    page.says(re.compile(r"Gaussians would be selected"))
    page.press("Select these")
    waits(page, "selected", "more")
    page.settled()
    page.shot("select-colour")
    page.press("None")
    tool(page, "By value")
    page.choose("Value", "Size")
    page.says(re.compile(r"Size from"))
    page.settled()
    page.shot("select-value")
    page.press("Select these")
    some = waits(page, "selected", "more")
    assert 0.02 * number(page, "Gaussians") < some < 0.08 * number(page, "Gaussians")  # the slider begins with 5 %
    page.press("Grow")
    grown = waits(page, "selected", "more", some)
    page.press("Shrink")
    waits(page, "selected", "less", grown)
    page.press("Invert")
    waits(page, "selected", "more", number(page, "Gaussians") // 2)
    page.tab.keyboard.press("Escape")


def test_ten_edits_undone_leave_the_first_bits(viewer: Program, page: Page, run: Path, tmp_path: Path) -> None:
    open_edit(page, viewer)
    before = page.rested()
    tool(page, "Rectangle")
    draw(page, [(0.35, 0.35), (0.6, 0.7)])
    waits(page, "selected", "more")
    all_of_them = number(page, "Gaussians")
    page.press("Hide")
    waits(page, "hidden", "more")
    page.press("Show all")
    waits(page, "hidden", "is", 0)
    draw(page, [(0.35, 0.35), (0.5, 0.7)])
    waits(page, "selected", "more")
    page.press("Lock")
    waits(page, "locked", "more")
    page.press("Unlock all")
    waits(page, "locked", "is", 0)
    draw(page, [(0.35, 0.35), (0.5, 0.7)])
    waits(page, "selected", "more")
    page.press("Duplicate")
    waits(page, "Gaussians", "more", all_of_them)
    page.field("Scale by").fill("1.2")
    page.field("Scale by").press("Enter")
    page.press("Scale")
    page.says(re.compile("moved|scaled|transformed", re.IGNORECASE))
    page.press("Delete")
    waits(page, "Gaussians", "is", all_of_them)
    draw(page, [(0.2, 0.2), (0.7, 0.8)])
    waits(page, "selected", "more")
    page.press("Keep only this")
    waits(page, "Gaussians", "less", all_of_them)
    changed = page.settled()
    page.shot("edit-cropped")
    assert changed != before
    steps = 12
    for _ in range(steps):
        page.press("Undo")
    waits(page, "Gaussians", "is", all_of_them)
    waits(page, "selected", "is", 0)
    page.press("Undo")
    page.says("There is nothing to undo")
    page.becomes(before)
    page.tab.get_by_text("Steps and saving").click()
    page.shot("edit-steps")
    with page.tab.expect_download() as download:
        page.press("Save the edited splats")
    download.value.save_as(tmp_path / "undone.ply")
    export(Run.open(run), tmp_path / "first.ply")
    assert (tmp_path / "undone.ply").read_bytes() == (tmp_path / "first.ply").read_bytes()
    with page.tab.expect_download() as steps_file:
        page.press("Save the steps")
    assert steps_file.value.suggested_filename == "edits.json"


def test_clean_up_is_proposed_applied_and_discarded(viewer: Program, page: Page) -> None:
    open_edit(page, viewer)
    page.tab.get_by_text("Clean up", exact=True).click()
    page.choose("Remove", "Dust that nobody sees")
    page.press("Propose")
    page.says(re.compile(r"[\d,]+ Gaussians would go"))
    page.settled()
    page.shot("clean-up-proposed")
    page.press("Discard")
    page.says("Nothing was removed")
    page.choose("Remove", "Floaters in the air")
    page.press("Propose")
    weak = would_go(page)
    shown = ".//input[@type!='hidden']"
    strength = page.tab.get_by_text("Strength", exact=True).locator(f"xpath=ancestor::*[{shown}][1]{shown[1:]}").first
    strength.fill("1")
    strength.press("Enter")
    for _ in range(100):
        if (strong := would_go(page)) > weak:
            break
        page.tab.wait_for_timeout(100)
    assert strong > weak
    page.settled()
    page.shot("clean-up-strong")
    page.press("Apply")
    page.says(re.compile(r"[\d,]+ Gaussians (cleaned up)", re.IGNORECASE))
    page.settled()
    page.shot("clean-up-applied")


def would_go(page: Page) -> int:
    """How many are proposed."""
    found = re.search(r"([\d,]+) Gaussians would go", page.says(re.compile("would go")).inner_text())
    assert found
    return int(found.group(1).replace(",", ""))


def test_the_gizmo_moves_and_one_undo_takes_it_back(viewer: Program, page: Page) -> None:
    open_edit(page, viewer)
    tool(page, "Rectangle")
    draw(page, [(0.35, 0.35), (0.6, 0.7)])
    waits(page, "selected", "more")
    page.tab.keyboard.press("Escape")
    before = page.rested()
    page.tab.get_by_label("Show the arrows").click()
    page.says("Drag the arrows to move, the arcs to turn")
    shown = page.settled()
    page.shot("gizmo")
    assert shown != before
    drag_square(page)
    page.says(re.compile(r"[\d,]+ Gaussians transformed"))
    page.changed(shown)
    page.shot("gizmo-moved")
    page.tab.get_by_label("Show the arrows").click()
    moved = page.settled()
    assert moved != before
    page.press("Undo")
    page.says(re.compile("Undone: .* transformed"))
    page.becomes(before)


def drag_square(page: Page) -> None:
    """Drag the gizmo's red square, which moves within a plane."""
    box = page.tab.locator("canvas[data-engine]").bounding_box()
    assert box
    clip = {name: box[name] for name in ("x", "y", "width", "height")}
    pixels = np.asarray(Image.open(BytesIO(page.tab.screenshot(clip=clip))).convert("RGB")).astype(int)
    rows, columns = np.nonzero((abs(pixels - RED)).max(axis=2) < 25)
    assert len(rows) > 20, "the gizmo's red square is not in the picture"
    x, y = box["x"] + float(np.median(columns)), box["y"] + float(np.median(rows))
    page.tab.mouse.move(x, y)
    page.tab.wait_for_timeout(300)
    page.tab.mouse.down()
    page.tab.mouse.move(x + 60, y - 40, steps=8)
    page.tab.wait_for_timeout(600)
    page.tab.mouse.up()


def test_parts_are_set_aside_brought_back_and_recoloured(viewer: Program, page: Page, run: Path) -> None:
    open_edit(page, viewer)
    tool(page, "Rectangle")
    draw(page, [(0.35, 0.35), (0.6, 0.7)])
    waits(page, "selected", "more")
    page.tab.keyboard.press("Escape")
    count = number(page, "Gaussians")
    page.tab.get_by_text("Set aside and bring in").click()
    page.press("Set the selection aside")
    waits(page, "Gaussians", "less", count)
    page.press("Bring it back")
    waits(page, "Gaussians", "is", count)
    export(Run.open(run), run.parent / "other.ply")
    with page.tab.expect_file_chooser() as chooser:
        page.press("Bring in a .ply file")
    chooser.value.set_files(run.parent / "other.ply")
    waits(page, "Gaussians", "is", 2 * count)
    page.settled()
    page.shot("edit-brought-in")
    before = page.rested()
    page.tab.get_by_text("Colours", exact=True).click()
    slider = page.tab.get_by_text("Saturation", exact=True)
    slider.locator("xpath=ancestor::*[.//input[@type!='hidden']][1]//input[@type!='hidden']").first.fill("0")
    page.press("Apply the colours")
    page.says(re.compile("Gaussians (adjusted|recoloured|changed)"))
    page.changed(before)
    page.shot("edit-colours")


def test_training_goes_on_from_edited_splats(viewer: Program, page: Page) -> None:
    open_edit(page, viewer)
    tool(page, "Rectangle")
    draw(page, [(0.35, 0.35), (0.6, 0.7)])
    waits(page, "selected", "more")
    page.tab.get_by_text("Steps and saving").click()
    page.tab.get_by_text("Train again from here").click()
    page.choose("What may change", "Only the selection changes")
    page.field("Minutes").fill("0.1")
    page.field("Minutes").press("Enter")
    page.tab.get_by_role("button", name="Start", exact=True).filter(visible=True).last.click()
    page.says(re.compile("Training goes on from the edited Gaussians"))
    page.says(re.compile("Nothing can be edited: the model is in training"))
    page.shot("edit-while-training")
    page.says(re.compile("Choose a tool and draw over the picture"))
    page.settled()
    page.shot("edit-after-training")
    assert viewer.alive


def test_a_real_capture_is_edited_filmed_and_meshed(start: Callable[..., Program], page: Page, tmp_path: Path) -> None:
    train(data("fox"), steps=150, downscale=8, out=tmp_path / "fox", show=lambda event: None)
    program = start("view", tmp_path / "fox")
    open_edit(page, program)
    before = page.rested()
    tool(page, "Lasso")
    page.tab.get_by_label("Only what is in front").click()
    draw(page, [(0.4, 0.3), (0.65, 0.35), (0.6, 0.7), (0.42, 0.65), (0.4, 0.3)])
    waits(page, "selected", "more")
    count = number(page, "Gaussians")
    page.settled()
    page.shot("fox-lasso")
    page.tab.keyboard.press("Delete")
    waits(page, "Gaussians", "less", count)
    deleted = page.changed(before)
    page.shot("fox-deleted")
    page.press("Undo")
    waits(page, "Gaussians", "is", count)
    page.press("Undo")
    waits(page, "selected", "is", 0)
    assert deleted != before
    page.becomes(before)
    page.tab.get_by_text("Clean up", exact=True).click()
    page.press("Propose")
    page.says(re.compile("would go"))
    page.settled()
    page.shot("fox-floaters")
    page.press("Apply")
    page.says(re.compile("cleaned up"))
    page.show("Path")
    page.press("A round about the scene")
    page.says("9 keyframes")
    page.field("Frames a second").fill("2")
    page.field("Frames a second").press("Enter")
    page.choose("Size", "640 x 360")
    page.press("Render")
    wait_for((tmp_path / "fox" / "exports" / "path.mp4").is_file, "the film")
    page.show("Mesh")
    page.choose("Quality", "Quick look")
    page.press("Make the mesh")
    page.says(re.compile(r"The mesh has [\d,]+ faces"), 300)
    page.settled()
    page.shot("fox-mesh")
