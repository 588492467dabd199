"""Nearest neighbours among points."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor


def nearest_neighbours(
    points: Tensor,  # [N, 3]
    k: int,
) -> tuple[Tensor, Tensor]:
    """The k nearest points of each, itself among them and first, [N, k] int32, and how far away they are, [N, k].

    On the CPU, with all of its cores. The point itself stands in column 0 even where others coincide with it.
    """
    count = len(points)
    if not 1 <= k <= count:
        raise ValueError(f"k: expected 1 to {count}, the number of points, got {k}")
    numbers = points.detach().cpu().double().numpy()
    distances, indices = cKDTree(numbers).query(numbers, k=k, workers=-1)
    distances, indices = distances.reshape(count, k), indices.reshape(count, k)
    _itself_first(indices)
    return (
        torch.from_numpy(indices.astype(np.int32)).to(points.device),
        torch.from_numpy(distances).to(points.device, points.dtype),
    )


def _itself_first(indices: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> None:
    """Move each row's own index to column 0, for the last one where duplicates of the point left no room for it.

    Everything before it is a duplicate as well, so that distances stay as they are.
    """
    own = np.arange(len(indices))
    for row in np.flatnonzero(indices[:, 0] != own):
        where = np.flatnonzero(indices[row] == row)
        last = where[0] if len(where) else indices.shape[1] - 1
        indices[row, 1 : last + 1] = indices[row, :last].copy()
        indices[row, 0] = row
