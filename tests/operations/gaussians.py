"""From Gaussians to the image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from anchorfield.cuda_ext import (
    binning,
    compositing,
    projection,
    spherical_harmonics,
)
from operations._op import Inputs, Op, Outputs
from reference import compositing as plain_compositing
from reference import made_scenes
from reference import projection as plain_projection
from reference import spherical_harmonics as plain_spherical_harmonics
from reference.made_scenes import CAMERA, CHARACTERS, float32_exact, generator, uniform


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
