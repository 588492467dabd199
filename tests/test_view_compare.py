"""Comparison: each side is the source it names, differences are of colours, rows are what evaluation says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from test_app_capture import make_capture

from anchorfield.app.journal import silent
from anchorfield.app.run import Run
from anchorfield.app.training import train
from anchorfield.app.view import compare, pictures
from anchorfield.app.view.compare import Comparison, Row, measuring, table
from anchorfield.app.view.pictures import Look, Split
from anchorfield.methods import Model
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import UsageError
from anchorfield.renderer.types import Frame
from anchorfield.scenes.scene import Scene, View

BLACK = torch.zeros(3)
CAMERA = Camera(torch.eye(4), 40, 40, 20, 15, 40, 30)


@dataclass
class Grey:
    """A document that shows one grey plane."""

    value: float
    scene: Scene | None = None
    model: Model | None = None
    edited: bool = False
    editor: None = None
    background: torch.Tensor = BLACK

    def draw(self, camera: Camera) -> Frame:
        shape = camera.height, camera.width
        return Frame(torch.full((*shape, 3), self.value), torch.ones(shape), torch.full(shape, 2.0))


def shown(comparison: Comparison, look: Look) -> np.ndarray:
    frame = comparison.draw(CAMERA, look)
    assert isinstance(frame, Frame)
    return comparison.paint(frame, CAMERA, look)


@pytest.mark.parametrize("at", [0.0, 0.25, 0.5, 1.0])
def test_each_side_of_the_line_is_the_source_it_names(at):
    comparison = Comparison({"a": Grey(0.2), "b": Grey(0.8)})
    picture = shown(comparison, Look(split=Split("a", "b", at)))
    assert (picture[:, : round(40 * at)] == 51).all()
    assert (picture[:, round(40 * at) :] == 204).all()


def test_without_a_split_the_first_is_shown():
    assert (shown(Comparison({"a": Grey(0.2), "b": Grey(0.8)}), Look()) == 51).all()


def test_the_difference_is_that_of_the_colours():
    comparison = Comparison({"a": Grey(0.2), "b": Grey(0.3)})
    picture = shown(comparison, Look(split=Split("a", "b", difference=True)))
    expected = pictures.coloured(torch.full((30, 40), 0.1 / pictures.WORST))
    assert (np.abs(picture.astype(int) - expected.astype(int)) <= 2).all()
    same = shown(Comparison({"a": Grey(0.2), "b": Grey(0.2)}), Look(split=Split("a", "b", difference=True)))
    assert (same == pictures.COLOURS[0]).all()


def test_a_photograph_stands_beside_a_source():
    photo = torch.full((30, 40, 3), 255, dtype=torch.uint8)
    scene = Scene("s", Path("s"), (View("v", CAMERA, load=lambda: photo),), (0,), (), None, np.eye(4))
    picture = shown(Comparison({"a": Grey(0.2, scene)}), Look(split=Split("a")))
    assert (picture[:, :20] == 51).all()
    assert (picture[:, 20:] == 255).all()


def test_both_sides_are_shown_in_the_mode():
    picture = shown(Comparison({"a": Grey(0.2), "b": Grey(0.8)}), Look("alpha", Split("a", "b")))
    assert (picture == 255).all()


def test_unknown_sources_are_named():
    with pytest.raises(UsageError, match="'c' is not open"):
        Comparison({"a": Grey(0.2), "b": Grey(0.8)}).draw(CAMERA, Look(split=Split("a", "c")))
    with pytest.raises(UsageError, match="at least one"):
        Comparison({})


ROWS = [
    Row("one", "m", 30.123, 0.91, 65.0, 12_000_000, 21.4, 1000, 5),
    Row("two|", "n", 31.0, 0.90, 3600.0, 1_000_000, None, None, 0),
]


def test_the_table_has_a_column_for_each_and_marks_the_best():
    head, rule, *lines = table(ROWS).splitlines()
    assert len(lines) == len(compare.HEAD) - 1
    assert rule.count("|") == len(ROWS) + 2
    figures = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in lines}
    one, two = zip(*figures.values(), strict=True)
    assert r"two\|" in head
    assert any("**31.00**" in cell for cell in two)
    assert any("**0.9100**" in cell for cell in one)
    assert any("**1:05**" in cell for cell in one)
    assert any("**1.0 MB**" in cell for cell in two)
    assert any("not measured" in cell for cell in two)
    assert "**" not in table(ROWS[:1])


def measured(name: str, run: Run) -> tuple[Row, list[float]]:
    job, progress = measuring(name, run), []
    while True:
        try:
            progress.append(next(job)[0])
        except StopIteration as end:
            return end.value, progress


def test_a_row_is_what_evaluation_says(tmp_path):
    run = train(make_capture(tmp_path / "capture"), settings={"cap": 300}, steps=20, out=tmp_path / "run", show=silent)
    kept = run.folder / "eval" / "metrics.json"
    taken, _ = measured("it", run)
    evaluated = run.evaluate().summary
    kept.unlink()
    row, progress = measured("it", run)
    assert len(progress) == row.views == len(run.scene.test)
    for found in (row, taken):
        assert found.psnr == pytest.approx(evaluated["psnr"])
        assert found.ssim == pytest.approx(evaluated["ssim"])
        assert (found.seconds, found.bytes, found.gaussians) == (run.seconds, run.model_bytes, evaluated["gaussians"])
    kept.write_text('{"steps": 20}')
    assert measured("it", run)[0].psnr == row.psnr
