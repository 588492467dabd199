"""Messages over a graph of 10 nearest neighbours, 32 channels: each pass reads ten rows of a point twice."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from anchorfield.cuda_ext.neighbours import aggregate_neighbours, graph_of
from anchorfield.renderer.neighbours import nearest_neighbours
from bench import _table
from bench._operations import FLOAT, Operation, Stages, backward, forward

K, CHANNELS = 10, 32


def operations(stages: Stages) -> Iterator[Operation]:
    """Random points along one axis, as voxels come; in any other order rows are not in the cache: twice the time."""
    count, g = stages.count, torch.Generator().manual_seed(0)
    points = torch.rand(count, 3, generator=g)
    points = points[points[:, 0].argsort()]
    neighbours, distances = nearest_neighbours(points, K)
    graph = graph_of(neighbours, distances)
    features = torch.randn(count, CHANNELS, generator=g).requires_grad_()
    lanes = 2.0 * count * K * CHANNELS  # the comparison and the sum of each edge
    traffic = 3.0 * FLOAT * count * (CHANNELS + K)  # both sides, the edges between; neighbours, weights, arrivals
    yield Operation("aggregation", forward(lambda: aggregate_neighbours(features, graph)), lanes, traffic)
    result = aggregate_neighbours(features, graph)
    yield Operation("aggregation backward", backward(result, (features,)), lanes, traffic)
    yield Operation("graph", lambda: graph_of(neighbours, distances), traffic=6.0 * FLOAT * count * K)


if __name__ == "__main__":
    _table.main(operations)
