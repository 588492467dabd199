"""Nearest neighbours, their graph, and what must hold of features aggregated over it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from anchorfield.cuda_ext.neighbours import Graph, aggregate_neighbours, graph_of
from anchorfield.renderer.neighbours import nearest_neighbours
from reference import neighbours as plain
from reference.made_scenes import generator, uniform

pytestmark = pytest.mark.usefixtures("one_torch_thread")
DOUBLE = torch.float64


def made_graph(count: int, k: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    return plain.nearest(uniform(generator(seed), 0, 1, count, 3), k)


def int32(rows: list[list[int]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.int32)


# -------------------------------------------------------------------------------------------------------- searching
@given(count=st.integers(1, 60), k=st.integers(1, 12), seed=st.integers(0, 2**31))
def test_neighbours_are_those_of_all_pairs(count: int, k: int, seed: int) -> None:
    points = uniform(generator(seed), 0, 1, count, 3)
    indices, distances = nearest_neighbours(points, min(k, count))
    expected, expected_distances = plain.nearest(points, min(k, count))
    assert indices.dtype == torch.int32
    assert torch.equal(indices, expected)
    torch.testing.assert_close(distances, expected_distances)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 9])
def test_a_point_comes_first_among_its_duplicates(k: int) -> None:
    points = uniform(generator(1), 0, 1, 3, 3)[[0, 1, 0, 2, 0, 1, 0, 0, 1]].float()
    indices, distances = nearest_neighbours(points, k)
    assert torch.equal(indices[:, 0], torch.arange(9, dtype=torch.int32))
    assert all(len(set(row)) == k for row in indices.tolist())
    own = (points[indices.long()] - points[:, None]).norm(dim=-1)
    torch.testing.assert_close(distances, own)
    torch.testing.assert_close(distances.double(), plain.nearest(points.double(), k)[1], rtol=1e-5, atol=1e-6)
    assert distances.dtype == torch.float32


@pytest.mark.parametrize("k", [0, 4])
def test_too_few_points_are_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"k: expected 1 to 3, the number of points, got {k}"):
        nearest_neighbours(torch.zeros(3, 3), k)


# ------------------------------------------------------------------------------------------------------------ graph
def test_a_graph_by_hand() -> None:
    graph = graph_of(int32([[0, 1, 2], [1, 2, 0], [2, 1, 0]]), torch.tensor([[0, 1.0, 3.0], [0, 2, 2], [0, 0.5, 1]]))
    expected = torch.tensor([[0, 0.75, 0.25], [0, 0.5, 0.5], [0, 2 / 3, 1 / 3]])
    torch.testing.assert_close(graph.weights, expected)
    assert graph.starts.tolist() == [0, 3, 6, 9]
    assert graph.arrivals.tolist() == [0, 5, 8, 1, 3, 7, 2, 4, 6]


@given(count=st.integers(1, 40), k=st.integers(1, 9), seed=st.integers(0, 2**31))
def test_every_edge_arrives_once_and_in_order(count: int, k: int, seed: int) -> None:
    neighbours, distances = made_graph(count, min(k, count), seed)
    graph = graph_of(neighbours, distances)
    for j in range(count):
        arrivals = graph.arrivals[graph.starts[j] : graph.starts[j + 1]].tolist()
        assert arrivals == (neighbours.flatten() == j).nonzero()[:, 0].tolist()
    torch.testing.assert_close(graph.weights.sum(1), torch.full((count,), float(k > 1 and count > 1), dtype=DOUBLE))
    assert not graph.weights[:, 0].any()


def test_coincident_points_have_finite_weights() -> None:
    graph = graph_of(int32([[0, 1, 2], [1, 0, 2], [2, 1, 0]]), torch.tensor([[0, 0, 1.0], [0, 0, 1], [0, 1, 1]]))
    assert torch.isfinite(graph.weights).all()
    assert graph.weights[0, 1] == pytest.approx(1)
    assert 0 < graph.weights[0, 2] < 1e-11


GOOD: dict[str, Any] = {"neighbours": int32([[0, 1], [1, 0]]), "distances": torch.ones(2, 2)}


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        ({"neighbours": torch.zeros(2, 2)}, TypeError, "neighbours: expected int32 on cpu, got torch.float32"),
        ({"neighbours": GOOD["neighbours"].long()}, TypeError, "neighbours: expected int32 on cpu, got torch.int64"),
        ({"neighbours": int32([[0], [1]])}, ValueError, r"neighbours: expected shape \[2, 2\].*, got \[2, 1\]"),
        ({"neighbours": int32([[0, 2], [1, 0]])}, ValueError, "neighbours: expected indices 0 to 1, got 0 to 2"),
        ({"neighbours": int32([[0, -1], [1, 0]])}, ValueError, "neighbours: expected indices 0 to 1, got -1 to 1"),
        ({"neighbours": int32([[0, 1], [0, 1]])}, ValueError, "expected each point itself in column 0, got 0 in row 1"),
        ({"distances": torch.ones(2)}, ValueError, r"distances: expected shape \[N, K\], got \[2\]"),
        ({"distances": torch.ones(2, 0), "neighbours": int32([[], []])}, ValueError, "1 to 2.31 - 1 edges"),
    ],
)
def test_a_wrong_graph_is_refused_with_words(changed: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        graph_of(**{**GOOD, **changed})


def test_a_graph_of_other_points_is_refused() -> None:
    graph = graph_of(*made_graph(5, 3))
    with pytest.raises(ValueError, match=r"weights: expected shape \[N, K\] \(N = 4 from features\), got \[5, 3\]"):
        aggregate_neighbours(torch.zeros(4, 2, dtype=DOUBLE), graph)


# ------------------------------------------------------------------------------------------------------ aggregation
def chain() -> Graph:
    """0 lists 1, 1 lists 2, 2 lists 1."""
    return graph_of(int32([[0, 1], [1, 2], [2, 1]]), torch.ones(3, 2, dtype=DOUBLE))


def test_three_points_by_hand() -> None:
    features = torch.tensor([[1.0, 5.0], [3.0, 4.0], [2.0, 7.0]], dtype=DOUBLE)
    # listed by 0, 1 and 2, point 1 differs most from 0 in the first channel and from itself in the second; 2 from 1
    messages = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 3.0]], dtype=DOUBLE)
    expected = features + 0.25 * messages[[1, 2, 1]]
    torch.testing.assert_close(aggregate_neighbours(features, chain()), expected)


def test_of_equal_differences_the_first_to_arrive_has_the_gradient() -> None:
    features = torch.zeros(3, 1, dtype=DOUBLE, requires_grad=True)
    (gradient,) = torch.autograd.grad(aggregate_neighbours(features, chain())[0, 0], features)
    assert gradient[:, 0].tolist() == [1 - 0.25, 0.25, 0]  # 0, 1 and 2 list 1: the edge from 0 is the first


def test_a_neighbour_that_is_listed_twice_counts_twice() -> None:
    features = torch.tensor([[1.0], [3.0]], dtype=DOUBLE, requires_grad=True)
    twice = graph_of(int32([[0, 1, 1], [1, 0, 0]]), torch.ones(2, 3, dtype=DOUBLE))
    out = aggregate_neighbours(features, twice)
    assert out[:, 0].tolist() == pytest.approx([1 + 0.5 / 3 * 2, 3.0])
    (gradient,) = torch.autograd.grad(out[0, 0], features)
    assert gradient[:, 0].tolist() == pytest.approx([1 - 0.5 / 3, 0.5 / 3])


@given(count=st.integers(1, 50), k=st.integers(1, 9), channels=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_aggregation_is_that_over_all_pairs(count: int, k: int, channels: int, seed: int) -> None:
    neighbours, distances = made_graph(count, min(k, count), seed)
    features = uniform(generator(seed), -1, 1, count, channels)
    out = aggregate_neighbours(features, graph_of(neighbours, distances))
    torch.testing.assert_close(out, plain.aggregate(features, neighbours, distances))
    assert (out >= features).all(), "messages are never negative"


@given(seed=st.integers(0, 2**31))
def test_the_order_of_points_does_not_matter(seed: int) -> None:
    g = generator(seed)
    points, features = uniform(g, 0, 1, 40, 3), uniform(g, -1, 1, 40, 5)
    shuffled = torch.randperm(40, generator=g)
    out, again = (
        aggregate_neighbours(features[order], graph_of(*nearest_neighbours(points[order], 6)))
        for order in (torch.arange(40), shuffled)
    )
    torch.testing.assert_close(again, out[shuffled])


def test_equal_features_stay_as_they_are() -> None:
    features = uniform(generator(7), -1, 1, 1, 33).expand(50, 33)
    assert torch.equal(aggregate_neighbours(features, graph_of(*made_graph(50, 5))), features)
