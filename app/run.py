"""A run on disk: its job, its model as of a checkpoint, its scene, and what both can be asked."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from anchorfield.app import checkpoint as checkpoints
from anchorfield.app import files, job
from anchorfield.app import settings as flat
from anchorfield.app.checkpoint import Checkpoint
from anchorfield.app.job import Job
from anchorfield.methods import HasGaussians, Model
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.renderer.types import Frame, Gaussians
from anchorfield.scenes.scene import Scene, in_frame

if TYPE_CHECKING:
    from anchorfield.app.evaluation import Evaluation
    from anchorfield.app.placement import Placement

CONFIG, STATUS, CHECKPOINTS = "config.json", "state.json", "checkpoints"
UNKNOWN = Path("unknown")  # the capture of a file that does not say where it lies
MISFITS = (KeyError, RuntimeError, ValueError, TypeError, IndexError, AttributeError, AssertionError, OverflowError)
FrameOfReference = Literal["source", "local", "placed"]
"""The capture's own coordinates, those of the training, or those of the run's placement (`app.placement`)."""


@dataclass(frozen=True)
class Run:
    """A trained (or half-trained) scene; `Run.open(path)` reads it from its folder, or a model of another file."""

    path: Path
    job: Job
    checkpoint: Checkpoint
    frame: NDArray[np.float64] | None = None  # source_from_world of a file; that of a folder stands in its state.json

    @classmethod
    def open(cls, path: Path | str, checkpoint: str = "last", capture: Path | None = None) -> Run:
        """The run in a folder as of a checkpoint ("last", "best" or a step), or the model in a file.

        `capture` is where its photographs lie, if not where they were trained on. Raises DataError in words.
        """
        path = Path(path)
        if not (path / CONFIG).is_file():
            return _of_file(path, capture)
        found = checkpoints.named(path / CHECKPOINTS, checkpoint, lambda text: warnings.warn(text, stacklevel=3))
        trained = job.read(path / CONFIG)
        check_belongs(found, trained)
        return cls(path, replace(trained, source=capture or trained.source), found)

    @property
    def folder(self) -> Path | None:
        """Where the run keeps what is made of it; None for a file."""
        return self.path if self.frame is None else None

    @cached_property
    def model(self) -> Model:
        """The model, ready to render."""
        with self._fitting():
            model = self.job.settings.restore(self.checkpoint.state).eval()
            if self.frame is not None:  # nobody has tried whether its tensors fit each other
                model.render(Camera(torch.eye(4), 8, 8, 4, 4, 8, 8))
            return model

    @contextmanager
    def _fitting(self) -> Iterator[None]:
        """Turns what goes wrong with tensors that do not fit the method into DataError."""
        try:
            yield
        except MISFITS as problem:
            what = f"checkpoint {self.checkpoint.path}" if self.frame is None else f"{self.path}"
            name = type(problem).__name__
            raise DataError(f"{what} does not fit its method '{self.job.method}': {name}: {problem}") from problem

    @cached_property
    def scene(self) -> Scene:
        """The capture, read again from where it was trained; for a file, seen from the file's frame."""
        if self.job.source == UNKNOWN:
            raise DataError(f"{self.path} does not say where its photographs lie: give --scene CAPTURE")
        scene = open_scene(self.job)
        return scene if self.frame is None else in_frame(scene, self.frame)

    @cached_property
    def status(self) -> dict[str, Any]:
        """The content of the run's `state.json`: how far it is, on which views, on which machine."""
        content = files.read_json(self.path / STATUS)
        if not isinstance(content, dict) or "scene" not in content:
            raise DataError(f"{self.path / STATUS} does not hold the state of a run")
        return content

    @property
    def step(self) -> int:
        """Steps trained."""
        return int(self.checkpoint.facts["step"])

    @property
    def seconds(self) -> float:
        """Training time, over all resumes, without evaluation and saving."""
        return float(self.checkpoint.facts["seconds"])

    @property
    def model_bytes(self) -> int:
        """Size of the model's tensors, without what only training needs; of a file, its own."""
        if self.path.is_file():
            return self.path.stat().st_size
        return checkpoints.model_bytes(self.checkpoint.state)

    @property
    def source_from_world(self) -> NDArray[np.float64]:
        """The similarity from the training frame to the capture's own, [4, 4]; known without the capture."""
        if self.frame is not None:
            return self.frame
        matrix = np.asarray(self.status["scene"]["source_from_world"], dtype=np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            raise DataError(f"{self.path / STATUS}: source_from_world is not a finite 4x4 matrix")
        return matrix

    def from_world(self, frame: FrameOfReference) -> NDArray[np.float64]:
        """The similarity from the training frame to another, [4, 4]; raises DataError where nobody placed the run."""
        if frame == "local":
            return np.eye(4)
        if frame == "source":
            return self.source_from_world
        return self.placed().placed_from_world(self.source_from_world)

    def placed(self) -> Placement:
        """Where up, origin and scale are; raises DataError where nobody said so."""
        from anchorfield.app import placement

        found = placement.read(self.folder, self.source_from_world) if self.folder else None
        if found is None:
            raise DataError(
                f"{self.path} has no {placement.FILE}: nobody said yet where up, origin and scale are."
                " Do so in the World tab of `anchorfield view`, or take the source frame"
            )
        return found

    @torch.no_grad()
    def render(self, camera: Camera) -> Frame:
        """The view from `camera`, given in the training frame."""
        return self.model.render(camera)

    @torch.no_grad()
    def gaussians(self, frame: FrameOfReference = "local") -> Gaussians:
        """The scene as Gaussians in the training frame or another; raises DataError where it has none."""
        if not isinstance(self.model, HasGaussians):
            raise DataError(
                f"method '{self.job.method}' does not represent its scene by Gaussians;"
                " `anchorfield export RUN -o scene.ply` distils some from it"
            )
        with self._fitting():
            gaussians = self.model.gaussians()
        if frame == "local":
            return gaussians
        from anchorfield.scenes.similarity import transformed

        return transformed(gaussians, self.from_world(frame))

    def evaluate(self) -> Evaluation:
        """Scores on the held-out views."""
        from anchorfield.app.evaluation import evaluate

        return evaluate(self)


def _of_file(path: Path, capture: Path | None) -> Run:
    from anchorfield.app import model_files

    stored = model_files.read(path)
    described = Job(
        source=capture or UNKNOWN,
        method=stored.method,
        settings=model_files.settings(stored, path),
        steps=max(1, stored.step),
        downscale=stored.downscale,
        split=stored.split,
        background=stored.background,
    )
    facts = {"method": stored.method, "step": stored.step, "seconds": stored.seconds, "psnr": None}
    state = {"model": stored.tensors, "step": stored.step, "progress": 1.0}
    return Run(path, described, Checkpoint(path, state, facts), stored.source_from_world)


def open_scene(job: Job) -> Scene:
    """The capture of a job as the job sees it."""
    from anchorfield.scenes.load import load_scene

    return load_scene(job.source, downscale=job.downscale, split=job.split, background=job.background)


def check_belongs(checkpoint: Checkpoint, job: Job) -> None:
    """Raise DataError where a checkpoint was written by another method or with other settings than `job` has."""
    method = checkpoint.facts.get("method")
    if method != job.method:
        raise DataError(f"checkpoint {checkpoint.path} is of method '{method}', the run is of '{job.method}'")
    try:  # settings that are younger than the checkpoint have their defaults
        theirs = flat.from_json(type(job.settings), checkpoint.facts.get("settings"), f"checkpoint {checkpoint.path}")
    except UsageError as problem:
        raise DataError(f"checkpoint {checkpoint.path}: {problem}") from problem
    if theirs != job.settings:
        raise DataError(f"checkpoint {checkpoint.path} was trained with other settings than {CONFIG} has")
