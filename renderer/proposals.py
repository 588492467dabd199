"""Where along rays to sample where space has no end: small fields propose, in rounds, what the large one is asked.

Barron et al. 2022 (mip-NeRF 360), sections 3 and 4, with hash grids for the proposals as Tancik et al. 2023 have them
(nerfacto). Distances are measured on a scale on which space is finite: x / 2 up to one side of the unit cube, then
1 - 1 / (2 x).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from anchorfield.cuda_ext.hash_grid import HashGrid
from anchorfield.cuda_ext.marching import Samples
from anchorfield.cuda_ext.mlp import MlpLayout, mlp
from anchorfield.cuda_ext.rays import composite_rays, distortion
from anchorfield.renderer.encodings import HashEncoding
from anchorfield.renderer.fields import FIRST_LOG_CONTRACTED, contract, exponential
from anchorfield.renderer.raymarching import UnitRays, points_of

ROUNDS = ((64, 128), (48, 256))  # samples of a ray, and vertices along an axis of the proposal's finest grid
SAMPLES = 32  # of a ray, at last
WIDTH = 16  # of the proposals' perceptrons
LEVELS, COARSEST, LOG2_TABLE_SIZE = 5, 16, 17  # of their grids
FAR = 1000.0  # where rays end, in sides of the unit cube
WEIGHTS_RATE, TABLE_RATE = 0.2, 0.3  # learning rates over the large field's: at its own, proposals fall apart
PADDING = 0.1  # of a ray's samples that go anywhere, as a share of those that go where light is stopped
SLOPE, ANNEALED = 10.0, 0.1  # of the bias of weights' power, and the share of the budget until it is 1


@dataclass(frozen=True)
class Histogram:
    """How much each step of a ray adds to what it shows."""

    edges: Tensor  # [R, N + 1] between near and far, ascending, on the finite scale
    weights: Tensor  # [R, N]


@dataclass(frozen=True)
class Proposed:
    """What the large field is asked, and the rounds that led there."""

    edges: Tensor  # [R, N + 1] on the finite scale
    rounds: list[Histogram]

    @property
    def samples(self) -> Samples:
        """The steps, packed."""
        return packed(self.edges)

    def loss(self, weights: Tensor) -> Tensor:
        """By how much the rounds miss what the large field found at these steps [S]; moves only the proposals."""
        found = Histogram(self.edges, weights.detach().view(len(self.edges), -1))
        return torch.stack([bound(proposal, found) for proposal in self.rounds]).sum()

    def spread(self, weights: Tensor) -> Tensor:
        """How far apart what rays see lies, their mean, on the finite scale (Barron et al. 2022, equation 15)."""
        t0, t1 = self.edges[:, :-1].reshape(-1), self.edges[:, 1:].reshape(-1)
        return distortion(weights, t0, t1, _starts(self.edges)).mean()


class ProposalField(nn.Module):
    """A density that is cheap to ask for, in all of space."""

    def __init__(self, finest: int, random: torch.Generator | None = None):
        super().__init__()
        self.encoding = HashEncoding(
            HashGrid.up_to(finest, LEVELS, COARSEST, features=2, log2_table_size=LOG2_TABLE_SIZE), random
        )
        self.layout = MlpLayout(self.encoding.size, 1, WIDTH, hidden=1)
        self.weights = nn.Parameter(self.layout.initial(random))

    def density(self, points: Tensor) -> Tensor:
        """Densities [N] at points [N, 3] of the unit cube and around it."""
        said = mlp(self.encoding(contract(points)), self.weights, self.layout)
        return exponential(said[:, 0] + FIRST_LOG_CONTRACTED)

    def forward(self, rays: UnitRays, edges: Tensor) -> Histogram:
        """What rays see in steps between these edges [R, N + 1]."""
        samples = packed(edges)
        optical = self.density(points_of(rays, samples)) * (samples.t1 - samples.t0)
        weights = composite_rays(optical, optical.detach()[:, None], samples.starts)[2]
        return Histogram(edges, weights.view(len(edges), -1))


class Proposals(nn.Module):
    """Fields that propose, from coarse to fine."""

    def __init__(self, random: torch.Generator | None = None):
        super().__init__()
        self.fields = nn.ModuleList(ProposalField(finest, random) for _, finest in ROUNDS)
        self.touched = tuple(f"fields.{i}.encoding.table" for i in range(len(ROUNDS)))  # as an encoding's

    def rates(self) -> dict[str, float]:
        """By how much the learning rates of parameters differ from the large field's."""
        return {name: TABLE_RATE if name in self.touched else WEIGHTS_RATE for name, _ in self.named_parameters()}

    def forward(
        self,
        rays: UnitRays,
        jitter: Tensor | None = None,  # [R, rounds + 1] in [0, 1); None: none, for pictures
        power: float = 1.0,  # of weights that samples are drawn by
    ) -> Proposed:
        """Steps for each of the rays; differentiable in the proposals' weights only."""
        if jitter is None:
            jitter = rays.near.new_full((len(rays), 1 + len(ROUNDS)), 0.5)
        rays = replace(rays, origins=rays.origins.detach(), directions=rays.directions.detach())
        begin = spacing(rays.near.clamp_min(0))[:, None]
        share = (torch.arange(ROUNDS[0][0] + 1) - 0.5 + jitter[:, :1]) / ROUNDS[0][0]
        share[:, 0], share[:, -1] = 0, 1
        edges = begin + share * (spacing(torch.tensor(FAR)) - begin)
        counts = [*[count for count, _ in ROUNDS[1:]], SAMPLES]
        rounds = []
        for proposal, count, offset in zip(self.fields, counts, jitter[:, 1:].unbind(1), strict=True):
            rounds.append(proposal(rays, edges))
            edges = resampled(rounds[-1], count, offset, power)
        return Proposed(edges, rounds)


