"""Stored pixels to colours, against float64."""

from __future__ import annotations

import pytest
import torch

from anchorfield.cuda_ext import native
from anchorfield.cuda_ext.pixels import colours_of_pixels

BACKGROUND = torch.tensor([1.0, 0.25, 0.0])


def expected(pixels: torch.Tensor, reduction: int) -> torch.Tensor:
    values = pixels.double() / 255
    alpha = values[..., 3:] if pixels.shape[2] == 4 else torch.ones(())
    colours = values[..., :3] * alpha + BACKGROUND.double() * (1 - alpha)
    rows, columns = (side // reduction for side in pixels.shape[:2])
    whole = colours[: rows * reduction, : columns * reduction]
    return whole.reshape(rows, reduction, columns, reduction, 3).mean((1, 3))


@pytest.mark.parametrize("instruction_set", native.instruction_sets())
@pytest.mark.parametrize("reduction", [1, 2, 4, 7])
@pytest.mark.parametrize("channels", [3, 4])
def test_colours_are_those_of_float64(channels: int, reduction: int, instruction_set: str) -> None:
    random = torch.Generator().manual_seed(channels)
    pixels = torch.randint(256, (45, 83, channels), dtype=torch.uint8, generator=random)
    before = native.instruction_set()
    native.set_instruction_set(instruction_set)
    try:
        got = colours_of_pixels(pixels, BACKGROUND, reduction)
        strided = colours_of_pixels(pixels[:, ::2], BACKGROUND, reduction)
        dense = colours_of_pixels(pixels[:, ::2].contiguous(), BACKGROUND, reduction)
    finally:
        native.set_instruction_set(before)
    # A sum of reduction^2 roundings of numbers of at most 1.
    assert (got.double() - expected(pixels, reduction)).abs().max() < 2**-24 * (reduction**2 + 3)
    assert torch.equal(strided, dense)


def test_transparent_pixels_show_the_background_and_opaque_ones_do_not() -> None:
    pixels = torch.zeros(1, 2, 4, dtype=torch.uint8)
    pixels[0, 1] = 255
    assert colours_of_pixels(pixels, BACKGROUND).tolist() == [[[1.0, 0.25, 0.0], [1.0, 1.0, 1.0]]]


@pytest.mark.parametrize(
    ("pixels", "reduction", "message"),
    [
        (torch.zeros(4, 4, 3), 1, "uint8"),
        (torch.zeros(4, 4, 2, dtype=torch.uint8), 1, r"\[H, W, 3 or 4\]"),
        (torch.zeros(4, 9, 3, dtype=torch.uint8), 5, "reduction: expected 1 to 4, got 5"),
    ],
)
def test_wrong_input_is_named(pixels: torch.Tensor, reduction: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        colours_of_pixels(pixels, BACKGROUND, reduction)
