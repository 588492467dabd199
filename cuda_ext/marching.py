"""Marching of rays through a grid of occupied and empty voxels (Mueller et al. 2022, appendix E).

Space is normalised: cascade k is the cube of side 2^k centred at (1/2, 1/2, 1/2), cut into resolution^3 voxels with one
bit each. Voxel (x, y, z) has bit i % 8 of byte i // 8 of its cascade, with i in Morton order: the bits of i from the
lowest are those of x, y, z, x, y, z, ...
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from anchorfield.cuda_ext import _kernels
from anchorfield.cuda_ext._checks import check

SMALLEST_STEP = math.sqrt(3) / 1024


@dataclasses.dataclass(frozen=True)
class OccupancyLayout:
    """How space is cut into voxels, and rays into steps.

    A step is `smallest_step` long near the ray's origin, then `cone` times its distance, and at most the diagonal of a
    voxel of the coarsest cascade; the pieces join with equal value and slope.
    """

    resolution: int = 128
    """Voxels along an axis of each cascade: a power of two, 4 to 512."""
    cascades: int = 1
    """Nested cubes, each twice as wide as the one inside: 1 to 8."""
    smallest_step: float = SMALLEST_STEP
    """At least 1e-5."""
    cone: float | None = None
    """Length of a step over its distance, 0 to 1; None: 0 for one cascade, else 1/256."""

    def __post_init__(self) -> None:
        """Refuse what the kernels cannot do."""
        power = self.resolution > 0 and self.resolution & (self.resolution - 1) == 0
        _expect("resolution", self.resolution, "a power of two, 4 to 512", power and 4 <= self.resolution <= 512)
        _expect("cascades", self.cascades, "1 to 8", 1 <= self.cascades <= 8)
        steps = f"1e-5 to {self.largest_step:.4g}, the diagonal of the coarsest voxel"
        _expect("smallest_step", self.smallest_step, steps, 1e-5 <= self.smallest_step <= self.largest_step)
        _expect("cone", self.cone, "0 to 1", self.cone is None or 0 <= self.cone <= 1)

    @property
    def largest_step(self) -> float:
        """The diagonal of a voxel of the coarsest cascade."""
        return math.sqrt(3) * (1 << (self.cascades - 1)) / self.resolution

    @property
    def cells(self) -> int:
        """Voxels of a cascade."""
        return int(self.resolution**3)

    def _numbers(self) -> tuple[list[int], list[float]]:
        cone = (1 / 256 if self.cascades > 1 else 0.0) if self.cone is None else self.cone
        return [self.resolution, self.cascades], [self.smallest_step, self.largest_step, cone]


@dataclasses.dataclass(frozen=True)
class Samples:
    """Steps of rays, packed ray by ray and front to back; a field is to be asked at their middles."""

    starts: Tensor  # [R + 1] int32: those of ray r are starts[r] to starts[r + 1] - 1
    t0: Tensor  # [S] distance where the step begins
    t1: Tensor  # [S] and where it ends
    ray: Tensor  # [S] int32

    @property
    def middles(self) -> Tensor:
        """Distances halfway between begin and end, [S]."""
        return 0.5 * (self.t0 + self.t1)


def march(
    origins: Tensor,  # [R, 3]
    directions: Tensor,  # [R, 3] of unit length
    near: Tensor,  # [R]; less than 0 counts as 0
    far: Tensor,  # [R]; may be infinite
    jitter: Tensor,  # [R] in [0, 1): of a step, by which the first one is put off
    bits: Tensor,  # [cascades, resolution^3 / 8] uint8
    layout: OccupancyLayout,
    most_samples: int = 1024,  # of a ray: those beyond are left out
) -> Samples:
    """The steps whose middles lie in occupied voxels, between near and far. No gradient.

    A ray's steps are a lattice that begins at its first point in the outermost cube; what is skipped does not move the
    rest. A step is looked up in the finest cascade that holds its middle and has voxels at least twice as wide as it is
    long. Rays with numbers that are not finite (but for far) or whose direction is not about a unit vector have none.
    """
    check(
        origins=(origins, ("R", 3)),
        directions=(directions, ("R", 3)),
        near=(near, ("R",)),
        far=(far, ("R",)),
        jitter=(jitter, ("R",)),
    )
    shape = (layout.cascades, layout.cells // 8)
    if bits.dtype != torch.uint8 or bits.device != origins.device:
        raise TypeError(f"bits: expected uint8 on {origins.device}, got {bits.dtype} on {bits.device}")
    if tuple(bits.shape) != shape:
        raise ValueError(f"bits: expected shape {list(shape)}, got {list(bits.shape)}")
    _expect("most_samples", most_samples, "at least 1", most_samples >= 1)
    rays = [t.detach() for t in (origins, directions, near, far, jitter)]
    return Samples(*_march(*rays, bits, *layout._numbers(), most_samples))


def step_count(distance: float, layout: OccupancyLayout) -> float:
    """Steps up to a distance from the origin, up to a constant; inverse of `step_distance`."""
    return float(_kernels.step_count(distance, *layout._numbers()))


def step_distance(count: float, layout: OccupancyLayout) -> float:
    """The distance after a number of steps; inverse of `step_count`."""
    return float(_kernels.step_distance(count, *layout._numbers()))


def _expect(name: str, got: object, expected: str, fulfilled: bool) -> None:
    if not fulfilled:
        raise ValueError(f"{name}: expected {expected}, got {got}")


def starts_of(
    counts: Tensor,  # [R] int32
) -> tuple[Tensor, Tensor]:
    """The running sum of counts from 0 on as int32 [R + 1], and the total as int64 [2] (twice)."""
    sums = counts.cumsum(0, dtype=torch.int64)
    total = sums[-1:] if len(sums) else sums.new_zeros(1)
    return torch.cat([sums.new_zeros(1), sums]).int(), total.expand(2).contiguous()


def empty_samples(origins: Tensor, starts: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Room for what `Samples` holds."""
    if count >= 2**31:
        raise ValueError(f"samples: expected fewer than 2^31 of all rays, got {count}; march fewer rays at a time")
    return starts, origins.new_empty(count), origins.new_empty(count), starts.new_empty(count)


@torch.library.custom_op("anchorfield::march", mutates_args=(), device_types="cpu")
def _march(
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    jitter: Tensor,
    bits: Tensor,
    shape: list[int],
    steps: list[float],
    most: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    inputs = [t.contiguous() for t in (origins, directions, near, far, jitter, bits)]
    counts = bits.new_empty(origins.shape[0], dtype=torch.int32)
    _kernels.march_count(*inputs, shape, steps, most, counts)
    starts, totals = starts_of(counts)
    outputs = empty_samples(origins, starts, int(totals[0]))
    _kernels.march_write(*inputs, shape, steps, most, *outputs)
    return outputs


@_march.register_fake
def _(origins: Tensor, *_: Any) -> tuple[Tensor, ...]:
    starts = origins.new_empty(origins.shape[0] + 1, dtype=torch.int32)
    count = torch.library.get_ctx().new_dynamic_size()
    return starts, origins.new_empty(count), origins.new_empty(count), starts.new_empty(count)
