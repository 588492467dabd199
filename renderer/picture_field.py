"""A picture as a function of the place on it: the smallest complete use of a hash grid and a perceptron.

Mueller et al. 2022, section 5.1. The finest grid has half as many vertices along an axis as the picture has pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from anchorfield.cuda_ext.hash_grid import HashGrid
from anchorfield.cuda_ext.mlp import MlpLayout, mlp
from anchorfield.renderer.adam import Adam
from anchorfield.renderer.encodings import Encoding

BATCH = 2**16  # pixels of a step
RATE = 1e-2
AT_ONCE = 2**18  # places that are asked about at a time


class PictureField(nn.Module):
    """Colours of places on a picture; (0, 0) is its upper left corner, (1, 1) the lower right one."""

    def __init__(self, encoding: Encoding, random: torch.Generator | None = None):
        super().__init__()
        self.encoding = encoding
        self.layout = MlpLayout(encoding.size, 3, width=64, hidden=2)
        self.weights = nn.Parameter(self.layout.initial(random))

    def forward(self, places: Tensor) -> Tensor:
        """Colours [N, 3] at places [N, 2] (x, y) in [0, 1]; not held within [0, 1]."""
        return mlp(self.encoding(places), self.weights, self.layout)

    @torch.no_grad()
    def picture(self, width: int, height: int) -> Tensor:
        """The picture at any size, [height, width, 3] in [0, 1]."""
        x, y = ((torch.arange(size) + 0.5) / size for size in (width, height))
        places = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)
        return torch.cat([self(some) for some in places.split(AT_ONCE)]).clamp(0, 1).reshape(height, width, 3)

    def size_bytes(self) -> int:
        """At rest, the perceptron's weights in two bytes each."""
        return self.encoding.size_bytes() + 2 * self.weights.numel()


def picture_grid(width: int, height: int, log2_table_size: int = 16, **more: Any) -> HashGrid:
    """The grid for a picture of that many pixels, with more of the kernel's settings."""
    finest = max(32, max(width, height) // 2)
    return HashGrid.up_to(finest, log2_table_size=log2_table_size, dimensions=2, **more)


def fit_picture(field: PictureField, picture: Tensor, random: torch.Generator, rate: float = RATE) -> Iterator[float]:
    """Learn a picture [H, W, 3] in [0, 1] from random pixels for ever; yields the mean squared error of each step."""
    height, width = picture.shape[:2]
    parameters = dict(field.named_parameters())
    optimiser = Adam(parameters, dict.fromkeys(parameters, rate))
    while True:
        pixels = torch.randint(height * width, (BATCH,), generator=random)
        row, column = pixels // width, pixels % width
        places = torch.stack([(column + 0.5) / width, (row + 0.5) / height], 1)
        loss = (field(places) - picture[row, column]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        field.encoding.end_step()
        yield float(loss.detach())
