"""Trainable encodings of positions: a grid, where its rows lie, what they hold, and what of it is let through.

All have one interface, so that a field takes any of them. What changes in training beside the parameters is told them
before and after each step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from anchorfield.cuda_ext.hash_grid import HashGrid, hash_grid

FIRST_VALUES = 1e-4  # so small that a field starts almost constant
FIRST_CONFIDENCES = 0.01

GATES, STEEP = (
    (1e4, 1e5),
    1 / 3,
)  # steepness of the gate of what is shown, and the share of the budget before the second
ASCENT = 1e-5  # step of the multiplier, which ends about as large as the loss that a share of the cube saves

FIRST_LATENTS, FIRST_DECODER = 0.02, 0.1
LATENT_RATE = 2.0  # of decoded latents, times the field's
COLDEST = 0.1  # last temperature
ROUNDED = 0.9  # share of the budget from which latents are rounded
PRICED = (0.1, 0.3)  # shares of the budget between which the price of bits rises
PARTS = 8  # of the table, of which a step prices one
NEAREST = 1e-6  # to a whole number
MOST_BITS = 50.0


class Encoding(nn.Module, ABC):
    """Features of positions in the unit cube."""

    size: int  # numbers of a position
    touched: tuple[str, ...] = ()  # parameters of which a step moves only what was read
    learning: tuple[str, ...] = ()  # parameters and buffers that only training needs

    @abstractmethod
    def forward(self, positions: Tensor) -> Tensor:
        """Features [N, size] at positions [N, dimensions] in [0, 1]."""

    def log_gate(self, features: Tensor) -> Tensor | None:
        """The logarithm [N] of what density is multiplied by, where these are the features; None: nothing."""
        return None

    def begin_step(self, progress: float, random: torch.Generator) -> None:
        """Before a step at this share of the budget."""

    def penalty(self) -> Tensor | None:
        """What is added to the loss, a scalar."""
        return None

    def end_step(self) -> None:
        """After the parameters were stepped."""

    def rates(self) -> dict[str, float]:
        """By how much the learning rates of parameters differ from the field's, where they do."""
        return {}

    def size_bytes(self) -> int:
        """At rest: two bytes a number, and no more bits for a choice than it needs."""
        return 2 * sum(p.numel() for name, p in self.named_parameters() if name not in self.learning)


class HashEncoding(Encoding):
    """Features of a multiresolution hash grid (Mueller et al. 2022)."""

    touched: tuple[str, ...] = ("table",)

    def __init__(self, layout: HashGrid, random: torch.Generator | None = None):
        super().__init__()
        self.layout, self.size = layout, layout.size
        drawn = torch.rand(layout.rows, layout.features, generator=random)
        self.table = nn.Parameter((2 * drawn - 1) * FIRST_VALUES)

    def forward(self, positions: Tensor) -> Tensor:
        """Features [N, levels * features] at positions [N, dimensions] in [0, 1]."""
        return hash_grid(positions, self.table, self.layout)


class ProbedEncoding(HashEncoding):
    """A hash grid whose vertices learn which of a few rows is theirs (Compact NGP, Takikawa et al. 2023).

    At rest it is the table and a small whole number for each row of the index; confidences serve training alone.
    """

    touched = ("table", "confidences")
    learning = ("confidences",)
    choice: Tensor

    def __init__(self, layout: HashGrid, random: torch.Generator | None = None):
        super().__init__(layout, random)
        first = FIRST_CONFIDENCES * torch.randn(layout.index_rows, layout.probes, generator=random)
        self.confidences = nn.Parameter(first)
        self.register_buffer("choice", _largest(first))

    def forward(self, positions: Tensor) -> Tensor:
        """Features [N, levels * features] of the rows that are chosen; all that may be learn."""
        probabilities = torch.softmax(self.confidences, 1) if torch.is_grad_enabled() else None
        return hash_grid(positions, self.table, self.layout, choice=self.choice, probabilities=probabilities)

    def end_step(self) -> None:
        """Choose what confidence is largest in."""
        self.choice = _largest(self.confidences.detach())

    def size_bytes(self) -> int:
        """The table, and a number below `probes` for each row of the index."""
        return super().size_bytes() + len(self.choice) * (self.layout.probes - 1).bit_length() // 8


def _largest(confidences: Tensor) -> Tensor:
    return confidences.argmax(1).to(torch.uint8)


class HollowEncoding(Encoding):
    """A hash grid behind a coarse grid of what matters, which hides the rest (HollowNeRF, Xie et al. 2023).

    What is hidden does not write into the rows that it shares by collision. How much may be shown in the mean is a
    constraint, kept by a multiplier that rises while it is broken (the alternating direction method of multipliers).
    """

    multiplier: Tensor
    sharpness: Tensor

    def __init__(
        self,
        layout: HashGrid,
        cells: int,  # along an axis of the coarse grid
        most: float,  # shown, as a share of the cube
        random: torch.Generator | None = None,
    ):
        super().__init__()
        self.inner = HashEncoding(layout, random)
        self.size, self.touched, self.most = layout.size, ("inner.table",), most
        log2 = ((cells + 1) ** 3 - 1).bit_length()
        self.coarse = HashGrid(1, 1, log2, base_resolution=cells, per_level_scale=1)
        self.saliency = nn.Parameter(torch.ones(self.coarse.rows, 1))
        self.register_buffer("multiplier", torch.zeros(()))
        self.register_buffer("sharpness", torch.tensor(GATES[0]))

    def forward(self, positions: Tensor) -> Tensor:
        """Features [N, size], each multiplied by how much it matters there."""
        matters = torch.sigmoid(hash_grid(positions, self.saliency, self.coarse))
        features: Tensor = matters * self.inner(positions)
        return features

    def log_gate(self, features: Tensor) -> Tensor:
        """tanh of the features' length, steep (section 3.2): what is hidden has no density, whatever the field says."""
        lengths = (features.square().sum(1) + 1e-20).sqrt()
        return torch.tanh(self.sharpness * lengths).log()

    def begin_step(self, progress: float, random: torch.Generator) -> None:
        """The gate grows steeper."""
        self.sharpness.fill_(GATES[progress >= STEEP])

    def excess(self) -> Tensor:
        """By how much too much is shown."""
        excess: Tensor = torch.sigmoid(self.saliency).mean() - self.most
        return excess

    def penalty(self) -> Tensor:
        """The augmented Lagrangian's part (equation 6)."""
        excess = self.excess()
        return 0.5 * ASCENT * excess.clamp_min(0).square() + self.multiplier * excess

    @torch.no_grad()
    def end_step(self) -> None:
        """One step up in the multiplier."""
        self.multiplier.add_(ASCENT * self.excess()).clamp_min_(0)


