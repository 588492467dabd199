"""What anchors are decoded from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from anchorfield.cuda_ext import (
    anchors,
)
from anchorfield.cuda_ext import neighbours as aggregation
from operations._op import OFF_ZERO, Inputs, Op, Outputs
from reference import anchors as plain_anchors
from reference import neighbours as plain_neighbours
from reference.made_scenes import float32_exact, generator, uniform

# --------------------------------------------------------------------------------------------------------- anchors
HEADS = anchors.Heads._fields


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