def spacing(distance: Tensor) -> Tensor:
    """Distances in [0, inf) on the finite scale, in [0, 1)."""
    return torch.where(distance < 1, distance / 2, 1 - 0.5 / distance.clamp_min(1))


def distance_at(spaced: Tensor) -> Tensor:
    """The inverse of `spacing`."""
    return torch.where(spaced < 0.5, 2 * spaced, 0.5 / (1 - spaced))


def packed(edges: Tensor) -> Samples:
    """Steps between edges [R, N + 1] on the finite scale."""
    distances = distance_at(edges)
    count = edges.shape[1] - 1
    ray = torch.arange(len(edges), dtype=torch.int32).repeat_interleave(count)
    return Samples(_starts(edges), distances[:, :-1].reshape(-1), distances[:, 1:].reshape(-1), ray)


def _starts(edges: Tensor) -> Tensor:
    return torch.arange(len(edges) + 1, dtype=torch.int32) * (edges.shape[1] - 1)


@torch.no_grad()
def resampled(
    histogram: Histogram,
    count: int,
    jitter: Tensor,  # [R] in [0, 1)
    power: float,
) -> Tensor:
    """Edges [R, count + 1] of steps that each hold as much weight, by the inverse of its distribution."""
    lengths = histogram.edges.diff(dim=1)
    weights = histogram.weights**power
    weights = weights / weights.sum(1, keepdim=True).clamp_min(1e-6)
    weights = weights + PADDING * lengths / lengths.sum(1, keepdim=True)
    below = torch.nn.functional.pad(weights.cumsum(1), (1, 0))
    wanted = (torch.arange(count + 1) + jitter[:, None]) / (count + 1) * below[:, -1:]
    upper = torch.searchsorted(below, wanted, right=True).clamp(1, weights.shape[1])
    first, last = below.gather(1, upper - 1), below.gather(1, upper)
    share = ((wanted - first) / (last - first).clamp_min(1e-9)).clamp(0, 1)
    return torch.lerp(histogram.edges.gather(1, upper - 1), histogram.edges.gather(1, upper), share)


def bound(proposal: Histogram, found: Histogram) -> Tensor:
    """By how much a proposal has less weight where more was found, their mean (Barron et al. 2022, equation 13)."""
    below = torch.nn.functional.pad(proposal.weights.cumsum(1), (1, 0))
    last = proposal.weights.shape[1]
    lower = (torch.searchsorted(proposal.edges, found.edges[:, :-1].contiguous(), right=True) - 1).clamp(0, last)
    upper = torch.searchsorted(proposal.edges, found.edges[:, 1:].contiguous()).clamp(0, last)
    outer = below.gather(1, upper) - below.gather(1, lower)
    return ((found.weights - outer).clamp_min(0).square() / (found.weights + 1e-7)).mean()


def power_of(progress: float) -> float:
    """The power of weights that samples are drawn by: 0 at first, when they say nothing, soon 1 (Schlick's bias)."""
    share = min(1.0, progress / ANNEALED)
    return SLOPE * share / ((SLOPE - 1) * share + 1)
