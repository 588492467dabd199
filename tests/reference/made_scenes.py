"""Made scenes: a camera with an off-centre principal point, and Gaussians of one character each.

One character per scene keeps the norms honest: a single huge gradient cannot hide the errors of all others. Every
number is exactly representable in float32, so that float32 and float64 start from the same inputs.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from reference.compositing import decisions_are_safe
from reference.projection import Projected, project

# 5 x 3 tiles of 16, the last column 6 pixels wide and the last row 13 high: no border falls on a tile or a block
CAMERA = {"fx": 61.5, "fy": 58.25, "cx": 30.25, "cy": 25.75, "width": 70, "height": 45}

# Rounding to expect of one exponent in float32: a dozen operations at one ulp each. Only used to stay off thresholds.
ROUNDING = 12 * 2.0**-23


def float32_exact(values: Tensor) -> Tensor:
    """The values rounded to float32, in float64."""
    return values.to(torch.float32).to(torch.float64)


def generator(seed: int) -> torch.Generator:
    """A random stream of its own for each scene."""
    return torch.Generator().manual_seed(seed)


def uniform(g: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    """Uniform numbers, float64."""
    return torch.rand(*shape, generator=g, dtype=torch.float64) * (high - low) + low


def log_uniform(g: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    """Numbers whose logarithm is uniform, float64."""
    return uniform(g, math.log(low), math.log(high), *shape).exp()


def pose(g: torch.Generator) -> Tensor:
    """A rigid world_to_camera, [4, 4]; rigid only to float32, as poses are in use."""
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=g, dtype=torch.float64))
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = rotation * rotation.det().sign()
    matrix[:3, 3] = uniform(g, -2, 2, 3)
    return float32_exact(matrix)


# What is drawn of each character: pixels of standard deviation, ratio of the axes, opacity, field of view filled, depth
CHARACTERS = {
    "mixed": {"pixels": (0.3, 12), "axes": (0.2, 1), "opacity": (0.05, 0.95), "field": 0.55, "depth": (1, 8)},
    "tiny": {"pixels": (0.01, 0.3), "axes": (0.5, 1), "opacity": (0.3, 0.95), "field": 0.5, "depth": (1, 8)},
    "huge": {"pixels": (40, 400), "axes": (0.3, 1), "opacity": (0.02, 0.3), "field": 0.7, "depth": (0.5, 4)},
    "needles": {"pixels": (2, 20), "axes": (0.0005, 0.002), "opacity": (0.2, 0.95), "field": 0.5, "depth": (1, 8)},
    "outside": {"pixels": (1, 30), "axes": (0.2, 1), "opacity": (0.2, 0.95), "field": 1.5, "depth": (-2, 3)},
    "opaque": {"pixels": (1, 6), "axes": (0.5, 1), "opacity": (0.97, 0.9999), "field": 0.5, "depth": (1, 8)},
    "faint": {"pixels": (2, 12), "axes": (0.2, 1), "opacity": (0.003, 0.03), "field": 0.5, "depth": (1, 8)},
}


def gaussians(character: str, count: int = 120, seed: int = 0) -> dict[str, Tensor]:
    """Arguments of `project` (means, quats, scales, opacities, world_to_camera), float64 but exact in float32."""
    drawn = CHARACTERS[character]
    g = generator(seed)
    world_to_camera = pose(g)
    z = uniform(g, *drawn["depth"], count)
    column = (uniform(g, -drawn["field"], drawn["field"], count) + 0.5) * CAMERA["width"]
    row = (uniform(g, -drawn["field"], drawn["field"], count) + 0.5) * CAMERA["height"]
    points = torch.stack([(column - CAMERA["cx"]) * z / CAMERA["fx"], (row - CAMERA["cy"]) * z / CAMERA["fy"], z], -1)
    rotation, translation = world_to_camera[:3, :3], world_to_camera[:3, 3]
    size = log_uniform(g, *drawn["pixels"], count) * z.abs() / CAMERA["fx"]
    ratios = log_uniform(g, *drawn["axes"], count, 3)
    ratios[:, 0] = 1
    quats = torch.randn(count, 4, generator=g, dtype=torch.float64) * log_uniform(g, 0.1, 10, count, 1)
    made = {
        "means": (points - translation) @ rotation,
        "quats": quats,
        "scales": size[:, None] * ratios,
        "opacities": uniform(g, *drawn["opacity"], count),
    }
    if character == "outside" and count > 1:  # nothing may come of these two, least of all a NaN
        made["quats"][0] = 0
        made["means"][1] = -translation @ rotation
    return {name: float32_exact(value) for name, value in made.items()} | {"world_to_camera": world_to_camera}


@functools.cache
def splats(character: str, count: int = 120, seed: int = 0) -> Projected:
    """2D Gaussians as `project` gives them, exact in float32, none of which sits on a threshold of compositing.

    Those that do are moved out of the way: made invisible, as culled ones are.
    """
    flat = Projected(*map(float32_exact, project(**gaussians(character, count, seed), **CAMERA)))
    while not (safe := _safe(flat)).all():
        flat = Projected(*(torch.where(safe if v.ndim == 1 else safe[:, None], v, 0) for v in flat))
    return flat


def _safe(flat: Projected) -> Tensor:
    order = flat.depths.argsort(stable=True)
    shape = CAMERA["width"], CAMERA["height"]
    return decisions_are_safe(flat.means2d, flat.conics, flat.opacities, order, *shape, ROUNDING)


def features(count: int, channels: int, seed: int = 0) -> Tensor:
    """Random features [N, C] around 0.5, some negative, exact in float32."""
    return float32_exact(uniform(generator(seed), -0.2, 1.2, count, channels))
