"""Triangle meshes: what every extraction gives, and tidying them (small parts, the face budget, normals)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Mesh:
    """Triangles. Seen from outside, a face's corners run counter-clockwise."""

    vertices: NDArray[np.float32]  # [V, 3]
    faces: NDArray[np.int32]  # [F, 3]
    colours: NDArray[np.uint8] | None = None  # [V, 3] sRGB
    normals: NDArray[np.float32] | None = None  # [V, 3] of unit length

    def __len__(self) -> int:
        return len(self.faces)

    @property
    def diagonal(self) -> float:
        """Length of the bounding box's diagonal."""
        return float(np.linalg.norm(np.ptp(self.vertices, axis=0))) if len(self.vertices) else 0.0


def components(mesh: Mesh) -> NDArray[np.int64]:
    """For every face the number of its connected part [F]; parts that share a vertex are one."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    first, second = mesh.faces[:, [0, 1]].ravel(), mesh.faces[:, [1, 2]].ravel()
    edges = coo_matrix((np.ones(len(first), np.int8), (first, second)), shape=(len(mesh.vertices),) * 2)
    labels = connected_components(edges, directed=False)[1]
    return np.asarray(labels[mesh.faces[:, 0]], np.int64)


def without_small_parts(mesh: Mesh, smallest: float) -> Mesh:
    """The mesh without connected parts whose area is below `smallest` times that of the largest part."""
    if not len(mesh):
        return mesh
    labels = components(mesh)
    areas = np.bincount(labels, face_areas(mesh))
    return with_faces(mesh, mesh.faces[(areas >= smallest * areas.max())[labels]])


def without_weak_patches(mesh: Mesh, strong: NDArray[np.bool_]) -> Mesh:
    """The mesh without patches of faces that have no corner in `strong` [V], unless they fill a hole.

    A patch is taken to fill one where at least half of its outline continues in other faces.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    sure: NDArray[np.bool_] = np.asarray(strong[mesh.faces].any(axis=1))
    if sure.all() or not len(mesh):
        return mesh
    first, second = _neighbours(mesh)
    count = len(mesh)
    inner = ~sure[first] & ~sure[second]
    graph = coo_matrix((np.ones(int(inner.sum()), np.int8), (first[inner], second[inner])), shape=(count, count))
    patch = connected_components(graph, directed=False)[1]
    edges = np.bincount(patch, minlength=count) * 3 - 2 * np.bincount(patch[first[inner]], minlength=count)
    crossing = np.concatenate([first[~sure[first] & sure[second]], second[~sure[second] & sure[first]]])
    held = np.bincount(patch[crossing], minlength=count)
    return with_faces(mesh, mesh.faces[sure | (2 * held >= edges)[patch]])


def _neighbours(mesh: Mesh) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of faces that share an edge; of an edge of many faces, those next to each other in some order."""
    faces = mesh.faces.astype(np.int64)
    ends = np.stack([faces, np.roll(faces, -1, axis=1)], axis=-1).reshape(-1, 2)
    edge = ends.min(axis=1) * len(mesh.vertices) + ends.max(axis=1)
    order = np.argsort(edge, kind="stable")
    same = edge[order[1:]] == edge[order[:-1]]
    return order[:-1][same] // 3, order[1:][same] // 3


def with_faces(mesh: Mesh, faces: NDArray[np.int32]) -> Mesh:
    """The mesh of other faces over its vertices, those that no face uses left out."""
    used = np.zeros(len(mesh.vertices), bool)
    used[faces] = True
    number = np.cumsum(used, dtype=np.int32) - np.int32(1)
    return Mesh(
        mesh.vertices[used],
        np.ascontiguousarray(number[faces], np.int32),
        None if mesh.colours is None else mesh.colours[used],
        None if mesh.normals is None else mesh.normals[used],
    )


def decimated(mesh: Mesh, most: int) -> Mesh:
    """At most about `most` faces with nearly the same surface, by quadric edge collapse; colours and normals go."""
    if len(mesh) <= most:
        return mesh
    import fast_simplification

    vertices, faces = fast_simplification.simplify(mesh.vertices, mesh.faces, target_count=most)
    plain = Mesh(np.asarray(vertices, np.float32), np.asarray(faces, np.int32))
    return with_faces(plain, plain.faces[face_areas(plain) > 0])


def smoothed(mesh: Mesh, rounds: int) -> Mesh:
    """The mesh with the steps of a voxel grid evened out, without shrinking it (Taubin 1995: 0.5, then -0.53)."""
    if rounds == 0 or not len(mesh):
        return mesh
    from scipy.sparse import coo_matrix

    count = len(mesh.vertices)
    pairs = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    links = coo_matrix((np.ones(len(pairs), np.float32), (pairs[:, 0], pairs[:, 1])), shape=(count, count)).tocsr()
    links.data[:] = 1  # an edge of two faces counts once
    links = links.multiply(1 / np.maximum(links.sum(1), 1)).tocsr().astype(np.float32)
    vertices = mesh.vertices.copy()
    for _ in range(rounds):
        for strength in (0.5, -0.53):
            vertices += np.float32(strength) * (links @ vertices - vertices)
    return replace(mesh, vertices=vertices, normals=None)


def with_normals(mesh: Mesh) -> Mesh:
    """The mesh with normals: of every vertex the mean of its faces', weighted by their areas."""
    across = _across(mesh)
    sums = np.stack(
        [
            np.bincount(mesh.faces.ravel(), np.repeat(across[:, axis], 3), minlength=len(mesh.vertices))
            for axis in range(3)
        ],
        axis=1,
    )
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    normals = np.where(lengths > 0, sums / np.maximum(lengths, 1e-30), [0.0, 0.0, 1.0])
    return replace(mesh, normals=normals.astype(np.float32))


def face_areas(mesh: Mesh) -> NDArray[np.float64]:
    """Area of every face [F]."""
    return np.asarray(np.linalg.norm(_across(mesh), axis=1) / 2)


def _across(mesh: Mesh) -> NDArray[np.float64]:
    """Outward vectors across the faces, twice their areas long [F, 3]."""
    corners = mesh.vertices.astype(np.float64)[mesh.faces]
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
