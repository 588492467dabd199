"""Stored pixels as colours."""

from __future__ import annotations

import torch
from torch import Tensor

from anchorfield.cuda_ext import _kernels


def colours_of_pixels(
    pixels: Tensor,  # [H, W, 3 or 4] uint8, alpha last, colours not multiplied by it
    background: Tensor,  # [3] float32
    reduction: int = 1,
) -> Tensor:
    """Colours in [0, 1] over the background, float32 [H // r, W // r, 3], each the mean of r x r pixels.

    On the CPU, where photographs are kept. Pixels beyond the last whole square are left out.
    """
    if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or pixels.is_cuda:
        got = f"{str(pixels.dtype).removeprefix('torch.')} {list(pixels.shape)} on {pixels.device}"
        raise ValueError(f"pixels: expected uint8 [H, W, 3 or 4] on cpu, got {got}")
    height, width = pixels.shape[:2]
    if not 1 <= reduction <= min(height, width):
        raise ValueError(f"reduction: expected 1 to {min(height, width)}, got {reduction}")
    if background.shape != (3,) or background.dtype != torch.float32:
        raise ValueError(f"background: expected float32 [3], got {background.dtype} {list(background.shape)}")
    colours = torch.empty(height // reduction, width // reduction, 3)
    _kernels.colours_of_pixels(pixels.contiguous(), background.contiguous(), reduction, colours)
    return colours
