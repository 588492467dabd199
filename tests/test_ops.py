"""Every operation against its reference, by gradcheck, opcheck, and with unusual and wrong input.

A new operation is one entry in OPS. Inputs are drawn in float64 but exact in float32, so that every precision computes
the same thing.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.utils._pytree as pytree
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from anchorfield.cuda_ext import (
    activations,
    adam,
    anchors,
    binning,
    compositing,
    directions,
    hash_grid,
    langevin,
    mlp,
    native,
    projection,
    spherical_harmonics,
    ssim,
)
from anchorfield.cuda_ext import neighbours as aggregation
from anchorfield.cuda_ext import rays as along_rays
from reference import activations as plain_activations
from reference import adam as plain_adam
from reference import anchors as plain_anchors
from reference import compositing as plain_compositing
from reference import hash_grid as plain_hash_grid
from reference import langevin as plain_langevin
from reference import made_scenes
from reference import mlp as plain_mlp
from reference import neighbours as plain_neighbours
from reference import projection as plain_projection
from reference import rays as plain_rays
from reference import spherical_harmonics as plain_spherical_harmonics
from reference import ssim as plain_ssim
from reference.made_scenes import CAMERA, CHARACTERS, float32_exact, generator, log_uniform, uniform
from reference.tolerance import assert_as_good_as_plain

Inputs = dict[str, Any]
Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class Op:
    """An operation, its reference, and what to feed them."""

    kernel: Callable[..., Outputs]  # the product's function, outputs by name
    plain: Callable[..., Outputs]  # the reference, the same outputs by name
    draw: Callable[[str, int, int], Inputs]  # (case, seed, count) -> inputs, float64
    cases: tuple[str, ...]
    smooth: Callable[[], Inputs]  # few numbers, away from every kink, for finite differences
    gradients: tuple[str, ...] = ()  # the inputs that it differentiates
    rows: tuple[str, ...] = ()  # the inputs with one row per Gaussian; none: no empty input
    wide: tuple[str, ...] = ()  # the inputs that may have any number of columns
    prepare: Callable[..., Inputs] = field(default=lambda **inputs: inputs)  # inputs -> arguments of the kernel
    count: int = 1200  # Gaussians of a case
    draws: int = 10  # of every case
    many: int = 3000  # enough to be spread over several threads


# ------------------------------------------------------------------------------------------------------ projection
def draw_project(case: str, seed: int, count: int) -> Inputs:
    character, *modes = case.split(" ")
    inputs: Inputs = {**made_scenes.gaussians(character, count, seed), **CAMERA}
    if "raw" in modes:
        inputs["scales"] = float32_exact(inputs["scales"].log())
        inputs["opacities"] = float32_exact(inputs["opacities"].logit())
    return {**inputs, "antialiased": "antialiased" in modes, "raw": "raw" in modes}


PROJECT = Op(
    kernel=lambda **inputs: projection.project(**inputs)._asdict(),
    plain=lambda **inputs: plain_projection.project(**inputs)._asdict(),
    draw=draw_project,
    cases=tuple(f"{character}{mode}" for mode in ("", " antialiased", " raw") for character in CHARACTERS),
    smooth=lambda: draw_project("mixed antialiased raw", 3, 4),
    gradients=("means", "quats", "scales", "opacities", "world_to_camera"),
    rows=("means", "quats", "scales", "opacities"),
)


# --------------------------------------------------------------------------------------------- spherical harmonics
def draw_spherical_harmonics(case: str, seed: int, count: int) -> Inputs:
    """`case` is the active degree and the degree of the coefficients."""
    degree, stored = map(int, case.split(" of "))
    g = generator(seed)
    sh = uniform(g, -0.5, 0.5, count, (stored + 1) ** 2, 3)
    means, centre = uniform(g, -3, 3, count, 3), uniform(g, -6, 6, 3)
    drawn = {"sh": sh, "means": means, "centre": centre}
    visible = torch.rand(count, generator=g) < 0.8
    return {name: float32_exact(value) for name, value in drawn.items()} | {"degree": degree, "visible": visible}


def smooth_spherical_harmonics() -> Inputs:
    inputs = draw_spherical_harmonics("2 of 3", 1, 4)
    return {**inputs, "sh": inputs["sh"] * 0.1, "visible": torch.tensor([True, True, False, True])}


SPHERICAL_HARMONICS = Op(
    kernel=lambda **inputs: {"colours": spherical_harmonics.spherical_harmonics(**inputs)},
    plain=lambda **inputs: {"colours": plain_spherical_harmonics.spherical_harmonics(**inputs)},
    draw=draw_spherical_harmonics,
    cases=("0 of 0", "1 of 1", "2 of 2", "3 of 3", "0 of 3", "1 of 3"),
    smooth=smooth_spherical_harmonics,
    gradients=("sh", "means", "centre"),
    rows=("sh", "means", "visible"),
)


# ----------------------------------------------------------------------------------------------------- compositing
SPLAT = ("means2d", "conics", "opacities")


def draw_composite(case: str, seed: int, count: int) -> Inputs:
    """`case` is a character, the number of channels, and perhaps a background."""
    character, channels, *rest = case.split(" ")
    inputs = {**made_scenes.splats(character, count, seed)._asdict(), "width": CAMERA["width"]}
    background = float32_exact(uniform(generator(seed), 0, 1, int(channels))) if rest else None
    features = made_scenes.features(count, int(channels), seed)
    return {**inputs, "height": CAMERA["height"], "features": features, "background": background}


def smooth_composite() -> Inputs:
    """Four Gaussians so wide that all of them count in every pixel of an image of 9 x 7."""
    g = generator(7)
    a, c = uniform(g, 0.03, 0.06, 2, 4)
    conics = torch.stack([a, uniform(g, -0.3, 0.3, 4) * (a * c).sqrt(), c], -1)
    opacities = uniform(g, 0.3, 0.6, 4)
    variances = conics[:, [2, 0]] / (a * c - conics[:, 1] ** 2)[:, None]
    extents = (2 * (255 * opacities).log()[:, None] * variances).sqrt()
    means2d = torch.stack([uniform(g, 2, 7, 4), uniform(g, 2, 5, 4)], -1)
    flat = dict(zip(("depths", "extents"), (uniform(g, 1, 2, 4), extents), strict=True))
    flat |= dict(zip(SPLAT, (means2d, conics, opacities), strict=True))
    drawn = flat | {"features": uniform(g, 0, 1, 4, 3), "background": uniform(g, 0, 1, 3)}
    return {name: float32_exact(value) for name, value in drawn.items()} | {"width": 9, "height": 7}


def with_bins(depths: Tensor, extents: Tensor, **inputs: Any) -> Inputs:
    """The inputs with depths and extents replaced by the lists of the tiles."""
    means2d, conics, opacities = (inputs[name].detach() for name in SPLAT)
    flat = projection.Projected(means2d, conics, depths, opacities, extents)
    return {**inputs, "bins": binning.bin_tiles(flat, inputs["width"], inputs["height"])}


def plain_composite(depths: Tensor, extents: Tensor, **inputs: Any) -> Outputs:
    order = depths.argsort(stable=True)
    return dict(zip(("image", "alpha"), plain_compositing.composite(order=order, **inputs), strict=True))


COMPOSITE = Op(
    kernel=lambda **inputs: dict(zip(("image", "alpha"), compositing.composite(**inputs), strict=True)),
    plain=plain_composite,
    draw=draw_composite,
    cases=(*(f"{character} 3 background" for character in CHARACTERS), "mixed 1", "mixed 5 background", "opaque 17"),
    smooth=smooth_composite,
    gradients=("means2d", "conics", "opacities", "features", "background"),
    rows=("means2d", "conics", "opacities", "features", "depths", "extents"),
    prepare=with_bins,
    count=120,
    draws=5,
    many=120,
)


def draw_contributions(case: str, seed: int, count: int) -> Inputs:
    inputs = draw_composite(f"{case} 1", seed, count)
    return {name: inputs[name] for name in (*SPLAT, "depths", "extents", "width", "height")}


def plain_contributions(depths: Tensor, extents: Tensor, **inputs: Any) -> Outputs:
    order = depths.argsort(stable=True)
    return {"contributions": plain_compositing.contributions(order=order, **inputs)}


CONTRIBUTIONS = Op(
    kernel=lambda **inputs: {"contributions": compositing.contributions(**inputs)},
    plain=plain_contributions,
    draw=draw_contributions,
    cases=("mixed", "huge", "opaque"),
    smooth=lambda: draw_contributions("mixed", 0, 5),
    rows=(*SPLAT, "depths", "extents"),
    prepare=with_bins,
    count=120,
    draws=5,
    many=120,
)


# ----------------------------------------------------------------------------------------------------- photometric
def draw_photometric(case: str, seed: int, count: int) -> Inputs:
    """`case` is what the images are like, their shape, and perhaps which pixels count."""
    kind, height, width, channels, *rest = case.split(" ")
    g = generator(seed)
    noise, more = (uniform(g, 0, 1, int(height), int(width), int(channels)) for _ in range(2))
    made = {"noise": (noise, more), "similar": (noise, noise + 0.05 * more), "bright": (0.9 + 0.01 * noise, more)}
    image, target = made[kind]
    inputs: Inputs = {"image": float32_exact(image), "target": float32_exact(target), "mask": None}
    if rest:
        inputs["mask"] = torch.rand(int(height), int(width), generator=g) < {"masked": 0.7, "hidden": 0.0}[rest[0]]
    return inputs


PHOTOMETRIC = Op(
    kernel=lambda **inputs: dict(zip(("l1", "ssim"), ssim.l1_and_ssim(**inputs), strict=True)),
    plain=lambda **inputs: dict(zip(("l1", "ssim"), plain_ssim.l1_and_ssim(**inputs), strict=True)),
    draw=draw_photometric,
    cases=(
        "noise 45 70 3",
        "similar 45 70 3",
        "bright 37 33 3",
        "noise 5 4 3",
        "noise 2 3 1",
        "similar 16 48 4",
        "bright 9 100 7",
        "similar 45 70 3 masked",
        "noise 13 21 2 hidden",
    ),
    smooth=lambda: draw_photometric("similar 7 13 2 masked", 5, 0),
    gradients=("image",),
)


# ------------------------------------------------------------------------------------------------------- optimiser
def draw_adam(case: str, seed: int, count: int) -> Inputs:
    """`case` is the shape of a row, then options: a rate per column, some rows only, the step."""
    shape, *options = case.split(" ")
    dims = [int(d) for d in shape.split("x") if int(d)]
    g = generator(seed)
    signs = torch.randn(count, *dims, generator=g, dtype=torch.float64).sign()
    gradient = signs * log_uniform(g, 1e-8, 1, count, *dims)
    moment1 = gradient * uniform(g, -1, 1, count, *dims)
    moment2 = gradient**2 * uniform(g, 0.1, 3, count, *dims)
    parameter = uniform(g, -2, 2, count, *dims)
    drawn = {"parameter": parameter, "gradient": gradient, "moment1": moment1, "moment2": moment2}
    inputs: Inputs = {name: float32_exact(value) for name, value in drawn.items()}
    columns = inputs["parameter"][0].numel() if count else 1
    inputs["lr"] = float32_exact(uniform(g, 1e-4, 1e-1, columns)) if "columns" in options else 0.0125
    inputs["rows"] = torch.rand(count, generator=g) < 0.5 if "rows" in options else None
    return inputs | {"step": 1000 if "late" in options else 3}


def kernel_adam(
    parameter: Tensor, gradient: Tensor, moment1: Tensor, moment2: Tensor, lr: float | Tensor, **settings: Any
) -> Outputs:
    """The step, taken together with one of a parameter of another width."""
    changed = {"parameter": parameter.clone(), "moment1": moment1.clone(), "moment2": moment2.clone()}
    other = [torch.zeros(len(parameter), 5, dtype=parameter.dtype, device=parameter.device) for _ in range(4)]
    lists = zip((changed["parameter"], gradient, changed["moment1"], changed["moment2"]), other, strict=True)
    adam.adam_step(*map(list, lists), lr=[lr, 0.1], **settings)
    return changed


ADAM = Op(
    kernel=kernel_adam,
    plain=lambda **inputs: dict(zip(("parameter", "moment1", "moment2"), plain_adam.adam_step(**inputs), strict=True)),
    draw=draw_adam,
    cases=("0", "3", "3 rows", "16x3 columns", "16x3 columns rows late", "4 late"),
    smooth=lambda: draw_adam("3 columns rows", 1, 5),
    rows=("parameter", "gradient", "moment1", "moment2", "rows"),
)


# ----------------------------------------------------------------------------------------------------------- noise
def draw_perturb_means(case: str, seed: int, count: int) -> Inputs:
    made = made_scenes.gaussians(case, count, seed)
    g = generator(seed)
    drawn = {
        "means": made["means"],
        "quats": made["quats"],
        "log_scales": made["scales"].log(),
        "logit_opacities": made["opacities"].logit() - uniform(g, 0, 5, count),
    }
    return {name: float32_exact(value) for name, value in drawn.items()} | {"strength": 12.5, "seed": seed << 40}


def kernel_perturb_means(means: Tensor, **inputs: Any) -> Outputs:
    changed = means.clone()
    langevin.perturb_means(changed, **inputs)
    return {"means": changed}


PERTURB_MEANS = Op(
    kernel=kernel_perturb_means,
    plain=lambda **inputs: {"means": plain_langevin.perturb_means(**inputs)},
    draw=draw_perturb_means,
    cases=("mixed", "faint", "needles", "huge"),
    smooth=lambda: draw_perturb_means("mixed", 1, 4),
    rows=("means", "quats", "log_scales", "logit_opacities"),
)


# ----------------------------------------------------------------------------------------------------- activations
def draw_mean_activations(case: str, seed: int, count: int) -> Inputs:
    made = made_scenes.gaussians(case, count, seed)
    raw = {"log_scales": made["scales"].log(), "logit_opacities": made["opacities"].logit()}
    return {name: float32_exact(value) for name, value in raw.items()}


MEAN_ACTIVATIONS = Op(
    kernel=lambda **inputs: dict(zip(("scale", "opacity"), activations.mean_activations(**inputs), strict=True)),
    plain=lambda **inputs: dict(zip(("scale", "opacity"), plain_activations.mean_activations(**inputs), strict=True)),
    draw=draw_mean_activations,
    cases=("mixed", "opaque", "faint", "needles"),
    smooth=lambda: draw_mean_activations("mixed", 1, 5),
    gradients=("log_scales", "logit_opacities"),
    rows=("log_scales", "logit_opacities"),
)

# --------------------------------------------------------------------------------------------------------- anchors
HEADS = anchors.Heads._fields
OFF_ZERO = 1e-5  # rounding of a hidden unit or an opacity's logit is less; those nearer to zero may differ in sign


def draw_decode_anchors(case: str, seed: int, count: int) -> Inputs:
    """`case` is D, k and H, then options: two hidden layers, fading, a bias for each anchor, few Gaussians kept."""
    (d, k, h), options = map(int, case.split(" ")[:3]), case.split(" ")[3:]
    g = generator(seed)
    drawn: Inputs = {
        "anchors": uniform(g, -3, 3, count, 3),
        "features": uniform(g, -1, 1, count, d),
        "offsets": uniform(g, -1, 1, count, k, 3),
        "log_scales": uniform(g, -4, 1, count, 6),
        "centre": uniform(g, -4, 4, 3),
        "hidden": uniform(g, -0.4, 0.4, 3 * h, d + 4),
        "hidden_bias": uniform(g, -1, 1, *([count] if "own" in options else []), 3 * h),
        "middle": uniform(g, -0.4, 0.4, 3, h, h) if "middle" in options else None,
        "middle_bias": uniform(g, -1, 1, 3, h) if "middle" in options else None,
    }
    for name, outputs in {"opacity": k, "covariance": 7 * k, "colour": 3 * k}.items():
        drawn |= {name: uniform(g, -0.4, 0.4, outputs, h), f"{name}_bias": uniform(g, -0.5, 0.5, outputs)}
    if "few" in options:
        drawn["opacity_bias"] -= 3
    drawn["fade"] = uniform(g, -0.2, 1, count).clamp(0) if "fade" in options else None
    inputs = {name: None if value is None else float32_exact(value) for name, value in drawn.items()}
    heads = anchors.Heads(*(inputs[name] for name in HEADS))
    safe = plain_anchors.margin(inputs["anchors"], inputs["features"], heads, inputs["centre"]) > OFF_ZERO
    seen = torch.rand(count, generator=g) < 0.8
    return inputs | {"rows": (safe & seen).nonzero()[:, 0].to(torch.int32)}


def with_heads(**inputs: Any) -> Inputs:
    """The inputs with the weights as one argument."""
    heads = anchors.Heads(*(inputs.pop(name) for name in HEADS))
    return {**inputs, "heads": heads}


def kernel_decode_anchors(**inputs: Any) -> Outputs:
    decoded = anchors.decode_anchors(**with_heads(**inputs))
    return {**decoded._asdict(), "origin": decoded.origin.to(decoded.means.dtype)}  # exact below 2^24


def plain_decode_anchors(**inputs: Any) -> Outputs:
    decoded = plain_anchors.decode_anchors(**with_heads(**inputs))
    return {**decoded, "origin": decoded["origin"].to(decoded["means"].dtype)}


DECODE_ANCHORS = Op(
    kernel=kernel_decode_anchors,
    plain=plain_decode_anchors,
    draw=draw_decode_anchors,
    cases=(
        "32 10 32",
        "32 10 32 fade",
        "32 10 32 few",
        "96 10 32 middle",
        "0 10 32 own",
        "128 16 64 own middle fade",
        "5 1 16",
        "17 7 48",
    ),
    smooth=lambda: draw_decode_anchors("3 2 16 middle fade", 2, 5),
    gradients=("features", "offsets", "log_scales", *HEADS),
    rows=("anchors", "features", "offsets", "log_scales", "fade", "rows"),
    count=120,
    draws=5,
    many=3000,
)


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


# ------------------------------------------------------------------------------------------------------ neighbours
def draw_aggregate_neighbours(case: str, seed: int, count: int) -> Inputs:
    """`case` is the number of neighbours and of channels."""
    k, channels = map(int, case.split(" of "))
    g = generator(seed)
    indices, distances = plain_neighbours.nearest(uniform(g, 0, 1, count, 3), k)
    features = float32_exact(uniform(g, -1, 1, count, channels))
    return {"features": features, "neighbours": indices, "distances": float32_exact(distances)}


def with_graph(features: Tensor, neighbours: Tensor, distances: Tensor) -> Inputs:
    return {"features": features, "graph": aggregation.graph_of(neighbours, distances)}


AGGREGATE_NEIGHBOURS = Op(
    kernel=lambda **inputs: {"aggregated": aggregation.aggregate_neighbours(**inputs)},
    plain=lambda **inputs: {"aggregated": plain_neighbours.aggregate(**inputs)},
    draw=draw_aggregate_neighbours,
    cases=("10 of 32", "10 of 16", "5 of 7", "1 of 3", "3 of 41"),
    smooth=lambda: draw_aggregate_neighbours("3 of 2", 2, 6),
    gradients=("features",),
    rows=("features", "neighbours", "distances"),
    wide=("features",),
    prepare=with_graph,
    count=150,
    draws=4,
    many=700,
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


# ------------------------------------------------------------------------------- optimiser of what a gradient touches
def draw_adam_touched(case: str, seed: int, count: int) -> Inputs:
    """As `draw_adam`; "few" or "all" numbers are touched, and counts are "first" or any."""
    shape, *options = case.split(" ")
    inputs = draw_adam(" ".join([shape, *options]), seed, count)
    del inputs["rows"], inputs["step"]
    g = generator(seed + 1)
    size = inputs["gradient"].shape
    share = 0.1 if "few" in options else 1 if "all" in options else 0.5
    inputs["gradient"] = inputs["gradient"] * (torch.rand(size, generator=g) < share)
    most = 1 if "first" in options else 1500  # fewer than where counts stop
    return inputs | {"counts": torch.randint(0, most, size, generator=g, dtype=torch.int16)}


def kernel_adam_touched(
    parameter: Tensor, gradient: Tensor, moment1: Tensor, moment2: Tensor, counts: Tensor, lr: float | Tensor
) -> Outputs:
    """The step, taken together with one of another parameter that no gradient touches."""
    changed = {"parameter": parameter.clone(), "moment1": moment1.clone(), "moment2": moment2.clone()}
    after = counts.clone()
    other = [torch.zeros(len(parameter), 3, dtype=parameter.dtype, device=parameter.device) for _ in range(4)]
    lists = zip((changed["parameter"], gradient, changed["moment1"], changed["moment2"]), other, strict=True)
    none = torch.zeros(other[0].shape, dtype=torch.int16, device=parameter.device)
    adam.adam_step_touched(*map(list, lists), [after, none], lr=[lr, 0.1])
    assert not none.any()
    return {**changed, "counts": after.to(parameter.dtype)}


def plain_adam_touched(**inputs: Any) -> Outputs:
    parameter, moment1, moment2, counts = plain_adam.adam_step_touched(**inputs)
    return {"parameter": parameter, "moment1": moment1, "moment2": moment2, "counts": counts.to(parameter.dtype)}


ADAM_TOUCHED = Op(
    kernel=kernel_adam_touched,
    plain=plain_adam_touched,
    draw=draw_adam_touched,
    cases=("2", "2 few", "0", "8 all first", "3 columns", "5x2 columns few"),
    smooth=lambda: draw_adam_touched("3 columns", 1, 5),
    rows=("parameter", "gradient", "moment1", "moment2", "counts"),
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

OPS = {
    "project": PROJECT,
    "spherical_harmonics": SPHERICAL_HARMONICS,
    "decode_anchors": DECODE_ANCHORS,
    "composite": COMPOSITE,
    "contributions": CONTRIBUTIONS,
    "photometric": PHOTOMETRIC,
    "adam_step": ADAM,
    "perturb_means": PERTURB_MEANS,
    "mean_activations": MEAN_ACTIVATIONS,
    "hash_grid": HASH_GRID,
    "hash_grid_slopes": HASH_GRID_SLOPES,
    "probed_hash_grid": PROBED_HASH_GRID,
    "aggregate_neighbours": AGGREGATE_NEIGHBOURS,
    "composite_rays": COMPOSITE_RAYS,
    "distortion": DISTORTION,
    "mlp": MLP,
    "adam_step_touched": ADAM_TOUCHED,
    "spherical_harmonics_basis": DIRECTIONS,
}
pytestmark = pytest.mark.usefixtures("one_torch_thread")
EACH_OP = pytest.mark.parametrize("op", OPS.values(), ids=OPS)
EACH_CASE = pytest.mark.parametrize(("name", "case"), [(name, case) for name, op in OPS.items() for case in op.cases])


# -------------------------------------------------------------------------------------------------------- machinery
def cast(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    """The inputs with every floating tensor in `dtype`."""
    return {k: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in inputs.items()}


def cotangent(name: str, value: Tensor) -> Tensor:
    """A random gradient to the output `name`, the same for all precisions."""
    drawn = torch.randn(value.shape, generator=generator(zlib.crc32(name.encode())), dtype=torch.float64)
    return float32_exact(drawn).to(value.dtype)


def evaluate(function: Callable[..., Outputs], op: Op, inputs: Inputs) -> Outputs:
    """The outputs, and the gradients to the op's inputs as v_<name>."""
    leaves = {n: inputs[n].detach().clone().requires_grad_() for n in op.gradients if inputs[n] is not None}
    outputs = function(**{**inputs, **leaves})
    results = {name: value.detach() for name, value in outputs.items()}
    if leaves:
        ends = {name: value for name, value in outputs.items() if value.requires_grad}
        starts = [cotangent(name, value) for name, value in ends.items()]
        found = torch.autograd.grad(
            list(ends.values()), list(leaves.values()), starts, allow_unused=True, materialize_grads=True
        )
        results |= {f"v_{name}": gradient for name, gradient in zip(leaves, found, strict=True)}
    return results


