"""Binning: Gaussians in view sorted by depth in four passes of a byte, then one entry of 10 bytes for each pair."""

from __future__ import annotations

from collections.abc import Iterator

from anchorfield.cuda_ext.binning import bin_tiles
from bench import _table
from bench._operations import FLOAT, Operation, Stages

SORT = 4 * 2 * 8  # bytes: four passes read and write a key and an index
PAIR = 4 + 2 + 4  # bytes
TEST = 20  # operations for the exact test of an ellipse against a tile


def operations(stages: Stages) -> Iterator[Operation]:
    """Pairs of tiles and Gaussians."""
    camera, flat = stages.camera, type(stages.flat)(*(t.detach() for t in stages.flat))
    pairs = len(stages.bins.gaussians)
    yield Operation(
        "binning",
        lambda: bin_tiles(flat, camera.width, camera.height),
        TEST * pairs,
        9 * FLOAT * stages.count + SORT * stages.visible + PAIR * pairs,
    )


if __name__ == "__main__":
    _table.main(operations)
