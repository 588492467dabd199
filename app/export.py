"""Scenes for other programs and models in few bytes, by the file's ending; and what the file loses."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anchorfield.app import files
from anchorfield.app.evaluation import rendered, view_psnr
from anchorfield.app.html import PAGE, write_page
from anchorfield.app.model_files import COMPACT, SPLATS
from anchorfield.app.run import FrameOfReference, Run
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.renderer.splatting import splat
from anchorfield.scenes.compact import Stored, write_compact
from anchorfield.scenes.similarity import transformed
from anchorfield.scenes.splat_ply import read_ply, write_ply


@dataclass(frozen=True)
class Loss:
    """What a file shows of the held-out views beside what the model shows."""

    model: float  # dB, mean PSNR over the views
    file: float
    views: int

    @property
    def loss(self) -> float:
        """dB; below zero where the file happens to be better."""
        return 0.0 if self.model == self.file else self.model - self.file


def export(run: Run, out: Path, frame: FrameOfReference = "source") -> int:
    """Write the run's model or its Gaussians to `out`; returns the number of Gaussians, or of the model's rows."""
    check_ending(out)
    return WRITERS[out.suffix.lower()](run, out, frame)


def check_ending(out: Path) -> None:
    """Raise UsageError where no writer knows the file's ending."""
    if out.suffix.lower() not in WRITERS:
        raise UsageError(f"{out}: unknown ending '{out.suffix}'. Known: {', '.join(WRITERS)}")


@torch.no_grad()
def loss(run: Run, out: Path, frame: FrameOfReference = "source") -> Loss | str:
    """What the file at `out` loses on the run's held-out views, read back; or why that cannot be measured.

    Raises DataError where the file itself cannot be read.
    """
    if out.suffix.lower() == PAGE:
        return f"a page is not read back; it holds what a {SPLATS} file holds"
    shown = _reader(run, out, frame)
    try:
        scene = run.scene
    except (DataError, UsageError) as problem:
        return str(problem)
    if not scene.test:
        return f"{scene.path} has no held-out views"
    background = torch.tensor(scene.background)
    model = [view_psnr(scene, i, rendered(run.model, scene, i)) for i in scene.test]
    file = [view_psnr(scene, i, shown(scene.views[i].camera, background).clamp(0, 1)) for i in scene.test]
    return Loss(statistics.fmean(model), statistics.fmean(file), len(scene.test))


def _reader(run: Run, out: Path, frame: FrameOfReference) -> Callable[[Camera, Tensor], Tensor]:
    """From a camera in the run's frame and a background to what the file shows."""
    if out.suffix.lower() == COMPACT:
        opened = Run.open(out)
        return lambda camera, _: opened.render(camera).rgb
    gaussians = read_ply(out)
    if frame != "local":
        gaussians = transformed(gaussians, np.asarray(np.linalg.inv(run.from_world(frame)), np.float64))
    return lambda camera, background: splat(gaussians, camera, background, depth=False).rgb


def _write_splats(run: Run, out: Path, frame: FrameOfReference) -> int:
    gaussians = run.gaussians(frame)
    if len(gaussians) == 0:
        raise DataError(
            f"{run.path}: no Gaussian to write: none shows to the cameras that the model knows"
            " (a published checkpoint of Scaffold-GS needs its cameras.json for that)"
        )
    write_ply(files.output_file(out), gaussians)
    return len(gaussians)


def _write_compact(run: Run, out: Path, frame: FrameOfReference) -> int:
    """The model itself, which knows the way to the source frame."""
    tensors = run.checkpoint.state["model"]
    background = run.job.background or tuple(run.status["scene"]["background"])
    write_compact(
        files.output_file(out),
        Stored(
            method=run.job.method,
            settings=run.job.to_json()["settings"],
            tensors=tensors,
            source_from_world=run.source_from_world,
            background=background,
            step=run.step,
            seconds=run.seconds,
            downscale=run.job.downscale,
            split=run.job.split,
        ),
    )
    return max(len(tensor) for tensor in tensors.values())


WRITERS: dict[str, Callable[[Run, Path, FrameOfReference], int]] = {
    SPLATS: _write_splats,
    COMPACT: _write_compact,
    PAGE: write_page,
}