def evaluate_kernel(op: Op, inputs: Inputs) -> Outputs:
    """As `evaluate`, of the product's function."""
    return evaluate(op.kernel, op, op.prepare(**inputs))


@functools.cache
def references(name: str, case: str) -> tuple[list[Inputs], list[Outputs], list[Outputs]]:
    """Inputs, float32 results and float64 results of the plain reference, for each draw."""
    op = OPS[name]
    drawn = [op.draw(case, seed, op.count) for seed in range(op.draws)]
    plain, exact = (
        [evaluate(op.plain, op, cast(inputs, dtype)) for inputs in drawn] for dtype in (torch.float32, torch.float64)
    )
    return drawn, plain, exact


@pytest.fixture
def native_settings() -> Iterator[None]:
    """Puts threads and instruction set back after the test."""
    threads, best = native.threads(), native.instruction_set()
    yield
    native.set_threads(threads)
    native.set_instruction_set(best)


# ------------------------------------------------------------------------------------------------------------ tests
@EACH_CASE
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("instruction_set", native.instruction_sets())
@pytest.mark.usefixtures("native_settings")
def test_as_good_as_the_plain_reference(instruction_set: str, dtype: torch.dtype, name: str, case: str) -> None:
    native.set_instruction_set(instruction_set)
    drawn, plain, exact = references(name, case)
    results = [evaluate_kernel(OPS[name], cast(inputs, dtype)) for inputs in drawn]
    assert all(value.dtype == dtype for value in results[0].values())
    assert_as_good_as_plain(results, plain, exact)


