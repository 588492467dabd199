"""A hash-grid field that learns where nothing needs to be remembered (HollowNeRF).

Xie, Gherardi, Pan and Huang 2023: fewer places share the table's rows, so that a smaller table does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from anchorfield.methods._method import check_ranges
from anchorfield.methods._ngp import Grid, Ngp
from anchorfield.renderer.encodings import Encoding, HollowEncoding


@dataclass(frozen=True)
class HollowNgp(Ngp):
    """Settings of hollow NGP."""

    grid: Grid = field(default_factory=lambda: Grid(log2_table_size=15))
    """Where features of positions are kept."""
    cells: int = 64
    """Along an axis of the grid of what matters."""
    most: float = 0.04
    """Of the cube that may matter, as a share."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, cells=(8, 255), most=(0.001, 1))

    def encoding(self, random: torch.Generator | None) -> Encoding:
        """A grid behind a coarse one of what matters."""
        return HollowEncoding(self.grid.layout(), self.cells, self.most, random)


METHOD = HollowNgp
