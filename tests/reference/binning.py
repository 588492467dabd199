"""Which Gaussian touches which 4x4 block of pixels, by looking at every pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from reference.compositing import exponents, pixel_centres, rounding_of_exponents

BLOCK = 4
MIN_ALPHA = 1 / 255


def blocks_of(pixels: Tensor) -> Tensor:
    """Whether any pixel of each block is set: [N, H, W] bool -> [N, block rows, block columns] bool."""
    rows, columns = -pixels.shape[1] % BLOCK, -pixels.shape[2] % BLOCK
    padded = F.pad(pixels, (0, columns, 0, rows))
    return padded.unflatten(1, (-1, BLOCK)).unflatten(3, (-1, BLOCK)).any(4).any(2)


def touched_blocks(
    means2d: Tensor, conics: Tensor, opacities: Tensor, width: int, height: int, rounding: float = 0
) -> Tensor:
    """Blocks with a pixel of alpha >= 1/255 by more than `rounding` explains, [N, block rows, block columns] bool."""
    pixels = pixel_centres(width, height, means2d)
    sigma = exponents(means2d[:, None, None], conics[:, None, None], pixels)
    error = rounding_of_exponents(means2d, conics, width, height, rounding)
    level = (opacities / MIN_ALPHA).log()[:, None, None]
    return blocks_of((sigma + error <= level) & (opacities >= MIN_ALPHA)[:, None, None])


def least_exponents(means2d: Tensor, conics: Tensor, width: int, height: int) -> Tensor:
    """The minimum of sigma over the rectangle of pixel centres of each block, [N, block rows, block columns].

    sigma is convex: its minimum over a rectangle is 0 if the mean lies inside, else on one of the four edges, where it
    is a parabola.
    """
    rows, columns = -(-height // BLOCK), -(-width // BLOCK)
    left = torch.arange(columns, dtype=means2d.dtype)[None, None, :] * BLOCK + 0.5 - means2d[:, 0, None, None]
    top = torch.arange(rows, dtype=means2d.dtype)[None, :, None] * BLOCK + 0.5 - means2d[:, 1, None, None]
    right, bottom = left + BLOCK - 1, top + BLOCK - 1
    a, b, c = conics[:, :, None, None].unbind(1)

    def sigma(x: Tensor, y: Tensor) -> Tensor:
        return 0.5 * (a * x * x + c * y * y) + b * x * y

    edges = [sigma(x, torch.minimum(torch.maximum(-b * x / c, top), bottom)) for x in (left, right)]
    edges += [sigma(torch.minimum(torch.maximum(-b * y / a, left), right), y) for y in (top, bottom)]
    inside = (left <= 0) & (right >= 0) & (top <= 0) & (bottom >= 0)
    return torch.where(inside, 0, torch.stack(edges).amin(0))
