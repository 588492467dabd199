"""Depth of many views fused into one signed distance (Curless and Levoy 1996), in blocks near the surface.

Each voxel holds the mean over the views of clamp(seen depth - own depth, -truncation, truncation). Voxels further
behind what a view sees than the truncation are hidden from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anchorfield.renderer.cameras import Camera, rays
from anchorfield.renderer.meshing import Mesh
from anchorfield.renderer.meshing_grid import TILE, Corner, zero_surface
from anchorfield.renderer.meshing_views import DepthView, cpu_threads, into, points_of, sample, seen_by

BLOCK = 8  # voxels along a block's side
AT_ONCE = 64  # blocks that are worked on together: their numbers fit a core's cache
SAMPLES = 4000  # pixels of a view that region and noise are found from


@dataclass(frozen=True)
class Region:
    """The box that is meshed, and how finely; in world units."""

    low: Tensor  # [3]
    voxel: float
    cells: Corner  # voxels along each axis, multiples of BLOCK
    truncation: float
    share: float  # of the cameras that must have a place in their picture


def region(views: Sequence[DepthView], resolution: int, share: float) -> Region | None:
    """The box about what at least `share` of the cameras have in their picture, with `resolution` voxels on its
    longest side; about all that any camera sees where they look outwards. None where no depth is known.

    The truncation follows from how much the views' depths differ where they see the same.
    """
    random = torch.Generator().manual_seed(0)
    points = torch.cat([points_of(view, SAMPLES, random) for view in views])
    if len(points) == 0:
        return None
    shares = seen_by([view.camera for view in views], points)
    outwards = float(torch.quantile(_thinned(shares), 0.95)) < share  # such cameras have nothing in common
    share = 0.0 if outwards else share
    points = points[shares >= share]
    tail = 0.02 if outwards else 0.002  # the far background, or outliers
    few = _thinned(points)
    low, high = torch.quantile(few, tail, dim=0), torch.quantile(few, 1 - tail, dim=0)
    margin = 0.06 * float((high - low).max())  # points are few at the tip of a corner
    low, high = low - margin, high + margin
    voxel = float((high - low).max()) / resolution
    cells = [max(1, math.ceil(float(side) / voxel / BLOCK)) * BLOCK for side in high - low]
    inside = points[((points > low) & (points < high)).all(1)]
    truncation = min(10 * voxel, max(4 * voxel, 3 * _noise(views, _thinned(inside, 20_000))))
    return Region(low, voxel, (cells[0], cells[1], cells[2]), truncation, share)


def _thinned(values: Tensor, most: int = 1_000_000) -> Tensor:
    """At most about `most` of the rows, evenly: quantiles of torch end at 16 million."""
    return values[:: max(1, math.ceil(len(values) / most))]


def _noise(views: Sequence[DepthView], points: Tensor) -> float:
    """The median distance along the ray between points that some view sees and what the others see there."""
    found = []
    for view in views:
        local = into(view.camera, points)
        depth, _, known = view.sampled(local)
        away = (depth - local[:, 2]).abs()
        found.append(away[known & (away < 0.05 * local[:, 2])])
    together = torch.cat(found)
    return float(together.median()) if len(together) else 0.0


class Volume:
    """The fused distance."""

    def __init__(self, where: Region, views: Sequence[DepthView]):
        self.where = where
        self._directory = torch.full(self._block_counts, -1, dtype=torch.int64)
        flags = self._touched(views)
        places = torch.nonzero(flags)
        centres = where.low + (places + 0.5) * (BLOCK * where.voxel)
        places = places[seen_by([view.camera for view in views], centres) >= where.share]
        # Neighbours in space become neighbours in memory: 4 x 4 x 4 blocks are a chunk.
        coarse, fine = places // 4, places % 4
        order = np.lexsort([*fine.T.flip(0).numpy(), *coarse.T.flip(0).numpy()])
        self.blocks = places[torch.from_numpy(order)]  # [B, 3]
        self._directory[tuple(self.blocks.T)] = torch.arange(len(self.blocks))
        self.sums = torch.zeros(len(self.blocks), BLOCK**3)
        self.weights = torch.zeros(len(self.blocks), BLOCK**3)
        self._agreeing = torch.zeros(len(self.blocks), BLOCK**3, dtype=torch.int16)  # views with a surface nearby

    @property
    def _block_counts(self) -> Corner:
        x, y, z = self.where.cells
        return x // BLOCK + 1, y // BLOCK + 1, z // BLOCK + 1  # points are one more than cells

    def _touched(self, views: Sequence[DepthView]) -> Tensor:
        """Which blocks some view sees a surface in or near."""
        flags = torch.zeros(self._block_counts, dtype=torch.bool)
        size, reach = BLOCK * self.where.voxel, self.where.truncation
        steps = torch.linspace(-reach, reach, 2 * math.ceil(reach / (0.5 * size)) + 1)
        counts = torch.tensor(self._block_counts)
        for view in views:
            pose = view.camera.camera_to_world.detach().float()
            ray, depth = rays(view.camera)[view.weight > 0], view.depth[view.weight > 0]
            for step in steps:
                points = (ray * (depth + step)[:, None]) @ pose[:3, :3].T + pose[:3, 3]
                block = torch.floor((points - self.where.low) / size).long()
                block = block[((block >= 0) & (block < counts)).all(1)]
                flags[tuple(block.T)] = True
        return flags

    def integrate(self, view: DepthView) -> None:
        """Take one view in."""
        camera, where = view.camera, self.where
        pose = camera.world_to_camera.detach().float()
        grid = torch.stack(torch.meshgrid(*[torch.arange(BLOCK)] * 3, indexing="ij"), -1).reshape(-1, 3)
        offsets = (grid * where.voxel) @ pose[:3, :3].T
        corners = into(camera, where.low + self.blocks * (BLOCK * where.voxel))
        seen = torch.nonzero(self._may_see(camera, corners + offsets.mean(0))).squeeze(1)

        def fuse(some: Tensor) -> None:
            local = (corners[some, None] + offsets).reshape(-1, 3)
            depth, weight, known = view.sampled(local)
            ahead = depth - local[:, 2]
            weight = torch.where(known & (ahead > -where.truncation), weight, 0.0)
            self.sums[some] += (weight * (ahead / where.truncation).clamp(-1, 1)).reshape(len(some), -1)
            self.weights[some] += weight.reshape(len(some), -1)
            self._agreeing[some] += ((weight > 0) & (ahead < where.truncation)).reshape(len(some), -1)

        with ThreadPoolExecutor(cpu_threads()) as pool:
            list(pool.map(fuse, seen.split(AT_ONCE)))

    def _may_see(self, camera: Camera, centres: Tensor) -> Tensor:
        """Blocks by their centres [B, 3] in the camera's axes that are, at least in part, in the picture [B]."""
        radius = 0.5 * math.sqrt(3) * BLOCK * self.where.voxel
        x, y, z = centres.unbind(1)
        near = z.clamp_min(1e-6)
        u, v = camera.fx * x / near + camera.cx, camera.fy * y / near + camera.cy
        wide, high = camera.fx * radius / near, camera.fy * radius / near
        inside = (u > -wide) & (u < camera.width + wide) & (v > -high) & (v < camera.height + high)
        return (z > -radius) & (inside | (z < 2 * radius))

    def agreeing(self, points: NDArray[np.float32]) -> NDArray[np.int16]:
        """How many views see a surface near each world point [N]."""
        place = ((torch.from_numpy(points) - self.where.low) / self.where.voxel).round().long()
        limit = torch.tensor(self._block_counts) * BLOCK - 1
        place = torch.minimum(place.clamp_min(0), limit)
        block = self._directory[tuple((place // BLOCK).T)]
        x, y, z = (place % BLOCK).unbind(1)
        found = self._agreeing[block, (x * BLOCK + y) * BLOCK + z]
        return torch.where(block >= 0, found, 0).to(torch.int16).numpy()

    def surface(self) -> Mesh:
        """Where the distance is zero, near what some view sees."""
        values = torch.where(self._agreeing > 0, self.sums / self.weights.clamp_min(1e-12), torch.nan)
        blocks = values.reshape(-1, BLOCK, BLOCK, BLOCK).numpy()
        directory = self._directory.numpy()
        span = TILE // BLOCK

        def values_at(first: Corner, count: Corner) -> NDArray[np.float32]:
            start = [f // BLOCK for f in first]
            part = directory[tuple(slice(s, s + span + 1) for s in start)]
            dense = np.full([size * BLOCK for size in part.shape], np.nan, np.float32)
            split = dense.reshape(part.shape[0], BLOCK, part.shape[1], BLOCK, part.shape[2], BLOCK)
            x, y, z = np.nonzero(part >= 0)
            split[x, :, y, :, z, :] = blocks[part[x, y, z]]
            return dense[: count[0], : count[1], : count[2]]

        tiles = sorted({(int(x), int(y), int(z)) for x, y, z in (self.blocks // span).unique(dim=0)})
        low = self.where.low.double().numpy()
        return zero_surface(values_at, tiles, self.where.cells, low, self.where.voxel, cpu_threads())


def fusing(volume: Volume, views: Sequence[DepthView]) -> Iterator[int]:
    """Take the views in; yields how many are done after each."""
    for done, view in enumerate(views, 1):
        volume.integrate(view)
        yield done


def coloured(mesh: Mesh, views: Sequence[DepthView], reach: float) -> Mesh:
    """The mesh with colours: of every vertex the mean over the views that see it within `reach` along their ray.

    Views that see it head on count most. What no view sees takes the colour of the nearest vertex that has one.
    """
    from scipy.spatial import cKDTree

    points = torch.from_numpy(mesh.vertices)
    sums, weights = torch.zeros(3, len(points)), torch.zeros(len(points))
    for view in views:
        local = into(view.camera, points)
        depth, weight, known = view.sampled(local)
        weight = torch.where(known & ((depth - local[:, 2]).abs() < reach), weight.square(), 0.0)
        sums += weight * sample(view.colour.permute(2, 0, 1).float(), view.camera, local)
        weights += weight
    colours = (sums / weights.clamp_min(1e-12)).T.round().clamp(0, 255).to(torch.uint8).numpy()
    seen = weights.numpy() > 0
    if seen.any() and not seen.all():
        colours[~seen] = colours[seen][cKDTree(mesh.vertices[seen]).query(mesh.vertices[~seen], workers=-1)[1]]
    return replace(mesh, colours=colours if seen.any() else None)
