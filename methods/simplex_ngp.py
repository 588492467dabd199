"""A hash-grid field that interpolates between the four corners of tetrahedra instead of a cube's eight.

Wen and Yang 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from anchorfield.methods._ngp import Ngp
from anchorfield.renderer.encodings import Encoding, HashEncoding


@dataclass(frozen=True)
class SimplexNgp(Ngp):
    """Settings of simplex NGP."""

    def encoding(self, random: torch.Generator | None) -> Encoding:
        """Rows that positions share by chance, four of a level for each position."""
        return HashEncoding(self.grid.layout(interpolation="simplex"), random)


METHOD = SimplexNgp
