"""Trainable encodings of positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anchorfield.cuda_ext.hash_grid import HashGrid, hash_grid

FIRST_VALUES = 1e-4  # so small that a field starts almost constant


class HashEncoding(nn.Module):
    """Features of a multiresolution hash grid (Mueller et al. 2022)."""

    def __init__(self, layout: HashGrid, random: torch.Generator | None = None):
        super().__init__()
        self.layout = layout
        drawn = torch.rand(layout.rows, layout.features, generator=random)
        self.table = nn.Parameter((2 * drawn - 1) * FIRST_VALUES)

    def forward(self, positions: Tensor) -> Tensor:
        """Features [N, levels * features] at positions [N, dimensions] in [0, 1]."""
        return hash_grid(positions, self.table, self.layout)
