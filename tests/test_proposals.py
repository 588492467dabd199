"""Proposals: the scale on which space is finite, how samples follow weights, and that they find what is there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from anchorfield.renderer.proposals import FAR, SAMPLES, Histogram, Proposals, bound, distance_at, resampled, spacing
from anchorfield.renderer.raymarching import UnitRays, points_of
from reference.made_scenes import generator

pytestmark = pytest.mark.usefixtures("one_torch_thread")
RAYS = 64


def histogram(bins: int, seed: int, dtype: torch.dtype = torch.float64) -> Histogram:
    """Random steps with random weights, some of them none."""
    g = generator(seed)
    edges = torch.rand(RAYS, bins + 1, generator=g, dtype=dtype).sort(1).values
    weights = torch.rand(RAYS, bins, generator=g, dtype=dtype).sub(0.3).clamp_min(0)
    return Histogram(edges, weights / weights.sum(1, keepdim=True).clamp_min(1))


@given(st.lists(st.floats(0, 1e4), min_size=2, max_size=20))
def test_the_finite_scale_rises_and_has_an_inverse(distances: list[float]) -> None:
    ascending = torch.tensor(distances, dtype=torch.float64).sort().values
    spaced = spacing(ascending)
    assert bool(((spaced >= 0) & (spaced < 1)).all())
    assert bool((spaced.diff() >= 0).all())
    torch.testing.assert_close(distance_at(spaced), ascending, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("count", [1, 7, 40])
def test_samples_follow_the_weights(count: int) -> None:
    """Each step holds as much of what is to be shared out, by numpy's interpolation of the inverse distribution."""
    given_, jitter = histogram(12, 1), torch.rand(RAYS, generator=generator(2), dtype=torch.float64)
    found = resampled(given_, count, jitter, 1.0)
    assert found.shape == (RAYS, count + 1)
    assert bool((found.diff(dim=1) >= 0).all())
    for edges, weights, offset, ours in zip(given_.edges, given_.weights, jitter, found, strict=True):
        lengths = edges.diff()
        shares = weights / weights.sum().clamp_min(1e-6) + 0.1 * lengths / lengths.sum()
        below = np.concatenate([[0], np.cumsum(shares.numpy())])
        wanted = (np.arange(count + 1) + float(offset)) / (count + 1) * below[-1]
        np.testing.assert_allclose(ours.numpy(), np.interp(wanted, below, edges.numpy()), atol=1e-9)


def test_weights_without_power_are_not_followed() -> None:
    """At first all steps are alike, whatever the proposals say."""
    edges = torch.linspace(0.1, 0.9, 17).expand(RAYS, 17)
    weights = torch.zeros(RAYS, 16)
    weights[:, 3] = 1
    found = resampled(Histogram(edges, weights), 8, torch.full((RAYS,), 0.5), 0.0)
    torch.testing.assert_close(found.diff(dim=1), torch.full((RAYS, 8), 0.8 / 9))


def test_a_bound_is_what_the_plain_sum_says() -> None:
    """Equation 13, bin by bin: weights of all of a proposal's bins that a step touches."""
    proposal, found = histogram(9, 3), histogram(5, 4)
    total = 0.0
    for row in range(RAYS):
        for i in range(5):
            low, high = found.edges[row, i : i + 2].tolist()
            outer = 0.0
            for j in range(9):
                begin, end = proposal.edges[row, j : j + 2].tolist()
                outer += proposal.weights[row, j].item() if begin < high and end > low else 0.0
            weight = found.weights[row, i].item()
            total += max(0.0, weight - outer) ** 2 / (weight + 1e-7)
    assert bound(proposal, found).item() == pytest.approx(total / (5 * RAYS), rel=1e-6)
    assert total > 0


def test_a_coarser_histogram_of_the_same_misses_nothing() -> None:
    fine = histogram(12, 5)
    coarse = Histogram(fine.edges[:, ::3].contiguous(), fine.weights.view(RAYS, 4, 3).sum(2))
    assert bound(coarse, fine).item() < 1e-20
    thin = Histogram(coarse.edges, 0.5 * coarse.weights)
    assert bound(thin, fine).item() > 1e-4


def rays(count: int, seed: int = 0) -> UnitRays:
    """From around the unit cube to points in it."""
    g = generator(seed)
    origins = 0.5 + torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=1)
    towards = 0.5 + 0.2 * torch.randn(count, 3, generator=g) - origins
    directions = torch.nn.functional.normalize(towards, dim=1)
    return UnitRays(origins, directions, torch.full((count,), 0.05), torch.full((count,), 0.01))


def test_steps_reach_from_near_to_far_and_move_only_proposals() -> None:
    proposals, given_ = Proposals(generator(0)), rays(RAYS)
    given_.origins.requires_grad_()
    proposed = proposals(given_, torch.rand(RAYS, 3, generator=generator(1)))
    first = proposed.rounds[0].edges
    torch.testing.assert_close(first[:, 0], spacing(given_.near))
    torch.testing.assert_close(first[:, -1], spacing(torch.tensor(FAR)).expand(RAYS))
    for edges in (first, proposed.rounds[1].edges, proposed.edges):
        assert bool((edges.diff(dim=1) >= 0).all())
        assert not edges.requires_grad
    weights = torch.zeros(RAYS, SAMPLES)
    weights[:, SAMPLES // 2] = 0.9
    weights = weights.flatten().requires_grad_()
    proposed.loss(weights).backward()
    assert weights.grad is None
    assert given_.origins.grad is None
    for name, parameter in proposals.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name
    samples = proposed.samples
    assert samples.starts.tolist() == list(range(0, RAYS * SAMPLES + 1, SAMPLES))
    assert bool((samples.t1 >= samples.t0).all())


def ball(points: Tensor) -> Tensor:
    """Opaque within 0.3 of the middle, and beyond 3."""
    distance = (points - 0.5).norm(dim=1)
    return torch.where((distance < 0.3) | (distance > 3), 60.0, 0.0)


def test_samples_gather_where_something_is_found() -> None:
    """Of a ball before a far wall, proposals learn from weights alone where rays end."""
    proposals = Proposals(generator(0))
    optimiser = torch.optim.Adam(proposals.parameters(), 3e-3, eps=1e-15)
    for step in range(150):
        given_ = rays(256, step)
        proposed = proposals(given_, torch.rand(256, 3, generator=generator(step)))
        optical = ball(points_of(given_, proposed.samples)) * (proposed.samples.t1 - proposed.samples.t0)
        optical = optical.view(256, -1)
        before = torch.nn.functional.pad(optical.cumsum(1), (1, 0))[:, :-1]
        weights = torch.exp(-before) * (1 - torch.exp(-optical))
        optimiser.zero_grad()
        proposed.loss(weights.flatten()).backward()
        optimiser.step()
    seen = rays(500, 1000)
    with torch.no_grad():
        trained, untrained = (p(seen).samples for p in (proposals, Proposals(generator(0))))
    # Where the ray enters the ball or the wall, from the equation of the sphere.
    along = ((0.5 - seen.origins) * seen.directions).sum(1)
    aside = ((0.5 - seen.origins).square().sum(1) - along.square()).clamp_min(0)
    end = torch.where(aside < 0.09, along - (0.09 - aside).clamp_min(0).sqrt(), along + (9 - aside).sqrt())
    nearby = [
        float(((s.middles.view(500, -1) / end[:, None] - 1).abs() < 0.1).float().mean()) for s in (trained, untrained)
    ]
    assert nearby[0] > 3 * nearby[1], nearby
