"""Compositing along rays and the distortion of weights, in rows padded to the longest ray."""

from __future__ import annotations

import math

import torch
from torch import Tensor

OPAQUE = -math.log(1e-4)  # the optical thickness behind which nothing counts


def padded(packed: Tensor, counts: Tensor) -> Tensor:
    """Rows of samples [R, M, ...], zero behind a ray's last one."""
    members = is_sample(counts)
    rows = packed.new_zeros((*members.shape, *packed.shape[1:]))
    return rows.masked_scatter(members.view(*members.shape, *[1] * (packed.ndim - 1)), packed)


def is_sample(counts: Tensor) -> Tensor:
    """Which places of the rows [R, M] are samples."""
    most = int(counts.max()) if len(counts) else 0
    return torch.arange(most) < counts[:, None]


def thickness_before(optical: Tensor, counts: Tensor) -> Tensor:
    """Optical thickness in front of each sample, [R, M]."""
    rows = padded(optical, counts)
    return torch.cat([torch.zeros_like(rows[:, :1]), rows.cumsum(1)[:, :-1]], 1)


def composite(optical: Tensor, values: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums [R, C], transmittance [R] and weights [S]."""
    before = thickness_before(optical, counts)
    visible = (before <= OPAQUE) & is_sample(counts)
    rows = torch.where(visible, padded(optical, counts), 0)
    weights = torch.where(visible, (-before).exp() * (1 - (-rows).exp()), 0)
    sums = (weights[..., None] * padded(values, counts)).sum(1)
    return sums, (-rows.sum(1)).exp(), weights[is_sample(counts)]


def distortion(weights: Tensor, t0: Tensor, t1: Tensor, counts: Tensor) -> Tensor:
    """Every pair of samples of every ray, [R]."""
    w, begin, end = (padded(t, counts) for t in (weights, t0, t1))
    middle = (begin + end) / 2
    apart = (middle[:, :, None] - middle[:, None, :]).abs()
    pairs = (w[:, :, None] * w[:, None, :] * apart).sum((1, 2))
    return pairs + (w**2 * (end - begin)).sum(1) / 3
