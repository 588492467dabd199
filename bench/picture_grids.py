"""A picture by plain hash grids and by learned probing, PSNR against bytes: `python -m bench.picture_grids FILE`.

Every field learns for the same number of steps from the same pixels. Bytes are those at rest: two a number, three bits
for a choice of eight.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from anchorfield.renderer.encodings import Encoding, HashEncoding, ProbedEncoding
from anchorfield.renderer.metrics import psnr
from anchorfield.renderer.picture_field import PictureField, fit_picture, picture_grid
from anchorfield.scenes import images

PLAIN = (8, 9, 10, 11, 12)  # most rows of a level, as powers of two
PROBED = ((8, 9), (8, 10), (9, 11), (9, 12), (10, 12))  # rows and choices


def main() -> None:
    """Print a line for each field."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--probes", type=int, default=8)
    given = parser.parse_args()
    picture = torch.from_numpy(images.decode(given.picture)[..., :3].copy()).float() / 255
    height, width = picture.shape[:2]
    print(f"{width}x{height}, {given.steps} steps")
    for size in PLAIN:
        random = torch.Generator().manual_seed(0)
        plain = HashEncoding(picture_grid(width, height, size), random)
        show(f"plain 2^{size}", plain, picture, given.steps, random)
    for size, index in PROBED:
        random = torch.Generator().manual_seed(0)
        layout = picture_grid(width, height, size, probes=given.probes, log2_index_size=index)
        name = f"{given.probes} probes 2^{size}, 2^{index} choices"
        show(name, ProbedEncoding(layout, random), picture, given.steps, random)


def show(name: str, encoding: Encoding, picture: Tensor, steps: int, random: torch.Generator) -> None:
    """Learn and say how well."""
    field = PictureField(encoding, random)
    for _ in islice(fit_picture(field, picture, random), steps):
        pass
    height, width = picture.shape[:2]
    print(
        f"{name:32} {field.size_bytes() / 1e3:7.1f} kB {psnr(field.picture(width, height), picture):6.2f} dB",
        flush=True,
    )


if __name__ == "__main__":
    main()