class LatentEncoding(Encoding):
    """A hash grid of whole numbers that cost few bits, and what they stand for (SHACIRA, Girish et al. 2023).

    Latents are real numbers in training, drawn to one of their two neighbours by chance, less and less so; at last, and
    wherever no gradient is asked for, they are rounded. A row of latents is `decoder` times them, plus `shift`.
    """

    learning = ("entropy.numbers",)

    def __init__(
        self,
        layout: HashGrid,  # its features are latents
        features: int,  # of a row, decoded
        weight: float,  # of a bit a latent, in the loss
        random: torch.Generator | None = None,
    ):
        super().__init__()
        self.layout, self.size, self.weight = layout, layout.levels * features, weight
        self.latents = nn.Parameter(FIRST_LATENTS * torch.randn(layout.rows, layout.features, generator=random))
        self.decoder = nn.Parameter(FIRST_DECODER * torch.randn(layout.features, features, generator=random))
        self.shift = nn.Parameter(torch.zeros(features))
        self.entropy = EntropyModel(layout.features, random)
        self.temperature = 1.0
        self.chance: Tensor | None = None  # drawn for a step: uniform for every latent; None: latents are rounded
        self.priced = slice(0, 0)  # rows whose bits count in a step
        self.price = 0.0
        self.dither: Tensor | None = None

    def forward(self, positions: Tensor) -> Tensor:
        """Features [N, levels * features], decoded after interpolation: both are linear."""
        learning = torch.is_grad_enabled()
        read = hash_grid(positions, self._chosen() if learning else self.latents.round(), self.layout)
        latents = read.view(len(positions), self.layout.levels, self.layout.features)
        return (latents @ self.decoder + self.shift).flatten(1)

    def _chosen(self) -> Tensor:
        """Latents of a step: between their two neighbours, near one of them (section 3.2); at last straight-through."""
        if self.chance is None:
            return self.latents + (self.latents.round() - self.latents).detach()
        low = self.latents.detach().floor()
        above = (self.latents - low).clamp(NEAREST, 1 - NEAREST)
        # The difference of the two logits -atanh(distance) / temperature, and that of two Gumbel variables.
        logit = 0.5 * torch.log((1 + above) * above / ((1 - above) * (2 - above))) / self.temperature
        return low + torch.sigmoid((logit + torch.logit(self.chance)) / self.temperature)

    def begin_step(self, progress: float, random: torch.Generator) -> None:
        """Draw what latents are rounded by, and which of them are priced."""
        self.temperature = COLDEST ** min(1.0, progress / ROUNDED)
        shape = self.latents.shape
        self.chance = torch.rand(shape, generator=random).clamp_(1e-6, 1 - 1e-6) if progress < ROUNDED else None
        count = max(1, shape[0] // PARTS)
        first = int(torch.randint(max(1, shape[0] - count + 1), (1,), generator=random))
        self.priced = slice(first, first + count)
        self.dither = torch.rand(count, shape[1], generator=random) - 0.5
        self.price = self.weight * min(1.0, max(0.0, (progress - PRICED[0]) / (PRICED[1] - PRICED[0])))

    def penalty(self) -> Tensor | None:
        """The mean number of bits of the latents that are priced, weighted (section 3.3)."""
        if not self.price or self.dither is None:
            return None
        bits: Tensor = self.entropy(self.latents[self.priced] + self.dither)
        return self.price * bits.mean()

    def rates(self) -> dict[str, float]:
        """Latents move as fast as what they are decoded to should."""
        return {"latents": LATENT_RATE / float(self.decoder.detach().norm().clamp_min(1e-3))}


class EntropyModel(nn.Module):
    """How many bits numbers cost, each column by a distribution of its own that is learnt (Balle et al. 2018)."""

    LAYERS = 3

    def __init__(self, columns: int, random: torch.Generator | None = None):
        super().__init__()
        self.numbers = nn.Parameter(0.01 * torch.randn(self.LAYERS, 3, columns, generator=random))

    def cumulative(self, x: Tensor) -> Tensor:
        """The share of numbers below x [N, columns], in (0, 1); rises with x."""
        for layer, (stretch, offset, bend) in enumerate(self.numbers):
            x = x * nn.functional.softplus(stretch) + offset
            if layer + 1 < self.LAYERS:
                x = x + torch.tanh(x) * torch.tanh(bend)
        return torch.sigmoid(x)

    def forward(self, x: Tensor) -> Tensor:
        """Bits [N, columns] of whole numbers x, or of what lies around them."""
        share = self.cumulative(x + 0.5) - self.cumulative(x - 0.5)
        return -torch.log2(share + 1e-9).clamp(-MOST_BITS, 0)
