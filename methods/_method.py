"""The contract between methods and the application.

A method is a frozen dataclass: its fields are its settings, `fit` and `restore` are the method. `fit` is a generator
that yields after every step; the application decides when the next step happens, sets what share of the budget is
spent (`Fit.progress`), and evaluates, saves, shows, pauses or stops between two steps.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, Self, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn

from anchorfield.renderer.adam import Adam
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import UsageError
from anchorfield.renderer.meshing import Mesh
from anchorfield.renderer.types import Frame, Gaussians
from anchorfield.scenes.scene import Scene

State: TypeAlias = Mapping[str, Any]
"""What a checkpoint holds: a nested mapping with string keys (none starts with '$') whose leaves are tensors, numbers,
strings, booleans or None. "step" and "progress" are always there; raising a budget changes "progress".
"""


class Model(nn.Module, ABC):
    """Something that renders. Every method's model is final."""

    @abstractmethod
    def render(self, camera: Camera) -> Frame:
        """The view from `camera`; `rgb` holds the scene's background where nothing is."""


@runtime_checkable
class HasGaussians(Protocol):
    """A model that can be written as Gaussians (for `camera`, where the decoding depends on the view)."""

    def gaussians(self, camera: Camera | None = None) -> Gaussians:
        """Detached Gaussians in the training frame."""
        ...


@runtime_checkable
class HasMesh(Protocol):
    """A model whose surface is a mesh already."""

    def mesh(self) -> Mesh:
        """The surface in the training frame."""
        ...


@runtime_checkable
class HasDistance(Protocol):
    """A model whose surface is where a signed distance is zero."""

    def distance(self, points: Tensor) -> Tensor:
        """Distance [N] from the surface at world points [N, 3], below zero inside."""
        ...


@runtime_checkable
class HasDensity(Protocol):
    """A model that absorbs light by a density."""

    def density(self, points: Tensor) -> Tensor:
        """Share of the light that is absorbed per unit of length [N] at world points [N, 3], from zero up."""
        ...


@runtime_checkable
class HasStrips(Protocol):
    """A model whose pictures take so long that one may be given up half-way."""

    def strips(self, camera: Camera, rows: int) -> Iterator[Frame]:
        """The view from `camera` in strips of `rows` rows, from top to bottom."""
        ...


@runtime_checkable
class HasTrainingTensors(Protocol):
    """A model that keeps tensors which only training needs, so that files to share leave them out."""

    @property
    def training_tensors(self) -> frozenset[str]:
        """Names in its `state_dict`; the method's `restore` does without them."""
        ...


@dataclass
class Fit:
    """A run between two steps: all that a checkpoint holds.

    `progress` in [0, 1] is the share of the budget spent; the application sets it between steps and every schedule is
    written against it. `memory` holds what a strategy must remember (tensors and plain numbers by name).
    """

    model: Model
    optimiser: Adam
    random: torch.Generator
    step: int = 0
    progress: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)

    def descend(self, **losses: Tensor) -> None:
        """One step down the sum of the named scalar losses: clear gradients, backward, optimise, count."""
        self.optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        self.optimiser.step()
        self.step += 1
        self.losses = {name: float(loss.detach()) for name, loss in losses.items()}

    def state(self) -> State:
        """A snapshot from which `resume` continues bit for bit; its tensors are the live ones: write at once."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state(),
            "random": self.random.get_state(),
            "step": self.step,
            "progress": self.progress,
            "memory": dict(self.memory),
        }

    def resume(self, state: State) -> Self:
        """Continue where `state` was taken; the model must already have the state's shapes."""
        self.optimiser.restore(state["optimiser"])
        self.random.set_state(state["random"])
        self.step, self.progress = int(state["step"]), float(state["progress"])
        self.memory = dict(state["memory"])
        return self


def check_ranges(settings: object, **ranges: tuple[float, float]) -> None:
    """Require that the named settings are numbers within [low, high]; raises UsageError naming the setting."""
    for name, (low, high) in ranges.items():
        value = getattr(settings, name)
        if not isinstance(value, int | float) or not low <= value <= high:
            wanted = f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}"
            raise UsageError(f"--{name.replace('_', '-')}: expected {wanted}, got {value!r}")


def check_choices(settings: object, **choices: Collection[int]) -> None:
    """Require that the named settings are among the choices; raises UsageError naming the setting."""
    for name, known in choices.items():
        value = getattr(settings, name)
        if value not in known:
            raise UsageError(f"--{name.replace('_', '-')}: expected {', '.join(map(str, known))}, got {value!r}")


@runtime_checkable
class Method(Protocol):
    """Settings with two functions. Fields of the dataclass become command line flags; every one has a default."""

    seed: int

    def fit(self, scene: Scene, resume: State | None = None) -> Iterator[Fit]:
        """Optimise on `scene` for ever, yielding after each step; from `resume` on where it is given."""
        ...

    def restore(self, state: State) -> Model:
        """The model of a checkpoint, ready to render. Needs no scene."""
        ...


@runtime_checkable
class HasPlan(Protocol):
    """A method that says beforehand what it will do on a scene (counts, memory), a line each."""

    def plan(self, scene: Scene) -> list[str]:
        """Lines to show before training."""
        ...


@runtime_checkable
class IgnoresPoints(Protocol):
    """A method that has no use for a capture's points, so that none are triangulated for it."""

    ignores_points: ClassVar[Literal[True]]


@runtime_checkable
class CanStart(Protocol):
    """A method that can go on from Gaussians of any origin, e.g. after they were edited."""

    def fit_from(self, scene: Scene, start: Gaussians, frozen: Tensor | None = None) -> Iterator[Fit]:
        """`fit` from `start` instead of the capture's points; rows of `frozen` [N] keep place and value bit for bit.

        A checkpoint of it is resumed by `fit`. Raises UsageError where `start` does not suit the settings.
        """
        ...
