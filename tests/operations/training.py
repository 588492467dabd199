"""What a training step does beside the image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from anchorfield.cuda_ext import (
    activations,
    adam,
    langevin,
    ssim,
)
from operations._op import Inputs, Op, Outputs
from reference import activations as plain_activations
from reference import adam as plain_adam
from reference import langevin as plain_langevin
from reference import made_scenes
from reference import ssim as plain_ssim
from reference.made_scenes import float32_exact, generator, log_uniform, uniform


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
