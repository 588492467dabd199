"""What ray-marched fields are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from anchorfield.cuda_ext import (
    directions,
    hash_grid,
    mlp,
)
from anchorfield.cuda_ext import rays as along_rays
from operations._op import OFF_ZERO, Inputs, Op, Outputs, cotangent
from reference import hash_grid as plain_hash_grid
from reference import mlp as plain_mlp
from reference import rays as plain_rays
from reference import spherical_harmonics as plain_spherical_harmonics
from reference.made_scenes import float32_exact, generator, log_uniform, uniform

# ------------------------------------------------------------------------------------------------------ hash grids
GRIDS = {
    "3D": hash_grid.HashGrid(levels=6, log2_table_size=10, base_resolution=4, per_level_scale=1.6),
    "3D of SAGS": hash_grid.HashGrid(),
    "2D": hash_grid.HashGrid(5, 4, 9, 5, 1.7, dimensions=2),
    "4D": hash_grid.HashGrid(3, 1, 11, 3, 1.5, dimensions=4),
    "2D wide": hash_grid.HashGrid(3, 8, 7, 6, 1.9, dimensions=2),
    "small": hash_grid.HashGrid(2, 2, 5, 2, 2.3),
}
BORDER = 2**-8  # of a cell, that positions keep away from its borders, where gradients jump


def away_from_borders(layout: hash_grid.HashGrid, positions: Tensor) -> Tensor:
    """Which positions lie inside a cell of every level, [N]."""
    inside = torch.ones(len(positions), dtype=torch.bool)
    for level in range(layout.levels):
        rest = plain_hash_grid.in_cells(layout, level, positions) % 1
        inside &= ((rest > BORDER) & (rest < 1 - BORDER)).all(1)
        if layout.interpolation == "simplex":
            inside &= (rest.sort(1).values.diff(dim=1) > BORDER).all(1)
    return inside


def draw_hash_grid(case: str, seed: int, count: int) -> Inputs:
    """`case` is a grid, and perhaps its interpolation or that some positions lie outside."""
    name, *rest = case.split(", ")
    (interpolation,) = [name for name in hash_grid.INTERPOLATIONS if name in rest] or ["linear"]
    layout = dataclasses.replace(GRIDS[name], interpolation=interpolation)
    g = generator(seed)
    reach = 0.2 if "outside" in rest else 0
    drawn = float32_exact(uniform(g, -reach, 1 + reach, 4 * count, layout.dimensions))
    positions = drawn[away_from_borders(layout, drawn)][:count]
    assert len(positions) == count
    return {
        "positions": positions,
        "table": float32_exact(uniform(g, -1, 1, layout.rows, layout.features)),
        "layout": layout,
    }


HASH_GRID = Op(
    kernel=lambda **inputs: {"encoded": hash_grid.hash_grid(**inputs)},
    plain=lambda **inputs: {"encoded": plain_hash_grid.hash_grid(**inputs)},
    draw=draw_hash_grid,
    cases=(
        "3D",
        "3D, smoothstep",
        "3D, outside",
        "3D of SAGS",
        "2D, outside",
        "4D, smoothstep",
        "2D wide, smoothstep",
        "3D, simplex",
        "4D, simplex, outside",
        "2D wide, simplex",
    ),
    smooth=lambda: draw_hash_grid("small, smoothstep", 1, 4),
    gradients=("positions", "table"),
    rows=("positions",),
    count=200,
    draws=4,
)


def slopes_with(encode: Callable[..., Tensor]) -> Callable[..., Outputs]:
    """Gradients to the positions of a function of the encoding, whose own gradients are second derivatives."""

    def slopes(positions: Tensor, table: Tensor, layout: hash_grid.HashGrid) -> Outputs:
        if positions.is_floating_point() and not positions.requires_grad:
            positions = positions.detach().requires_grad_()
        encoded = encode(positions, table, layout)
        (slope,) = torch.autograd.grad(encoded.square().sum(), positions, create_graph=True)
        return {"slope": slope}

    return slopes


HASH_GRID_SLOPES = dataclasses.replace(
    HASH_GRID,
    kernel=slopes_with(hash_grid.hash_grid),
    plain=slopes_with(plain_hash_grid.hash_grid),
    cases=(
        "3D",
        "3D, smoothstep",
        "2D, outside",
        "4D, smoothstep",
        "2D wide, smoothstep",
        "3D, simplex",
        "4D, simplex",
        "2D, simplex, outside",
    ),
    count=100,
    draws=3,
)


# ------------------------------------------------------------------------------------------------- learned probing
def draw_probed_hash_grid(case: str, seed: int, count: int) -> Inputs:
    """`case` is as for hash grids, then the number of probes."""
    *rest, probes = case.split(", ")
    drawn = draw_hash_grid(", ".join(rest), seed, count)
    layout = dataclasses.replace(drawn["layout"], probes=int(probes), log2_index_size=6)
    confidences = uniform(generator(seed + 1), -1, 1, layout.index_rows, layout.probes)
    probabilities = float32_exact(confidences.softmax(1))
    return {**drawn, "layout": layout, "choice": confidences.argmax(1).byte(), "probabilities": probabilities}


def with_gradients(encode: Callable[..., Tensor]) -> Callable[..., Outputs]:
    """The encoding and all its gradients, which are no derivatives of what is computed, but of what is expected."""

    def run(positions: Tensor, table: Tensor, probabilities: Tensor, **others: Any) -> Outputs:
        tensors = {"positions": positions, "table": table, "probabilities": probabilities}
        leaves = {k: t.detach().requires_grad_(t.is_floating_point()) for k, t in tensors.items()}
        encoded = encode(**leaves, **others)
        found = torch.autograd.grad(encoded, list(leaves.values()), cotangent("encoded", encoded), allow_unused=True)
        outputs = {f"to_{name}": t for name, t in zip(leaves, found, strict=True) if t is not None}
        return {"encoded": encoded.detach(), **outputs}

    return run


PROBED_HASH_GRID = Op(
    kernel=with_gradients(hash_grid.hash_grid),
    plain=with_gradients(plain_hash_grid.hash_grid),
    draw=draw_probed_hash_grid,
    cases=("3D, 4", "2D wide, smoothstep, 16", "4D, simplex, 2", "small, outside, 8"),
    smooth=lambda: draw_probed_hash_grid("small, 4", 1, 4),
    rows=("positions",),
    count=100,
    draws=3,
)


# ------------------------------------------------------------------------------------------------------------ rays
def draw_counts(g: torch.Generator, rays: int) -> Tensor:
    """Samples of each ray: none, a few, or many."""
    few, many = torch.randint(0, 6, (rays,), generator=g), torch.randint(0, 60, (rays,), generator=g)
    return torch.where(torch.rand(rays, generator=g) < 0.5, few, many)


def draw_composite_rays(case: str, seed: int, count: int) -> Inputs:
    """`case` is how thick samples are and how many channels they have; no ray becomes opaque within rounding."""
    kind, channels = case.split(" ")
    low, high = {"faint": (1e-6, 1e-3), "mixed": (1e-3, 1), "thick": (0.1, 20)}[kind]
    g = generator(seed)
    counts = draw_counts(g, count)
    samples = int(counts.sum())
    optical = float32_exact(log_uniform(g, low, high, samples) * (torch.rand(samples, generator=g) < 0.8))
    before = plain_rays.thickness_before(optical, counts)[plain_rays.is_sample(counts)]
    assert not bool(((before - plain_rays.OPAQUE).abs() < 1e-4).any())
    return {"optical": optical, "values": float32_exact(uniform(g, -1, 2, samples, int(channels))), "counts": counts}


def with_starts(counts: Tensor, **inputs: Tensor) -> Inputs:
    """The inputs with the first sample of each ray instead of their numbers."""
    return {**inputs, "starts": torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]).int()}


RAY_SUMS = ("sums", "transmittance", "weights")
COMPOSITE_RAYS = Op(
    kernel=lambda **inputs: dict(zip(RAY_SUMS, along_rays.composite_rays(**inputs), strict=True)),
    plain=lambda **inputs: dict(zip(RAY_SUMS, plain_rays.composite(**inputs), strict=True)),
    draw=draw_composite_rays,
    cases=("mixed 3", "mixed 32", "thick 4", "faint 1", "thick 17"),
    smooth=lambda: draw_composite_rays("mixed 2", 1, 4),
    gradients=("optical", "values"),
    rows=("optical", "values", "counts"),
    wide=("values",),
    prepare=with_starts,
    count=60,
    draws=4,
    many=700,
)


def draw_distortion(case: str, seed: int, count: int) -> Inputs:
    """`case` is whether samples lie side by side or apart, or far from the origin."""
    g = generator(seed)
    counts = draw_counts(g, count)
    samples = int(counts.sum())
    along = uniform(g, 0.01, 0.05, samples).cumsum(0) + {"near": 0, "apart": 0, "far": 100}[case]
    lengths = uniform(g, 0.001, 0.009, samples) if case == "apart" else along.diff(append=along[-1:] + 0.02)
    drawn = {"weights": uniform(g, 0, 0.2, samples), "t0": along, "t1": along + lengths}
    return {name: float32_exact(value) for name, value in drawn.items()} | {"counts": counts}


DISTORTION = Op(
    kernel=lambda **inputs: {"distortion": along_rays.distortion(**inputs)},
    plain=lambda **inputs: {"distortion": plain_rays.distortion(**inputs)},
    draw=draw_distortion,
    cases=("near", "apart", "far"),
    smooth=lambda: draw_distortion("near", 1, 4),
    gradients=("weights",),
    rows=("weights", "t0", "t1", "counts"),
    prepare=with_starts,
    count=60,
    draws=4,
    many=700,
)


# ----------------------------------------------------------------------------------------------------- perceptrons
def draw_mlp(case: str, seed: int, count: int) -> Inputs:
    """`case` is inputs, width, hidden layers and outputs."""
    inputs, width, hidden, outputs = map(int, case.split(" "))
    layout = mlp.MlpLayout(inputs, outputs, width, hidden)
    g = generator(seed)
    weights = float32_exact(layout.initial(g).double())
    drawn = float32_exact(uniform(g, -1, 1, 2 * count + 20, inputs))
    safe = drawn[plain_mlp.margin(drawn, weights, layout) > OFF_ZERO][:count]
    assert len(safe) == count
    return {"inputs": safe, "weights": weights, "layout": layout}


MLP = Op(
    kernel=lambda **inputs: {"outputs": mlp.mlp(**inputs)},
    plain=lambda **inputs: {"outputs": plain_mlp.mlp(**inputs)},
    draw=draw_mlp,
    cases=("32 64 1 16", "32 64 2 3", "1 16 1 1", "17 32 3 33", "256 128 1 256", "27 128 4 8"),
    smooth=lambda: draw_mlp("3 16 2 2", 2, 4),
    gradients=("inputs", "weights"),
    rows=("inputs",),
    count=230,  # blocks, and a rest
    draws=4,
)


# ------------------------------------------------------------------------------------------------------ directions
def draw_directions(case: str, seed: int, count: int) -> Inputs:
    """`case` is the degree."""
    drawn = torch.randn(count, 3, generator=generator(seed), dtype=torch.float64)
    return {"directions": float32_exact(drawn / drawn.norm(dim=1, keepdim=True)), "degree": int(case)}


def plain_directions(directions: Tensor, degree: int) -> Outputs:
    return {"values": plain_spherical_harmonics.basis(directions)[:, : (degree + 1) ** 2]}


DIRECTIONS = Op(
    kernel=lambda **inputs: {"values": directions.spherical_harmonics_basis(**inputs)},
    plain=plain_directions,
    draw=draw_directions,
    cases=("0", "1", "2", "3"),
    smooth=lambda: draw_directions("3", 1, 5),
    gradients=("directions",),
    rows=("directions",),
    count=300,
    draws=5,
)
