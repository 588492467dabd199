"""Shared by all tests: hypothesis draws the same examples on every machine and is not hurried."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import settings

from anchorfield.scenes.load import load_scene
from anchorfield.scenes.scene import Scene
from anchorfield.scenes.triangulate import triangulated_points
from bench._chromium import CHROMIUM, FLAGS

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SAMPLE = Path(__file__).parent.parent / "assets" / "sample"

settings.register_profile("anchorfield", derandomize=True, deadline=None, max_examples=15, database=None)
settings.load_profile("anchorfield")


@pytest.fixture
def one_torch_thread() -> Iterator[None]:
    """References are thousands of small operations: threads would spend their time waiting for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def browser_process() -> Iterator[Browser]:
    """One browser for all tests: a process takes one at a time. Where there is none they are skipped."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: the viewer is not tested in a browser (Debian: apt install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def chromium(browser_process: Browser) -> Iterator[Browser]:
    """A browser whose pages are closed after each module: they would draw on, on a core of the tests that follow."""
    yield browser_process
    for context in browser_process.contexts:
        context.close()


@pytest.fixture(scope="session")
def sample_scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """The sample capture at 80x80 with points triangulated from its training photographs."""
    scene = load_scene(SAMPLE, downscale=5)
    return dataclasses.replace(
        scene, points=triangulated_points(scene, tmp_path_factory.mktemp("points") / "cache.npz")
    )
