"""Fit a mesh's signed distance by a hash grid field and mesh it again: `anchorfield fit-mesh`."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anchorfield.app import files, machine
from anchorfield.renderer.distance_field import DistanceField, Samples, fit_distance, surface_points
from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.renderer.mesh_distance import MeshDistance
from anchorfield.renderer.meshing import Mesh, smoothed, with_normals, without_small_parts
from anchorfield.renderer.meshing_grid import field_surface
from anchorfield.scenes.mesh_files import check_mesh_ending, read_mesh, write_mesh

Array = NDArray[np.float64]
Show = Callable[[float, str], None]

MARGIN = 1.15  # of the unit cube around the mesh's box; a voxel on every side must fit
LEAST_KNOWN, MOST_KNOWN = 2**13, 2**19  # distances to learn from; between them two for each voxel of a side
COMPARED = 20_000  # places on each surface from which distances are measured
SPECK = 1e-3  # share of the largest part's area, below which a part is none of the mesh's
SMOOTH = 2  # rounds that even out what is smaller than a voxel, without shrinking
SHOW_EVERY = 0.5  # seconds
PREPARED, LEARNT, MESHED = 0.2, 0.7, 0.9  # shares of the work, as shown


@dataclass(frozen=True)
class Gap:
    """Distances from one surface to another, in percent of the diagonal of the source's box."""

    mean: float
    p95: float


@dataclass(frozen=True)
class FittedMesh:
    """What came of it."""

    faces: int
    to_source: Gap  # from the new mesh
    from_source: Gap  # to the new mesh
    steps: int
    seconds: float  # of learning
    size_bytes: int  # of the field, two bytes a parameter


def fit_mesh(
    source: Path,
    out: Path,
    seconds: float = 20.0,
    size: int = 16,  # most rows of a level, as a power of two
    resolution: int = 256,  # voxels along the longest side
    seed: int = 0,
    show: Show | None = None,
) -> FittedMesh:
    """Learn the signed distance to the mesh `source` for so many seconds and write its zero surface to `out`.

    Raises DataError for what is no mesh or encloses nothing, UsageError for settings that make no sense.
    """
    if not 0 < seconds < 1e6:
        raise UsageError(f"--seconds: expected more than 0, got {seconds!r}")
    if not 13 <= size <= 24:  # the coarsest grid must fit, or nothing is smooth
        raise UsageError(f"--size: expected 13 to 24, got {size!r}")
    if not 16 <= resolution <= 2048:
        raise UsageError(f"--resolution: expected 16 to 2048, got {resolution!r}")
    check_mesh_ending(out)
    files.output_file(out)
    machine.single_torch_thread()
    show = show or (lambda share, text: None)
    vertices, faces = read_mesh(source)
    faces = _outwards(source, vertices, faces)
    world_from_unit = _cube(vertices)
    unit = (vertices - world_from_unit[:3, 3]) / world_from_unit[0, 0]
    random = torch.Generator().manual_seed(seed)
    show(0.0, "computing distances")
    samples = Samples(unit, faces, min(MOST_KNOWN, max(LEAST_KNOWN, 2 * resolution**2)), random)
    if not bool((samples.distances < 0).any()):
        raise DataError(f"{source} encloses nothing: a signed distance needs an inside; close the mesh")
    field = DistanceField(resolution, size, random)
    steps, spent = _learn(field, samples, random, seconds, show)
    made = smoothed(without_small_parts(_surface(field, unit, resolution, show), SPECK), SMOOTH)
    if not len(made):
        raise DataError(f"{source}: the field has no surface yet; give it more --seconds")
    write_mesh(out, with_normals(made), world_from_unit, up=(0, 1, 0))  # +y is up in the .glb as well
    show(MESHED, "comparing")
    diagonal = float(np.linalg.norm(np.ptp(unit, axis=0)))
    learnt = made.vertices.astype(np.float64), made.faces.astype(np.int64)
    gaps = _gap(*learnt, unit, faces, diagonal), _gap(unit, faces, *learnt, diagonal)
    show(1.0, f"{len(made):,} faces")
    return FittedMesh(len(made), *gaps, steps, spent, field.size_bytes())


