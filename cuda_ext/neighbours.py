"""Features aggregated over a nearest-neighbour graph (Ververas et al. 2024)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from anchorfield.cuda_ext import _kernels
from anchorfield.cuda_ext._checks import check

LEAST_DISTANCE = 1e-12  # what coincident points count as apart: their inverse distance stays finite


class Graph(NamedTuple):
    """Who is whose neighbour, in both directions; made by `graph_of`, which checks that every index is in range.

    Edge i * K + e leads from point i to its neighbour in column e. Without gradient.
    """

    neighbours: Tensor  # [N, K] int32; column 0 is the point itself
    weights: Tensor  # [N, K] inverse distances, each row divided by its sum; 0 in column 0
    starts: Tensor  # [N + 1] int32 into the arrivals: those at point j are starts[j] to starts[j + 1] - 1
    arrivals: Tensor  # [N * K] int32 edges, by the point where they arrive, then by their number


@torch.no_grad()
def graph_of(
    neighbours: Tensor,  # [N, K] int32
    distances: Tensor,  # [N, K] column 0 is not read
) -> Graph:
    """The graph of points and their neighbours; column 0 of `neighbours` must be the point itself."""
    sizes = check(distances=(distances, ("N", "K")))
    shape = count, width = sizes["N"], sizes["K"]
    if neighbours.dtype != torch.int32 or neighbours.device != distances.device:
        raise TypeError(
            f"neighbours: expected int32 on {distances.device}, got {neighbours.dtype} on {neighbours.device}"
        )
    if tuple(neighbours.shape) != shape or width == 0 or count * width >= 2**31:
        raise ValueError(
            f"neighbours: expected shape {list(shape)} as distances, 1 to 2^31 - 1 edges, got {list(neighbours.shape)}"
        )
    neighbours = neighbours.contiguous()
    if count and (int(neighbours.min()) < 0 or int(neighbours.max()) >= count):
        found = f"{int(neighbours.min())} to {int(neighbours.max())}"
        raise ValueError(f"neighbours: expected indices 0 to {count - 1}, got {found}")
    points = torch.arange(count, dtype=torch.int32, device=neighbours.device)
    if not torch.equal(neighbours[:, 0], points):
        wrong = int((neighbours[:, 0] != points).nonzero()[0])
        raise ValueError(
            f"neighbours: expected each point itself in column 0, got {int(neighbours[wrong, 0])} in row {wrong}"
        )
    inverse = 1 / distances.clamp_min(LEAST_DISTANCE)
    inverse[:, 0] = 0
    weights = inverse / inverse.sum(1, keepdim=True).clamp_min(torch.finfo(inverse.dtype).tiny)  # K = 1: no neighbour
    order = neighbours.flatten().argsort(stable=True).int()
    arrived = torch.bincount(neighbours.flatten(), minlength=count).cumsum(0).int()
    return Graph(neighbours, weights, torch.cat([arrived.new_zeros(1), arrived]), order)


def aggregate_neighbours(
    features: Tensor,  # [N, D]
    graph: Graph,
) -> Tensor:
    """Each point's feature plus half the mean of its neighbours' weighted messages, [N, D].

    The message of j is d_j = max (f_j - f_i) over the points i that list j, itself among them, channel by channel;
    hence d_j >= 0. Point i becomes f_i + 0.5 / K * sum_e w_ie d_j with j its neighbour in column e. Differentiable in
    `features`; of equal differences the first in `graph.arrivals` gets the gradient.
    """
    check(features=(features, ("N", "D")), weights=(graph.weights, ("N", "K")))
    aggregated: Tensor = _aggregate_neighbours(features, *graph)[0]
    return aggregated


def _empty_outputs(features: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    """Room for the result, and for the edges whose differences are the messages."""
    return features.new_empty(features.shape), features.new_empty(features.shape, dtype=torch.int32)


@torch.library.custom_op("anchorfield::aggregate_neighbours", mutates_args=(), device_types="cpu")
def _aggregate_neighbours(
    features: Tensor, neighbours: Tensor, weights: Tensor, starts: Tensor, arrivals: Tensor
) -> tuple[Tensor, Tensor]:
    aggregated, edges = _empty_outputs(features)
    inputs = [t.detach().contiguous() for t in (features, neighbours, weights, starts, arrivals)]
    _kernels.aggregate_neighbours(*inputs, aggregated, edges)
    return aggregated, edges


@torch.library.custom_op("anchorfield::aggregate_neighbours_backward", mutates_args=(), device_types="cpu")
def _aggregate_neighbours_backward(
    neighbours: Tensor, weights: Tensor, starts: Tensor, arrivals: Tensor, edges: Tensor, v_aggregated: Tensor
) -> Tensor:
    v_features = v_aggregated.new_empty(v_aggregated.shape)
    inputs = [t.detach().contiguous() for t in (neighbours, weights, starts, arrivals, edges, v_aggregated)]
    _kernels.aggregate_neighbours_backward(*inputs, v_features)
    return v_features


@_aggregate_neighbours_backward.register_fake
def _(*inputs: Tensor) -> Tensor:
    return inputs[-1].new_empty(inputs[-1].shape)


def _setup(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*inputs[1:], output[1])


def _backward(ctx: Any, v_aggregated: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    return _aggregate_neighbours_backward(*ctx.saved_tensors, v_aggregated), None, None, None, None


_aggregate_neighbours.register_fake(_empty_outputs)
_aggregate_neighbours.register_autograd(_backward, setup_context=_setup)
