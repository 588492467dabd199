"""Scenes for other programs and models in few bytes, by the file's ending; and what the file loses.

Models without Gaussians are distilled into some for files that hold nothing else.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anchorfield.app import files
from anchorfield.app.distil import Distillation, between, distilling
from anchorfield.app.evaluation import rendered, view_psnr
from anchorfield.app.html import PAGE, write_page
from anchorfield.app.model_files import COMPACT, SPLATS
from anchorfield.app.run import FrameOfReference, Run
from anchorfield.methods import HasGaussians, HasTrainingTensors
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.renderer.metrics import psnr
from anchorfield.renderer.splatting import splat
from anchorfield.scenes.compact import Stored, write_compact
from anchorfield.scenes.similarity import transformed
from anchorfield.scenes.splat_ply import read_ply, write_ply

AGREEMENT_VIEWS = 8  # between training cameras, where no view was held out


@dataclass(frozen=True)
class Exported:
    """What was written."""

    count: int  # of Gaussians, or of the model's rows
    run: Run  # whose model was written: the one asked for, or Gaussians distilled from it
    distilled: bool = False


@dataclass(frozen=True)
class Loss:
    """What a file shows of the held-out views beside what the model shows."""

    model: float  # dB, mean PSNR over the views
    file: float
    agreement: float  # dB, of the file against the model's pictures; infinite where they are equal
    views: int

    @property
    def loss(self) -> float:
        """dB; below zero where the file happens to be better."""
        return 0.0 if self.model == self.file else self.model - self.file


def export(
    run: Run,
    out: Path,
    frame: FrameOfReference = "source",
    distillation: Distillation | None = None,
    show: Callable[[float, str], None] | None = None,
) -> Exported:
    """Write the run's model or its Gaussians to `out`; see `exporting`."""
    steps = exporting(run, out, frame, distillation)
    while True:
        try:
            done = next(steps)
        except StopIteration as end:
            exported: Exported = end.value
            return exported
        if show:
            show(*done)


def exporting(
    run: Run, out: Path, frame: FrameOfReference = "source", distillation: Distillation | None = None
) -> Generator[tuple[float, str], None, Exported]:
    """Write step by step: yields the share that is done and what is being done.

    A model without Gaussians is distilled (`app.distil`) where the file holds Gaussians. Not to ask for the next step
    cancels, with nothing written. Raises DataError and UsageError in words.
    """
    check_ending(out)
    ending = out.suffix.lower()
    distilled = ending != COMPACT and not isinstance(run.model, HasGaussians)
    if distilled:
        run = yield from distilling(run, distillation)
    yield 1.0, f"writing {out.name}"
    return Exported(WRITERS[ending](run, out, frame), run, distilled)


def check_ending(out: Path) -> None:
    """Raise UsageError where no writer knows the file's ending."""
    if out.suffix.lower() not in WRITERS:
        raise UsageError(f"{out}: unknown ending '{out.suffix}'. Known: {', '.join(WRITERS)}")


@torch.no_grad()
def loss(run: Run, out: Path, frame: FrameOfReference = "source", written: Exported | None = None) -> Loss | str:
    """What the file at `out` loses on the run's held-out views, read back; or why that cannot be measured.

    A page is not read back: it holds the Gaussians that were `written`, which may be distilled. Raises DataError where
    the file itself cannot be read.
    """
    if out.suffix.lower() == PAGE and not (written and written.distilled):
        return f"a page is not read back; it holds what a {SPLATS} file holds"
    shown = _reader(run, out, frame, written)
    try:
        scene = run.scene
    except (DataError, UsageError) as problem:
        return str(problem)
    if not scene.test:
        return f"{scene.path} has no held-out views"
    background = torch.tensor(scene.background)
    scores = []
    for i in scene.test:
        ours, theirs = rendered(run.model, scene, i), shown(scene.views[i].camera, background).clamp(0, 1)
        scores.append((view_psnr(scene, i, ours), view_psnr(scene, i, theirs), psnr(theirs, ours)))
    model, file, alike = (statistics.fmean(score) for score in zip(*scores, strict=True))
    return Loss(model, file, alike, len(scores))


@torch.no_grad()
def agreement(run: Run, written: Exported) -> float:
    """PSNR in dB of what was written against the model's pictures, on views between those of the training cameras."""
    scene = run.scene
    cameras = between([scene.views[i].camera for i in scene.train], AGREEMENT_VIEWS)
    return statistics.fmean(
        psnr(written.run.render(camera).rgb.clamp(0, 1), run.render(camera).rgb.clamp(0, 1)) for camera in cameras
    )


def _reader(
    run: Run, out: Path, frame: FrameOfReference, written: Exported | None
) -> Callable[[Camera, Tensor], Tensor]:
    """From a camera in the run's frame and a background to what the file shows."""
    if out.suffix.lower() == PAGE and written:
        return lambda camera, _: written.run.render(camera).rgb
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
    """The model itself, which knows the way to the source frame, without what only training needs."""
    tensors = run.checkpoint.state["model"]
    if isinstance(run.model, HasTrainingTensors):
        tensors = {name: tensor for name, tensor in tensors.items() if name not in run.model.training_tensors}
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
    return max(len(tensor) for tensor in tensors.values() if tensor.dim())


WRITERS: dict[str, Callable[[Run, Path, FrameOfReference], int]] = {
    SPLATS: _write_splats,
    COMPACT: _write_compact,
    PAGE: write_page,
}