def _outwards(source: Path, vertices: Array, faces: NDArray[np.int64]) -> NDArray[np.int64]:
    """The faces turned to look outwards; warns where the mesh is not closed."""
    import trimesh

    if _open_edges(faces):
        mesh = trimesh.Trimesh(vertices, faces, process=False)
        trimesh.repair.fix_winding(mesh)  # type: ignore[no-untyped-call]
        faces = np.asarray(mesh.faces, np.int64)
    count = _open_edges(faces)
    if count:
        warnings.warn(
            f"{source} is not watertight, {count:,} edges are open: what is inside is told by the winding number, "
            "which closes holes by a film",
            stacklevel=3,
        )
    a, b, c = (vertices[faces] - vertices.mean(0)).transpose(1, 0, 2)
    return faces[:, ::-1] if float((a * np.cross(b, c)).sum()) < 0 else faces


def _open_edges(faces: NDArray[np.int64]) -> int:
    """Edges that faces do not pass as often in one direction as in the other: a closed surface has none."""
    first, second = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    low, high = np.minimum(first, second), np.maximum(first, second)
    _, edge = np.unique(low * (faces.max() + 1) + high, return_inverse=True)
    return int(np.count_nonzero(np.bincount(edge.reshape(-1), np.sign(second - first))))


def _cube(vertices: Array) -> Array:
    """The matrix [4, 4] from the unit cube to the cube around the mesh."""
    low, high = vertices.min(0), vertices.max(0)
    side = MARGIN * float((high - low).max())
    matrix = np.diag([side, side, side, 1.0])
    matrix[:3, 3] = (low + high) / 2 - side / 2
    return matrix


def _learn(
    field: DistanceField, samples: Samples, random: torch.Generator, seconds: float, show: Show
) -> tuple[int, float]:
    """Learn for so many seconds; returns the steps and the seconds that they took."""
    begin = shown = time.monotonic()
    for step, error in enumerate(fit_distance(field, samples, random, lambda: (time.monotonic() - begin) / seconds), 1):
        now = time.monotonic()
        if now - begin >= seconds:
            return step, now - begin
        if now - shown > SHOW_EVERY:
            share = PREPARED + (LEARNT - PREPARED) * (now - begin) / seconds
            show(share, f"step {step}, mean relative error {error:.2e}")
            shown = now
    raise AssertionError("fit_distance goes on for ever")


def _surface(field: DistanceField, vertices: Array, resolution: int, show: Show) -> Mesh:
    """The field's zero surface in the unit cube, within a voxel about the box of `vertices`."""
    low, high = vertices.min(0), vertices.max(0)
    middle, half = (torch.from_numpy(place / 2).float() for place in (high + low, high - low))
    voxel = float((high - low).max()) / resolution
    x, y, z = (int(count) + 2 for count in np.ceil((high - low) / voxel - 1e-6))

    def distance(places: Tensor) -> Tensor:
        beyond = ((places - middle).abs() - half).clamp_min(0).norm(dim=1)
        found = field.distance(places)
        return torch.where(beyond > 0, found.maximum(beyond), found)  # the surface does not leave its box

    for done, mesh in enumerate(field_surface(distance, low - voxel, voxel, (x, y, z))):
        if mesh is not None:
            return mesh
        show(LEARNT, f"meshing, part {done + 1}")
    raise AssertionError("field_surface ends with a mesh")


def _gap(
    vertices: Array, faces: NDArray[np.int64], of_vertices: Array, of_faces: NDArray[np.int64], diagonal: float
) -> Gap:
    """Distances from places all over the first mesh to the second."""
    places = surface_points(vertices, faces, COMPARED, torch.Generator().manual_seed(0))
    found = 100 / diagonal * MeshDistance(of_vertices, of_faces).unsigned(places.numpy())
    return Gap(float(found.mean()), float(np.percentile(found, 95)))
