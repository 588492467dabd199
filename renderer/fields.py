"""Radiance fields: what a point in space emits and how much light it takes, from an encoding and two small perceptrons.

Mueller et al. 2022, section 5.4. Positions are in the unit cube of a `Space`; densities are per length of that cube's
side.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from anchorfield.cuda_ext.directions import spherical_harmonics_basis
from anchorfield.cuda_ext.mlp import MlpLayout, mlp
from anchorfield.renderer.encodings import HashEncoding

DIRECTION_DEGREE = 3  # 16 numbers of a direction
LATENT = 16  # numbers that the density perceptron says; the first is the logarithm of the density, up to a constant
FIRST_LOG = -1.0  # logarithm of the density where the perceptron says 0: a little fog to start from (as nerfacc has it)
MOST_LOG = 15.0  # gradients of the exponential do not grow beyond


class _Exponential(torch.autograd.Function):
    """exp, whose gradient stays finite for large arguments."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.exp(x.clamp_max(MOST_LOG))

    @staticmethod
    def backward(ctx: Any, *v: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return v[0] * torch.exp(x.clamp(-MOST_LOG, MOST_LOG))


class RadianceField(nn.Module):
    """Density and colour of points. `contracted` squeezes space outside of the unit cube into a shell around it."""

    def __init__(self, encoding: HashEncoding, width: int, contracted: bool, random: torch.Generator | None = None):
        super().__init__()
        self.encoding, self.contracted = encoding, contracted
        self.density_layout = MlpLayout(encoding.layout.size, LATENT, width, hidden=1)
        self.colour_layout = MlpLayout(LATENT + (DIRECTION_DEGREE + 1) ** 2, 3, width, hidden=2)
        self.density_weights = nn.Parameter(self.density_layout.initial(random))
        self.colour_weights = nn.Parameter(self.colour_layout.initial(random))

    def forward(self, positions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Densities [N] and colours [N, 3] in (0, 1) at positions [N, 3], seen along unit directions [N, 3]."""
        latent = self.latent(positions)
        return density_of(latent), self.colour(latent, spherical_harmonics_basis(directions, DIRECTION_DEGREE))

    def latent(self, positions: Tensor) -> Tensor:
        """What is known of positions [N, 3] whatever the direction, [N, 16]."""
        inside = contract(positions) if self.contracted else positions
        return mlp(self.encoding(inside), self.density_weights, self.density_layout)

    def colour(self, latent: Tensor, basis: Tensor) -> Tensor:
        """Colours [N, 3] of points with these latents, seen along directions with this basis [N, 16]."""
        return torch.sigmoid(mlp(torch.cat([latent, basis], 1), self.colour_weights, self.colour_layout))

    def density(self, positions: Tensor) -> Tensor:
        """Densities [N] at positions [N, 3]."""
        return density_of(self.latent(positions))


def density_of(latent: Tensor) -> Tensor:
    """Densities [N] of latents [N, 16]."""
    density: Tensor = _Exponential.apply(latent[:, 0] + FIRST_LOG)  # type: ignore[no-untyped-call]
    return density


def contract(positions: Tensor) -> Tensor:
    """All of space into the unit cube: the unit cube keeps its shape in the middle half, the rest fills the shell.

    With y = 2 x - 1 and m = max |y|: y where m <= 1, else (2 - 1 / m) y / m (Barron et al. 2022, equation 10, with the
    largest coordinate as the norm); then halved and moved to [0, 1].
    """
    y = 2 * positions - 1
    m = y.abs().amax(-1, keepdim=True).clamp_min(1)
    return (2 - 1 / m) * y / m * 0.25 + 0.5
