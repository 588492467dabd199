"""Radiance fields: what a point in space emits and how much light it takes, from an encoding and two small perceptrons.

Mueller et al. 2022, section 5.4. Positions are in the unit cube of a `Space`; densities are per length of that cube's
side.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from anchorfield.cuda_ext.mlp import MlpLayout, mlp
from anchorfield.renderer.encodings import Encoding

DIRECTION_DEGREE = 3  # 16 numbers of a direction
LATENT = 16  # numbers that the density perceptron says; the first is the logarithm of the density, up to a constant
# Logarithms of the density where the perceptron says 0: a little fog to start from (as nerfacc has it), and more of it
# where space has no end.
FIRST_LOG, FIRST_LOG_CONTRACTED = -1.0, 0.5
GUARD = 64  # cells along an axis that remember which heads of a pyramid were trained there
MOST_LOG = 15.0  # gradients of the exponential do not grow beyond


class _Exponential(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.exp(x.clamp_max(MOST_LOG))

    @staticmethod
    def backward(ctx: Any, *v: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return v[0] * torch.exp(x.clamp(-MOST_LOG, MOST_LOG))


def exponential(logarithm: Tensor) -> Tensor:
    """exp, whose gradient stays finite for large arguments."""
    result: Tensor = _Exponential.apply(logarithm)  # type: ignore[no-untyped-call]
    return result


class RadianceField(nn.Module):
    """Density and colour of points. `contracted` squeezes space outside of the unit cube into a shell around it."""

    first_log: Tensor  # constant; kept with what was learnt upon it

    def __init__(
        self,
        encoding: Encoding,
        width: int,
        contracted: bool,
        random: torch.Generator | None = None,
        *,
        appearance: int = 0,  # numbers of a photograph that colours depend on
    ):
        super().__init__()
        self.encoding, self.contracted = encoding, contracted
        self.register_buffer("first_log", torch.tensor(FIRST_LOG_CONTRACTED if contracted else FIRST_LOG))
        self.density_layout = MlpLayout(encoding.size, LATENT, width, hidden=1)
        self.colour_layout = MlpLayout(LATENT + (DIRECTION_DEGREE + 1) ** 2 + appearance, 3, width, hidden=2)
        self.density_weights = nn.Parameter(self.density_layout.initial(random))
        self.colour_weights = nn.Parameter(self.colour_layout.initial(random))

    def latent(self, positions: Tensor, widths: Tensor | None = None) -> Tensor:
        """What is known of positions [N, 3] whatever the direction, [N, 16].

        `widths` [N] are those of a pixel's beam there, in sides of the unit cube; a plain field does not ask for them.
        """
        features = self.encoding(self._inside(positions))
        return self._gated(mlp(features, self.density_weights, self.density_layout), features)

    def colour(self, latent: Tensor, view: Tensor) -> Tensor:
        """Colours [N, 3] of points with these latents, seen so: basis of the direction, and appearance, [N, 16 + A]."""
        return torch.sigmoid(mlp(torch.cat([latent, view], 1), self.colour_weights, self.colour_layout))

    def density(self, positions: Tensor, widths: Tensor | None = None) -> Tensor:
        """Densities [N] at positions [N, 3]."""
        return self.density_of(self.latent(positions, widths))

    def density_of(self, latent: Tensor) -> Tensor:
        """Densities [N] of latents [N, 16]."""
        return exponential(latent[:, 0] + self.first_log)

    def _inside(self, positions: Tensor) -> Tensor:
        return contract(positions) if self.contracted else positions

    def _gated(self, latent: Tensor, features: Tensor) -> Tensor:
        """Latents whose density is multiplied by the encoding's gate."""
        gate = self.encoding.log_gate(features)
        return latent if gate is None else torch.cat([latent[:, :1] + gate[:, None], latent[:, 1:]], 1)


class PyramidField(RadianceField):
    """A field of several density perceptrons, each for beams of one width (PyNeRF, Turki et al. 2023).

    All read one encoding. The finest is for beams as wide as a cell of the finest grid; each before it for beams twice
    as wide. Between two, what both say is blended; never finer nor coarser than training has seen near a place.
    """

    least: Tensor
    most: Tensor

    def __init__(
        self,
        encoding: Encoding,
        width: int,
        contracted: bool,
        heads: int,  # from coarse to fine
        finest: float,  # cells along an axis of the finest grid
        random: torch.Generator | None = None,
        *,
        appearance: int = 0,
    ):
        super().__init__(encoding, width, contracted, random, appearance=appearance)
        first = [self.density_layout.initial(random) for _ in range(heads)]
        self.density_weights = nn.Parameter(torch.stack(first))
        self.heads, self.finest = heads, finest
        self.register_buffer("least", torch.full((GUARD**3,), float(heads)))
        self.register_buffer("most", torch.full((GUARD**3,), -1.0))

    def latent(self, positions: Tensor, widths: Tensor | None = None) -> Tensor:
        """What is known of positions [N, 3] for beams of these widths [N], or for the finest, [N, 16]."""
        inside = self._inside(positions)
        features, levels = self.encoding(inside), self._levels(inside, widths, torch.is_grad_enabled())
        lower = levels.floor().clamp_max(self.heads - 2)
        share = levels - lower
        latent = features.new_zeros(len(features), LATENT)
        for head, weights in enumerate(self.density_weights):
            weight = torch.where(lower == head, 1 - share, torch.where(lower + 1 == head, share, 0))
            rows = weight.nonzero()[:, 0]
            if len(rows):
                said = mlp(features[rows], weights, self.density_layout)
                latent = latent.index_add(0, rows, weight[rows, None] * said)
        return self._gated(latent, features)

    def level(self, widths: Tensor) -> Tensor:
        """The head, a real number, that is for beams of these widths; not held within those there are."""
        side = 2.0 if self.contracted else 1.0  # contraction gives the unit cube half of the grid's cells
        return self.heads - 1 - torch.log2(widths * (self.finest / side))

    @torch.no_grad()
    def _levels(self, inside: Tensor, widths: Tensor | None, learning: bool) -> Tensor:
        """Heads [N] in [0, heads - 1] that are asked; remembers them in training, keeps to what it remembers else."""
        x, y, z = (inside * GUARD).long().clamp(0, GUARD - 1).unbind(1)
        cell = (z * GUARD + y) * GUARD + x
        finest = inside.new_full((len(inside),), self.heads - 1)
        levels = finest if widths is None else self.level(widths).clamp(0, self.heads - 1)
        if learning:
            self.least.scatter_reduce_(0, cell, levels, "amin")
            self.most.scatter_reduce_(0, cell, levels, "amax")
            return levels
        least, most = self.least[cell], self.most[cell]
        return torch.where(most >= 0, levels.minimum(most).maximum(least), levels)


def contract(positions: Tensor) -> Tensor:
    """All of space into the unit cube: the unit cube keeps its shape in the middle half, the rest fills the shell.

    With y = 2 x - 1 and m = max |y|: y where m <= 1, else (2 - 1 / m) y / m (Barron et al. 2022, equation 10, with the
    largest coordinate as the norm); then halved and moved to [0, 1].
    """
    y = 2 * positions - 1
    m = y.abs().amax(-1, keepdim=True).clamp_min(1)
    return (2 - 1 / m) * y / m * 0.25 + 0.5
