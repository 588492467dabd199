"""A signed distance as a function of the place: a hash grid and a small perceptron that learn a mesh.

After Mueller et al. 2022, section 5.2. Half of the samples lie on the surface, a quarter near it, a quarter anywhere:
fewer there, and hash collisions leave specks of a surface in empty space. The loss is the mean absolute error relative
to the distance (MAPE), so that what is near the surface counts most.
Everything happens in the unit cube; distances are in units of its side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anchorfield.cuda_ext.hash_grid import HashGrid
from anchorfield.cuda_ext.mlp import MlpLayout, mlp
from anchorfield.renderer.adam import Adam
from anchorfield.renderer.encodings import HashEncoding
from anchorfield.renderer.mesh_distance import MeshDistance

MOST = 2**15  # places of a step, at most
SURFACE = 8  # places on the surface for each that is known off it
NEAR = (1e-3, 3e-2)  # spreads about the surface, in sides of the cube
RATE, LAST_RATE = 1e-2, 0.01  # of learning, and the share of it that is left at the end
FLOOR = 0.01  # is added to the distance that an error is relative to
AT_ONCE = 2**18  # places that are asked about at a time


class DistanceField(nn.Module):
    """Signed distances to a surface in the unit cube, negative inside."""

    def __init__(self, finest: int = 256, log2_table_size: int = 16, random: torch.Generator | None = None):
        super().__init__()
        grid = HashGrid.up_to(max(16, finest), log2_table_size=log2_table_size)
        self.encoding = HashEncoding(grid, random)
        self.layout = MlpLayout(grid.size, 1, width=64, hidden=2)
        self.weights = nn.Parameter(self.layout.initial(random))

    def forward(self, places: Tensor) -> Tensor:
        """Distances [N] at places [N, 3] in [0, 1]."""
        return mlp(self.encoding(places), self.weights, self.layout)[:, 0]

    @torch.no_grad()
    def distance(self, points: Tensor) -> Tensor:
        """Distances [N] at points [N, 3], however many."""
        return torch.cat([self(some) for some in points.split(AT_ONCE)])

    def size_bytes(self) -> int:
        """Of all parameters, two bytes each."""
        return 2 * sum(parameter.numel() for parameter in self.parameters())


class Samples:
    """Places about a surface in the unit cube and their signed distances."""

    def __init__(self, vertices: NDArray[np.float64], faces: NDArray[np.int64], known: int, random: torch.Generator):
        """Of `vertices` [V, 3] in the unit cube and `faces` [F, 3], with `known` places off it, half of them near."""
        self.surface = surface_points(vertices, faces, SURFACE * known, random).float()
        near = surface_points(vertices, faces, known // 2, random)
        low, high = (torch.tensor(share).log() for share in NEAR)
        spread = torch.exp(low + (high - low) * torch.rand(len(near), 1, generator=random))
        near += spread * torch.randn(near.shape, generator=random)
        anywhere = torch.rand(known // 2, 3, generator=random, dtype=torch.float64)
        places = torch.cat([near.clamp(0, 1), anywhere])
        self.places = places.float()
        self.distances = torch.from_numpy(MeshDistance(vertices, faces).signed(self.places.numpy())).float()

    def draw(self, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Places [N, 3] and distances [N], half of them on the surface; N is at most what is known."""
        half = min(MOST, len(self.places)) // 2
        surface = self.surface[torch.randint(len(self.surface), (half,), generator=random)]
        chosen = torch.randint(len(self.places), (half,), generator=random)
        places = torch.cat([surface, self.places[chosen]])
        return places, torch.cat([torch.zeros(half), self.distances[chosen]])


def surface_points(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], count: int, random: torch.Generator
) -> Tensor:
    """Places [count, 3] float64, evenly over a mesh of `vertices` [V, 3] and `faces` [F, 3]."""
    a, b, c = torch.from_numpy(vertices[faces]).unbind(1)
    areas = torch.linalg.cross(b - a, c - a).norm(dim=1).cumsum(0)
    where = torch.rand(count, generator=random, dtype=torch.float64) * areas[-1]
    face = torch.searchsorted(areas, where, right=True).clamp_max(len(areas) - 1)
    u, v = torch.rand(2, count, 1, generator=random, dtype=torch.float64)
    beyond = u + v > 1  # the other half of a parallelogram
    u, v = torch.where(beyond, 1 - u, u), torch.where(beyond, 1 - v, v)
    return a[face] + u * (b - a)[face] + v * (c - a)[face]


def fit_distance(
    field: DistanceField, samples: Samples, random: torch.Generator, progress: Callable[[], float]
) -> Iterator[float]:
    """Learn the distances for ever; yields the mean relative error of each step.

    `progress` gives the share of the budget that is spent: the rate of learning falls by it.
    """
    parameters = dict(field.named_parameters())
    optimiser = Adam(parameters, {}, touched=("encoding.table",), betas=(0.9, 0.99))
    while True:
        optimiser.rates = dict.fromkeys(parameters, RATE * LAST_RATE ** min(1.0, progress()))
        places, distances = samples.draw(random)
        loss = ((field(places) - distances).abs() / (distances.abs() + FLOOR)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield float(loss.detach())
