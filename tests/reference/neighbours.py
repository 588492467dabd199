"""Messages along a nearest-neighbour graph (Ververas et al. 2024), over all pairs of points."""

from __future__ import annotations

import torch
from torch import Tensor


def nearest(points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest points of each, itself first, and their distances: [N, k] int32, [N, k]."""
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    distances.fill_diagonal_(-1)
    found, indices = distances.topk(k, largest=False)
    return indices.int(), found.clamp_min(0)


def aggregate(features: Tensor, neighbours: Tensor, distances: Tensor) -> Tensor:
    """f_i + 0.5 / K * sum_e w_ie max over those who list j of (f_j - f_i), with j the neighbour of edge e."""
    count, width = neighbours.shape
    if count == 0:
        return features.clone()
    lists = torch.zeros(count, count, dtype=torch.bool)
    lists[torch.arange(count)[:, None], neighbours.long()] = True  # [i, j]: i lists j
    differences = features[None, :] - features[:, None]
    messages = differences.masked_fill(~lists[:, :, None], -torch.inf).max(0).values
    inverse = 1 / distances.clamp_min(1e-12)
    inverse = torch.cat([torch.zeros_like(inverse[:, :1]), inverse[:, 1:]], 1)
    weights = inverse / inverse.sum(1, keepdim=True) if width > 1 else inverse
    return features + 0.5 * (weights[:, :, None] * messages[neighbours.long()]).mean(1)
