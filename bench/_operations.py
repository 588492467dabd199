"""What is measured: an operation, the work that it cannot avoid, and the stages of rendering that it starts from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from anchorfield.cuda_ext.binning import Bins, bin_tiles
from anchorfield.cuda_ext.projection import Projected
from anchorfield.cuda_ext.spherical_harmonics import spherical_harmonics
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.splatting import flattened
from anchorfield.renderer.types import PARAMETERS, Gaussians
from bench._machine import Ceiling
from bench._scenes import Made

FLOAT = 4  # bytes


@dataclass(frozen=True)
class Operation:
    """Something to time, with its floor: operations on single numbers (lanes) and bytes through the memory."""

    name: str
    run: Callable[[], object]
    lanes: float = 0.0
    traffic: float = 0.0
    evaluations: float = 0.0  # of a Gaussian at a pixel
    parts: tuple[Operation, ...] = ()  # one after another; their floors add up

    def floor(self, ceiling: Ceiling) -> float:
        """Least seconds on a machine with these rates; 0 where nothing is known."""
        return sum(part.floor(ceiling) for part in self.parts) or ceiling.floor(self.lanes, self.traffic)


class Stages:
    """A made scene and what its rendering passes through, each made when it is first asked for."""

    def __init__(self, made: Made):
        self.made, self.camera = made, made.camera
        self.gaussians = trainable(made.gaussians)
        self.count, self.pixels = len(made.gaussians), made.camera.width * made.camera.height

    @cached_property
    def flat(self) -> Projected:
        """Projected Gaussians, part of the graph."""
        return flattened(self.gaussians, self.camera)

    @cached_property
    def visible(self) -> int:
        """Gaussians in view."""
        return int(self.flat.visible.sum())

    @cached_property
    def bins(self) -> Bins:
        """Pairs of tiles and Gaussians."""
        return bin_tiles(self.flat, self.camera.width, self.camera.height)

    @cached_property
    def colours(self) -> Tensor:
        """What is blended, [N, 3], part of the graph."""
        return colours(self.gaussians, self.camera, self.flat)

    @cached_property
    def evaluations(self) -> float:
        """(pixel, Gaussian) pairs in which alpha reaches 1/255."""
        return evaluations(self.flat, self.camera.width, self.camera.height)


def trainable(gaussians: Gaussians) -> Gaussians:
    """The same Gaussians as leaves that want gradients."""
    return Gaussians(**{name: getattr(gaussians, name).clone().requires_grad_() for name in PARAMETERS})


def colours(gaussians: Gaussians, camera: Camera, flat: Projected) -> Tensor:
    """Colours as `splat` asks for them, [N, 3]."""
    return spherical_harmonics(gaussians.sh, gaussians.means, camera.centre, gaussians.sh_degree, flat.visible)


@torch.no_grad()
def evaluations(flat: Projected, width: int, height: int) -> float:
    """Pixels in which alpha reaches 1/255, over all Gaussians: the ellipses' areas, by which of their boxes is inside.

    Speaks of the scene alone, so that a kernel that tests more than it must does not look faster.
    """
    rows = flat.visible
    means, conics, extents = (t[rows].double() for t in (flat.means2d, flat.conics, flat.extents))
    a, b, c = conics.unbind(1)
    area = 2 * math.pi * (255 * flat.opacities[rows].double()).log() / (a * c - b * b).sqrt()
    size = means.new_tensor([width, height])
    inside = (torch.minimum(means + extents, size) - (means - extents).clamp_min(0)).clamp_min(0)
    return float((area * (inside / (2 * extents)).prod(1)).sum())


def backward(outputs: Tensor | tuple[Tensor, ...], inputs: tuple[Tensor, ...]) -> Callable[[], object]:
    """The backward pass from given gradients of the outputs, any number of times."""
    outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
    gradients = [torch.randn(o.shape, generator=torch.Generator().manual_seed(0)) for o in outputs]
    return lambda: torch.autograd.grad(outputs, inputs, gradients, retain_graph=True, allow_unused=True)


def forward(call: Callable[[], object]) -> Callable[[], object]:
    """The forward pass alone, without a graph."""

    def run() -> object:
        with torch.no_grad():
            return call()

    return run
