"""A hash-grid field that knows how wide a pixel's beam is: for photographs from near and far (PyNeRF).

Turki, Zollhoefer, Richardt and Ramanan 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from anchorfield.methods._method import check_ranges
from anchorfield.methods._ngp import Ngp
from anchorfield.renderer.encodings import Encoding, HashEncoding
from anchorfield.renderer.fields import PyramidField, RadianceField


@dataclass(frozen=True)
class PyNerf(Ngp):
    """Settings of PyNeRF."""

    heads: int = 8
    """Density perceptrons; each is for beams half as wide as the one before."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, heads=(2, 16))

    def encoding(self, random: torch.Generator | None) -> Encoding:
        """Rows that positions share by chance."""
        return HashEncoding(self.grid.layout(), random)

    def field(self, contracted: bool, random: torch.Generator | None) -> RadianceField:
        """One encoding, a perceptron for each width."""
        finest = float(max(self.grid.finest, self.grid.coarsest))
        return PyramidField(
            self.encoding(random), self.width, contracted, self.heads, finest, random, appearance=self.appearance
        )


METHOD = PyNerf
