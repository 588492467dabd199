"""A hash-grid field of whole numbers that are cheap to store (SHACIRA).

Girish, Shrivastava and Gupta 2023: the loss counts the bits of what the table holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from anchorfield.methods._method import check_choices, check_ranges
from anchorfield.methods._ngp import Grid, Ngp
from anchorfield.renderer.encodings import Encoding, LatentEncoding


@dataclass(frozen=True)
class Shacira(Ngp):
    """Settings of SHACIRA."""

    grid: Grid = field(default_factory=lambda: Grid(features=1))
    """Where latents of positions are kept; its features are latents."""
    decoded: int = 4
    """Features that a row's latents are decoded to."""
    bits: float = 1e-4
    """Loss of a bit a latent: more makes smaller files and worse images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self, decoded=(1, 2, 4, 8))
        check_ranges(self, bits=(0, 1))

    def encoding(self, random: torch.Generator | None) -> Encoding:
        """A grid of latents."""
        return LatentEncoding(self.grid.layout(), self.decoded, self.bits, random)


METHOD = Shacira
