"""The exploration noise of 3D Gaussian Splatting as Markov Chain Monte Carlo (arxiv.org/abs/2404.09591)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reference.projection import covariances

WORD = 2**32


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 (Salmon et al. 2011): four words of 32 bits from a counter of four and a key of two."""
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * counter[0], WORD)
        high1, low1 = divmod(0xCD9E8D57 * counter[2], WORD)
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0]
        key = [(key[0] + 0x9E3779B9) % WORD, (key[1] + 0xBB67AE85) % WORD]
    return counter


def normals(count: int, seed: int, like: Tensor) -> Tensor:
    """Three standard normal numbers for each index, [N, 3], by Box and Muller from the upper 24 bits of each word."""
    words = [philox([index, 0, 0, 0], [seed % WORD, seed // WORD]) for index in range(count)]
    uniform = torch.tensor([[word >> 8 for word in four] for four in words], dtype=like.dtype).reshape(-1, 4) / 2**24
    radius = (-2 * (1 - uniform[:, 0::2]).log()).sqrt()
    angle = 2 * math.pi * (uniform[:, 1::2] - 0.5)
    pairs = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)
    return pairs.reshape(-1, 4)[:, :3]


def perturb_means(
    means: Tensor, quats: Tensor, log_scales: Tensor, logit_opacities: Tensor, strength: float, seed: int
) -> Tensor:
    """The means after a step of noise along each Gaussian's own shape, large only for transparent ones."""
    gate = torch.sigmoid(-100 * (torch.sigmoid(logit_opacities) - 0.005))
    sigma = covariances(quats, log_scales.exp())
    noise = normals(len(means), seed, means)
    return means + (sigma @ noise[:, :, None])[:, :, 0] * gate[:, None] * strength
