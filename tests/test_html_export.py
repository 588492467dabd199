"""A page that is exported shows the scene in a real browser, from the disk, and asks no network for anything."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from anchorfield.app.export import export, loss
from anchorfield.app.run import Run
from anchorfield.app.training import train
from anchorfield.scenes.similarity import turn_between

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SAMPLE = Path(__file__).resolve().parents[1] / "assets" / "sample"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    run = train(SAMPLE, steps=60, downscale=4, out=folder / "run", show=lambda event: None)
    assert isinstance(run, Run)
    out = folder / "scene.html"
    assert export(run, out).count > 0
    assert isinstance(loss(run, out), str)
    return out


def test_the_page_holds_everything(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "MIT License" in text
    assert ' src="' not in text.partition('<script type="module">')[0]


@pytest.mark.parametrize("a", [(0.0, -1.0, 0.0), (0.0, 1.0, 0.0), (0.6, 0.0, 0.8)])
def test_turning_one_direction_to_another(a: tuple[float, float, float]) -> None:
    b = np.array([0.0, -1.0, 0.0])
    turn = turn_between(np.array(a), b)
    np.testing.assert_allclose(turn @ a, b, atol=1e-12)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)


def test_a_browser_shows_it_without_a_network(page: Path, tmp_path: Path, chromium: Browser) -> None:
    asked: list[str] = []
    wrong: list[str] = []
    tab = chromium.new_page(viewport={"width": 480, "height": 360})
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda problem: wrong.append(str(problem)))
    tab.goto(page.as_uri())
    tab.wait_for_selector("canvas", timeout=60_000)
    shown = None
    for _ in range(40):
        tab.wait_for_timeout(500)
        shown = np.asarray(Image.open(io.BytesIO(tab.locator("canvas").first.screenshot())).convert("RGB"))
        if shown[90:270, 120:360].std() > 20:
            break
    tab.screenshot(path=tmp_path / "page.png")
    tab.close()
    assert not wrong
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert shown is not None
    assert shown[90:270, 120:360].std() > 20
