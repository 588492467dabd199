"""Distances to a triangle mesh: exact, and signed by the generalised winding number.

Faces in Morton order form a tree without pointers: a node of level l holds BRANCH^l faces that follow each other.
Points descend it together, as pairs of a point and a node.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from anchorfield.renderer.meshing_views import cpu_threads

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]

BRANCH = 4  # children of a node
FAR = 2.0  # radii of a node from which on its faces act as one: the winding number is then good to about 0.01
POINTS_AT_ONCE = 4096


@dataclass(frozen=True)
class _Level:
    """Nodes of one size, each within a ball."""

    centres: Array  # [K, 3]
    radii: Array  # [K]
    across: Array  # [K, 3] sums of the faces' areas along their normals


class MeshDistance:
    """Asks for distances to a mesh; a face's corners run counter-clockwise seen from outside."""

    def __init__(self, vertices: Array, faces: NDArray[np.integer]):
        """Prepare `vertices` [V, 3] and `faces` [F, 3], at least one; faces without area are welcome."""
        corners = np.asarray(vertices, np.float64)[faces]
        self.vertices = cKDTree(corners.reshape(-1, 3))
        corners = corners[_along_a_curve(corners.mean(1))]
        depth = math.floor(math.log(len(corners), BRANCH))
        missing = -len(corners) % BRANCH**depth
        nothing = np.broadcast_to(corners[-1, :1], (missing, 3, 3))  # a point of the surface: it changes no distance
        self.corners = np.concatenate([corners, nothing])
        self.levels = [_level(self.corners, BRANCH**level) for level in range(depth, 0, -1)]

    def signed(self, points: Array) -> Array:
        """Distances [N] of points [N, 3], negative inside: where the winding number is above one half."""
        return np.where(self.winding(points) > 0.5, -1.0, 1.0) * self.unsigned(points)

    def unsigned(self, points: Array) -> Array:
        """Distances [N] from points [N, 3] to the nearest place on the surface."""
        return _in_parts(self._unsigned, points)

    def winding(self, points: Array) -> Array:
        """How often the surface winds around points [N, 3], [N] (Jacobson et al. 2013).

        A whole number for a closed surface, 0 outside; in between for an open one. Nodes that are far act as a dipole
        (Barill et al. 2018).
        """
        return _in_parts(self._winding, points)

    def _unsigned(self, points: Array) -> Array:
        most = self.vertices.query(points)[0]
        most += 1e-9 * most  # else rounding might leave out the very face of the nearest corner
        point, node = self._roots(len(points))
        for level in self.levels:
            offset = level.centres[node] - points[point]
            near = np.sqrt(_dot(offset, offset)) - level.radii[node] <= most[point]
            point, node = _children(point[near], node[near])
        squares = _squared_distances(points[point], self.corners[node])
        starts = np.searchsorted(point, np.arange(len(points)))  # every point has a face: that of its nearest corner
        return np.asarray(np.sqrt(np.minimum.reduceat(squares, starts)))

    def _winding(self, points: Array) -> Array:
        found = np.zeros(len(points))
        point, node = self._roots(len(points))
        for level in self.levels:
            offset = level.centres[node] - points[point]
            squares = _dot(offset, offset)
            far = squares > (FAR * level.radii[node]) ** 2
            of, angles = point[far], _dot(offset[far], level.across[node[far]]) / squares[far] ** 1.5
            found += np.bincount(of, angles, len(points)) / (4 * math.pi)
            point, node = _children(point[~far], node[~far])
        angles = _solid_angles(self.corners[node] - points[point, None])
        return np.asarray(found + np.bincount(point, angles, len(points)) / (4 * math.pi))

    def _roots(self, count: int) -> tuple[Numbers, Numbers]:
        """Every point with every node of the highest level, sorted by point."""
        nodes = len(self.levels[0].radii) if self.levels else len(self.corners)
        return np.repeat(np.arange(count), nodes), np.tile(np.arange(nodes), count)


def _along_a_curve(points: Array) -> Numbers:
    """The points' order along a Morton curve: what follows each other lies together."""
    low, extent = points.min(0), float(np.ptp(points, axis=0).max())
    cells = ((points - low) / (extent or 1.0) * (2**16 - 1)).astype(np.int64)
    code = np.zeros(len(points), np.int64)
    for bit in range(16):
        for axis in range(3):
            code |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    return np.argsort(code, kind="stable")


def _level(corners: Array, faces: int) -> _Level:
    """Nodes of so many `faces` each."""
    across = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2
    weights = np.sqrt(_dot(across, across))
    weights = (weights + 1e-12 * max(float(weights.max()), 1e-200)).reshape(-1, faces, 1)
    middles = corners.mean(1).reshape(-1, faces, 3)
    centres = (weights * middles).sum(1) / weights.sum(1)
    offsets = corners.reshape(len(centres), -1, 3) - centres[:, None]
    return _Level(centres, np.sqrt(_dot(offsets, offsets).max(1)), across.reshape(-1, faces, 3).sum(1))


def _children(point: Numbers, node: Numbers) -> tuple[Numbers, Numbers]:
    """The pairs with the nodes' children; faces below the lowest level."""
    return np.repeat(point, BRANCH), (node[:, None] * BRANCH + np.arange(BRANCH)).ravel()


def _in_parts(ask: Callable[[Array], Array], points: Array) -> Array:
    """Ask for some points at a time, with all threads."""
    points = np.asarray(points, np.float64)
    parts = [points[start : start + POINTS_AT_ONCE] for start in range(0, len(points), POINTS_AT_ONCE)]
    with ThreadPoolExecutor(cpu_threads()) as pool:
        return np.concatenate([np.empty(0), *pool.map(ask, parts)])


def _squared_distances(points: Array, corners: Array) -> Array:
    """Squares of the distances [P] from points [P, 3] to triangles [P, 3, 3], be they lines or points."""
    normal = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    nearest, inside = np.full(len(points), np.inf), np.ones(len(points), bool)
    for first in range(3):
        along, there = corners[:, (first + 1) % 3] - corners[:, first], points - corners[:, first]
        share = np.clip(_dot(there, along) / np.maximum(_dot(along, along), 1e-300), 0, 1)
        beside = there - share[:, None] * along
        nearest = np.minimum(nearest, _dot(beside, beside))
        inside &= _dot(_cross(normal, along), there) >= 0
    length = _dot(normal, normal)
    above = _dot(normal, points - corners[:, 0]) ** 2 / np.maximum(length, 1e-300)
    return np.where(inside & (length > 0), above, nearest)


def _solid_angles(corners: Array) -> Array:
    """Solid angles [P] of triangles [P, 3, 3] at the origin, positive from behind (van Oosterom and Strackee 1983)."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    of_a, of_b, of_c = (np.sqrt(_dot(corner, corner)) for corner in (a, b, c))
    over = of_a * of_b * of_c + _dot(a, b) * of_c + _dot(b, c) * of_a + _dot(c, a) * of_b
    return 2 * np.arctan2(_dot(a, _cross(b, c)), over)


def _dot(a: Array, b: Array) -> Array:
    return np.asarray(np.einsum("...i,...i->...", a, b))


def _cross(a: Array, b: Array) -> Array:
    """As np.cross, several times as fast."""
    (x, y, z), (u, v, w) = a.T, b.T
    return np.stack([y * w - z * v, z * u - x * w, x * v - y * u], axis=1)