@pytest.mark.parametrize("op", [op for op in OPS.values() if op.gradients], ids=[n for n in OPS if OPS[n].gradients])
def test_gradcheck(op: Op) -> None:
    inputs = op.prepare(**op.smooth())

    def function(*leaves: Tensor) -> tuple[Tensor, ...]:
        outputs = op.kernel(**{**inputs, **dict(zip(op.gradients, leaves, strict=True))})
        return tuple(value for value in outputs.values() if value.requires_grad)

    leaves = [inputs[name].clone().requires_grad_() for name in op.gradients]
    assert torch.autograd.gradcheck(function, leaves)


class Recorder(TorchDispatchMode):
    """Remembers the product's registered operations as they are called, with copies of their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "anchorfield":
            copied = pytree.tree_map_only(Tensor, own_copy, (args, kwargs or {}))
            self.calls[str(func)] = (func, *copied)
        return func(*args, **(kwargs or {}))


def own_copy(value: Tensor) -> Tensor:
    """The same numbers in a leaf of its own."""
    return value.detach().clone().requires_grad_(value.requires_grad)


@EACH_OP
def test_opcheck(op: Op) -> None:
    """Schema, fake implementation, autograd and compilation of each registered operation, backward ones included."""
    with Recorder() as recorder:
        evaluate_kernel(op, cast(op.smooth(), torch.float32))
    assert recorder.calls
    for function, args, kwargs in recorder.calls.values():
        torch.library.opcheck(function, args, kwargs)


@EACH_OP
@pytest.mark.usefixtures("native_settings")
def test_independent_of_the_number_of_threads(op: Op) -> None:
    inputs = cast(op.draw(op.cases[0], 0, op.many), torch.float32)
    native.set_threads(1)
    expected = evaluate_kernel(op, inputs)
    for threads in (2, 3):
        native.set_threads(threads)
        for name, value in evaluate_kernel(op, inputs).items():
            assert torch.equal(value, expected[name]), f"{name} changes with {threads} threads"


@pytest.mark.parametrize("op", [op for op in OPS.values() if op.rows], ids=[n for n in OPS if OPS[n].rows])
def test_empty(op: Op) -> None:
    inputs = cast(op.smooth(), torch.float32)
    empty = {name: inputs[name][:0] if name in op.rows else value for name, value in inputs.items()}
    got, expected = evaluate_kernel(op, empty), evaluate(op.plain, op, empty)
    assert {k: v.shape for k, v in got.items()} == {k: v.shape for k, v in expected.items()}
    assert all(torch.isfinite(value).all() for value in got.values())


def strided(value: Any) -> Any:
    """The same numbers with gaps between them in memory."""
    if not isinstance(value, Tensor):
        return value
    return torch.stack([value, torch.zeros_like(value)], -1)[..., 0] if value.ndim else value


@EACH_OP
def test_non_contiguous(op: Op) -> None:
    inputs = op.prepare(**cast(op.draw(op.cases[0], 0, 10), torch.float32))
    gaps = {name: strided(value) for name, value in inputs.items()}
    assert not all(v.is_contiguous() for v in gaps.values() if isinstance(v, Tensor))
    expected = op.kernel(**inputs)
    for name, value in op.kernel(**gaps).items():
        assert torch.equal(value, expected[name]), name


CORRUPTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "an axis too many": lambda t: t[None],
    "an axis too few": lambda t: t.select(-1, 0),
    "too wide": lambda t: torch.cat([t, t], -1),
    "integers": lambda t: t.to(torch.int64),
    "another precision": lambda t: t.to(torch.float64) if t.is_floating_point() else t.to(torch.float32),
    "another device": lambda t: t.to("meta"),
}
RELATIVE = {"another precision", "another device"}  # than the other tensors, where there are any
CORRUPTED = [
    (name, argument, corruption)
    for name, op in OPS.items()
    for tensors in [[k for k, v in op.prepare(**cast(op.smooth(), torch.float32)).items() if isinstance(v, Tensor)]]
    for argument in tensors
    for corruption in CORRUPTIONS
    if not (corruption == "too wide" and argument in op.wide)
    if not (corruption in RELATIVE and len(tensors) == 1)
]


@pytest.mark.parametrize(("name", "argument", "corruption"), CORRUPTED)
def test_wrong_input_is_refused_with_words(name: str, argument: str, corruption: str) -> None:
    op = OPS[name]
    inputs = op.prepare(**cast(op.smooth(), torch.float32))
    wrong = {**inputs, argument: CORRUPTIONS[corruption](inputs[argument])}
    with pytest.raises((ValueError, TypeError), match=r"(?s)expected.*got") as caught:
        op.kernel(**wrong)
    # the first argument sets the measure for the others: a fault in it may show in one of them
    assert argument in str(caught.value) or argument == next(iter(inputs))
