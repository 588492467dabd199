"""A hash-grid radiance field with an occupancy grid (instant-NGP).

Mueller, Evans, Schied and Keller 2022.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from anchorfield.methods._ngp import Ngp
from anchorfield.renderer.encodings import Encoding, HashEncoding


@dataclass(frozen=True)
class InstantNgp(Ngp):
    """Settings of instant-NGP."""

    def encoding(self, random: torch.Generator | None) -> Encoding:
        """Rows that positions share by chance."""
        return HashEncoding(self.grid.layout(), random)


METHOD = InstantNgp
