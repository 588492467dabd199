"""A hash-grid field that learns which rows to share, and so needs few (Compact NGP).

Takikawa, Mueller, Nimier-David, Evans, Fidler, Jacobson and Keller 2023.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from anchorfield.methods._method import check_choices, check_ranges
from anchorfield.methods._ngp import Grid, Ngp
from anchorfield.renderer.encodings import Encoding, ProbedEncoding


@dataclass(frozen=True)
class CompactNgp(Ngp):
    """Settings of Compact NGP; about two thirds of the bytes should be the index."""

    grid: Grid = field(default_factory=lambda: Grid(log2_table_size=13))
    """Where features of positions are kept."""
    probes: int = 4
    """Rows that a place chooses from: 1, 2, 4, 8 or 16."""
    log2_index_size: int = 15
    """Choices of a level, as a power of two."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self, probes=(1, 2, 4, 8, 16))
        check_ranges(self, log2_index_size=(1, 24))

    def encoding(self, random: torch.Generator | None) -> Encoding:
        """Few rows, and an index of which is whose."""
        layout = self.grid.layout(probes=self.probes, log2_index_size=self.log2_index_size)
        return ProbedEncoding(layout, random)


METHOD = CompactNgp
