"""A run on disk: its job, its model as of a checkpoint, its scene, and what both can be asked."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from anchorfield.app import checkpoint as checkpoints
from anchorfield.app import files, job
from anchorfield.app.checkpoint import Checkpoint
from anchorfield.app.job import Job
from anchorfield.methods import HasGaussians, Model
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import DataError
from anchorfield.renderer.types import Frame, Gaussians
from anchorfield.scenes.scene import Scene

if TYPE_CHECKING:
    from anchorfield.app.evaluation import Evaluation

CONFIG, STATUS, CHECKPOINTS = "config.json", "state.json", "checkpoints"
FrameOfReference = Literal["source", "local"]


@dataclass(frozen=True)
class Run:
    """A trained (or half-trained) scene; `Run.open(folder)` reads it."""

    path: Path
    job: Job
    checkpoint: Checkpoint

    @classmethod
    def open(cls, path: Path | str, checkpoint: str = "last") -> Run:
        """The run in a folder as of a checkpoint ("last", "best" or a step); raises DataError in words."""
        path = Path(path)
        if not (path / CONFIG).is_file():
            raise DataError(f"{path} is not a run: it holds no {CONFIG}. Expected the folder that train printed")
        found = checkpoints.named(path / CHECKPOINTS, checkpoint, lambda text: warnings.warn(text, stacklevel=3))
        opened = cls(path, job.read(path / CONFIG), found)
        check_belongs(found, opened.job)
        return opened

    @cached_property
    def model(self) -> Model:
        """The model, ready to render."""
        try:
            return self.job.settings.restore(self.checkpoint.state).eval()
        except (KeyError, RuntimeError, ValueError, TypeError, IndexError) as problem:
            name = type(problem).__name__
            raise DataError(
                f"checkpoint {self.checkpoint.path} does not fit its method: {name}: {problem}"
            ) from problem

    @cached_property
    def scene(self) -> Scene:
        """The capture, read again from where it was trained."""
        return open_scene(self.job)

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
        """Size of the model's tensors, without what only training needs."""
        return checkpoints.model_bytes(self.checkpoint.state)

    @property
    def source_from_world(self) -> NDArray[np.float64]:
        """The similarity from the training frame to the capture's own, [4, 4]; known without the capture."""
        matrix = np.asarray(self.status["scene"]["source_from_world"], dtype=np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            raise DataError(f"{self.path / STATUS}: source_from_world is not a finite 4x4 matrix")
        return matrix

    @torch.no_grad()
    def render(self, camera: Camera) -> Frame:
        """The view from `camera`, given in the training frame."""
        return self.model.render(camera)

    @torch.no_grad()
    def gaussians(self, frame: FrameOfReference = "local") -> Gaussians:
        """The scene as Gaussians in the training frame or the capture's own; raises DataError where it has none."""
        if not isinstance(self.model, HasGaussians):
            raise DataError(f"method '{self.job.method}' does not represent its scene by Gaussians")
        gaussians = self.model.gaussians()
        if frame == "local":
            return gaussians
        from anchorfield.scenes.similarity import transformed

        return transformed(gaussians, self.source_from_world)

    def evaluate(self) -> Evaluation:
        """Scores on the held-out views."""
        from anchorfield.app.evaluation import evaluate

        return evaluate(self)


def open_scene(job: Job) -> Scene:
    """The capture of a job as the job sees it."""
    from anchorfield.scenes.load import load_scene

    return load_scene(job.source, downscale=job.downscale, split=job.split, background=job.background)


def check_belongs(checkpoint: Checkpoint, job: Job) -> None:
    """Raise DataError where a checkpoint was written by another method or with other settings than `job` has."""
    method = checkpoint.facts.get("method")
    if method != job.method:
        raise DataError(f"checkpoint {checkpoint.path} is of method '{method}', the run is of '{job.method}'")
    ours, theirs = job.to_json()["settings"], checkpoint.facts.get("settings")
    if ours != theirs:
        raise DataError(f"checkpoint {checkpoint.path} was trained with other settings than {CONFIG} has")
