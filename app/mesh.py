"""A mesh of anything that renders: its own surface where it has one, else the fused depth of its views."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anchorfield.app import files
from anchorfield.app.placement import mean_up
from anchorfield.app.run import FrameOfReference, Run
from anchorfield.methods import HasDensity, HasDistance, HasMesh, Model, check_ranges
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.renderer.meshing import (
    Mesh,
    decimated,
    smoothed,
    with_normals,
    without_small_parts,
    without_weak_patches,
)
from anchorfield.renderer.meshing_fusion import Region, Volume, coloured, fusing, region
from anchorfield.renderer.meshing_grid import TILE, field_surface
from anchorfield.renderer.meshing_views import DepthView, depth_view, spread
from anchorfield.renderer.types import Frame
from anchorfield.scenes.mesh_files import check_mesh_ending, write_mesh

Source: TypeAlias = Run | Model | Callable[[Camera], Frame]
Extraction: TypeAlias = Generator[tuple[float, str], None, Mesh]

HALF_ABSORBED = 0.01  # share of the box's longest side in which a density's surface takes half of the light
RENDERED, FUSED, FOUND = 0.45, 0.8, 0.85  # shares of the work


@dataclass(frozen=True)
class MeshSettings:
    """How a mesh is made."""

    resolution: int = 256
    """Voxels along the longest side of what is meshed."""
    faces: int = 200_000
    """Most faces of the mesh."""
    smallest: float = 0.02
    """Leave out loose parts whose area is below this share of the largest part's."""
    share: float = 0.5
    """Mesh what at least this share of the cameras has in its picture; 0 for everything."""
    agreeing: int = 3
    """Mesh only what at least this many views see at the same place; fewer where there are few views."""
    views: int = 150
    """Most views that are rendered for it."""
    smooth: int = 2
    """Rounds of smoothing, which does not shrink."""

    def __post_init__(self) -> None:
        check_ranges(
            self,
            resolution=(16, 2048),
            faces=(100, 100_000_000),
            smallest=(0, 1),
            share=(0, 1),
            agreeing=(1, 1000),
            views=(1, 10_000),
            smooth=(0, 100),
        )


def extract(source: Source, settings: MeshSettings | None = None, cameras: Sequence[Camera] | None = None) -> Mesh:
    """The mesh of a run, a model or what renders, in the frame of training; see `extracting`."""
    steps = extracting(source, settings, cameras)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            mesh: Mesh = end.value
            return mesh


def write(
    run: Run,
    out: Path,
    settings: MeshSettings | None = None,
    frame: FrameOfReference = "source",
    show: Callable[[float, str], None] | None = None,
) -> Mesh:
    """Make the mesh of a run and write it to `out`; returns it in the frame of training.

    Raises DataError and UsageError in words.
    """
    check_mesh_ending(out)
    files.output_file(out)
    steps = extracting(run, settings)
    try:
        while True:
            done = next(steps)
            if show:
                show(*done)
    except StopIteration as end:
        mesh: Mesh = end.value
    matrix = run.source_from_world if frame == "source" else np.eye(4)
    scene = run.scene
    write_mesh(out, mesh, matrix, up_of([scene.views[index].camera for index in scene.train], matrix))
    return mesh


def up_of(cameras: Sequence[Camera], source_from_world: NDArray[np.float64]) -> NDArray[np.float64]:
    """Upwards in the source frame [3]: the mean of what is up in the cameras' pictures."""
    up = source_from_world[:3, :3] @ np.asarray(mean_up(cameras))
    length = float(np.linalg.norm(up))
    return up / length if length > 1e-9 else np.array([0.0, 0.0, 1.0])


def extracting(
    source: Source, settings: MeshSettings | None = None, cameras: Sequence[Camera] | None = None
) -> Extraction:
    """Make the mesh step by step: yields the share that is done and what is being done, and returns the mesh.

    Not to ask for the next step cancels. `cameras` are those of the capture where `source` is a run.
    Raises DataError where nothing is to be seen.
    """
    settings = settings or MeshSettings()
    if cameras is None:
        if not isinstance(source, Run):
            raise UsageError("a mesh of something that is not a run needs cameras")
        scene = source.scene
        cameras = [scene.views[index].camera for index in scene.train]
    if not cameras:
        raise DataError("nothing to mesh: the capture has no training views")
    model = source.model if isinstance(source, Run) else source
    draw = model.render if isinstance(model, Model) else model
    views = yield from _rendering(draw, cameras, settings)
    yield RENDERED, "finding what to mesh"
    where = region(views, settings.resolution, settings.share)
    if where is None:
        raise DataError("nothing to mesh: no view shows anything opaque; train longer or check the model's pictures")
    mesh = yield from _surface(model, views, where, settings)
    mesh = without_small_parts(mesh, settings.smallest)
    if not len(mesh):
        raise DataError("nothing to mesh: the views show no common surface; train longer or raise --resolution")
    yield FOUND, f"simplifying {len(mesh):,} faces"
    mesh = decimated(smoothed(mesh, settings.smooth), settings.faces)
    yield 0.95, "colouring"
    mesh = with_normals(coloured(mesh, views, 2 * where.truncation))
    yield 1.0, f"{len(mesh):,} faces"
    return mesh


def _surface(model: object, views: Sequence[DepthView], where: Region, settings: MeshSettings) -> Extraction:
    """The surface by the best that the model offers."""
    if isinstance(model, HasMesh):
        return model.mesh()
    if isinstance(model, HasDistance):
        return (yield from _of_field(model.distance, where))
    volume = Volume(where, views)
    for done in fusing(volume, views):
        yield RENDERED + (FUSED - RENDERED) * done / len(views), f"view {done} of {len(views)} fused"
    yield FUSED, "finding the surface"
    if isinstance(model, HasDensity):
        level, density = math.log(2) / (HALF_ABSORBED * where.voxel * max(where.cells)), model.density
        mesh = yield from _of_field(lambda points: 1 - density(points) / level, where)
    else:
        mesh = volume.surface()
    agreed = volume.agreeing(mesh.vertices) >= min(settings.agreeing, max(1, len(views) // 3))
    return without_weak_patches(mesh, agreed)


def _of_field(field: Callable[[Tensor], Tensor], where: Region) -> Extraction:
    """The surface where a field of points is zero."""
    tiles = math.prod(-(-size // TILE) for size in where.cells)
    steps = field_surface(field, where.low.double().numpy(), where.voxel, where.cells)
    for done, mesh in enumerate(steps, 1):
        if mesh is not None:
            return mesh
        yield FUSED + (FOUND - FUSED) * done / tiles, f"part {done} of {tiles} asked"
    raise AssertionError("field_surface ends with a mesh")


def _rendering(
    draw: Callable[[Camera], Frame], cameras: Sequence[Camera], settings: MeshSettings
) -> Generator[tuple[float, str], None, list[DepthView]]:
    """The views, rendered no finer than twice the voxels."""
    chosen = [cameras[index] for index in spread(cameras, settings.views)]
    views = list[DepthView]()
    for number, camera in enumerate(chosen, 1):
        factor = min(1.0, 2 * settings.resolution / max(camera.width, camera.height))
        small = camera.resized(max(3, round(camera.width * factor)), max(3, round(camera.height * factor)))
        with torch.no_grad():
            views.append(depth_view(small, draw(small)))
        yield RENDERED * number / len(chosen), f"view {number} of {len(chosen)} rendered"
    return views
