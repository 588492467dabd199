"""Rays through occupied voxels, every step of the lattice one after another, in Python's floats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Layout(Protocol):
    """What marching knows of the voxels."""

    @property
    def resolution(self) -> int: ...
    @property
    def cascades(self) -> int: ...
    @property
    def smallest_step(self) -> float: ...
    @property
    def largest_step(self) -> float: ...


def step_distance(count: float, layout: Layout, cone: float) -> float:
    """The distance after a number of steps."""
    if cone == 0:
        return count * layout.smallest_step
    growth = math.log1p(cone)
    grows_at = layout.smallest_step / growth
    ceases_at = layout.largest_step / growth
    if count < math.log(grows_at) / growth:
        return grows_at + (count - math.log(grows_at) / growth) * layout.smallest_step
    if count < math.log(ceases_at) / growth:
        return math.exp(count * growth)
    return ceases_at + (count - math.log(ceases_at) / growth) * layout.largest_step


def step_count(distance: float, layout: Layout, cone: float) -> float:
    """Where `step_distance` is that distance, by bisection."""
    low, high = -1e6, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if step_distance(middle, layout, cone) < distance else (low, middle)
    return (low + high) / 2


def morton(index: Sequence[int]) -> int:
    """The bits of x, y and z in turn."""
    return sum(((index[axis] >> bit) & 1) << (3 * bit + axis) for bit in range(10) for axis in range(3))


def span(origin: Sequence[float], direction: Sequence[float], half: float) -> tuple[float, float]:
    """Where a ray is inside the cube of this half side."""
    begin, end = -math.inf, math.inf
    for o, d in zip(origin, direction, strict=True):
        if d == 0:
            if abs(o - 0.5) > half:
                return math.inf, -math.inf
            continue
        at = sorted(((0.5 - half - o) / d, (0.5 + half - o) / d))
        begin, end = max(begin, at[0]), min(end, at[1])
    return begin, end


def cascade_of(point: Sequence[float], step: float, layout: Layout) -> int:
    """The finest cascade that holds the point and has voxels of at least two steps."""
    for cascade in range(layout.cascades - 1):
        if max(abs(x - 0.5) for x in point) < 2**cascade / 2 and 2 * step < 2**cascade / layout.resolution:
            return cascade
    return layout.cascades - 1


def march_one(
    origin: Sequence[float],
    direction: Sequence[float],
    near: float,
    far: float,
    jitter: float,
    occupied: Tensor,  # [cascades, resolution, resolution, resolution] bool, by x, y, z
    layout: Layout,
    cone: float,
    most: int,
) -> list[tuple[float, float]]:
    """Begins and ends of one ray's samples."""
    begin, end = span(origin, direction, 2.0 ** (layout.cascades - 1) / 2)
    begin, end = max(begin, near, 0), min(end, far)
    samples: list[tuple[float, float]] = []
    first = step_count(begin, layout, cone) + jitter if begin < end else 0.0
    k, free_until = 0, -math.inf
    while begin < end and len(samples) < most:
        t0, t1 = (step_distance(first + number, layout, cone) for number in (k, k + 1))
        middle = (t0 + t1) / 2
        if middle >= end:
            break
        k += 1
        if middle < free_until:
            continue
        point = [o + middle * d for o, d in zip(origin, direction, strict=True)]
        cascade = cascade_of(point, t1 - t0, layout)
        voxel = 2**cascade / layout.resolution
        index = [math.floor((x - 0.5) / voxel + layout.resolution / 2) for x in point]
        index = [min(max(i, 0), layout.resolution - 1) for i in index]
        if occupied[cascade, index[0], index[1], index[2]]:
            samples.append((t0, t1))
        else:
            centre = [0.5 + (i + 0.5 - layout.resolution / 2) * voxel for i in index]
            free_until = span([o - c + 0.5 for o, c in zip(origin, centre, strict=True)], direction, voxel / 2)[1]
    return samples


def packed(occupied: Tensor) -> Tensor:
    """The bits [cascades, resolution^3 / 8] of voxels given by x, y, z."""
    cascades, resolution = occupied.shape[:2]
    bits = torch.zeros(cascades, resolution**3 // 8, dtype=torch.uint8)
    for cascade, x, y, z in occupied.nonzero().tolist():
        i = morton((x, y, z))
        bits[cascade, i // 8] |= 1 << i % 8
    return bits
