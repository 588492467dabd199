"""Surfaces from views with exact depth, from distances and densities; tidying; the verb `mesh`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from test_app_capture import make_capture
from torch import Tensor

from anchorfield.app import Run, train
from anchorfield.app.cli import main
from anchorfield.app.journal import silent
from anchorfield.app.mesh import MeshSettings, extract, extracting, up_of, write
from anchorfield.app.paths import look_at
from anchorfield.methods import Model
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.renderer.meshing import (
    Mesh,
    components,
    decimated,
    face_areas,
    smoothed,
    with_normals,
    without_small_parts,
    without_weak_patches,
)
from anchorfield.renderer.meshing_fusion import Region, Volume
from anchorfield.renderer.meshing_grid import TILE, zero_surface
from anchorfield.renderer.meshing_views import depth_view, rays, spread
from anchorfield.renderer.types import Frame

pytestmark = pytest.mark.usefixtures("one_torch_thread")

Array = NDArray[np.float64]
Distance = Callable[[Tensor], Tensor]  # signed, of world points [..., 3]


def camera_at(eye: Array, target: Array | None = None, size: int = 80, focal: float = 1.4) -> Camera:
    pose = look_at(eye, np.zeros(3) if target is None else target, np.array([0.0, 0.0, 1.0]))
    world_to_camera = torch.from_numpy(np.linalg.inv(pose)).float()
    return Camera(world_to_camera, focal * size, focal * size, size / 2, size / 2, size, size)


def around(count: int, radius: float = 1.0) -> list[Camera]:
    """Cameras evenly about the origin."""
    steps = np.arange(count) + 0.5
    height, turn = 1 - 2 * steps / count, np.pi * (1 + 5**0.5) * steps
    ring = np.sqrt(1 - height**2)
    return [camera_at(radius * eye) for eye in np.stack([ring * np.cos(turn), ring * np.sin(turn), height], 1)]


SEEN: dict[tuple[Distance, bytes], Frame] = {}


def traced(distance: Distance, camera: Camera) -> Frame:
    """The exact view of a shape, by sphere tracing; colours tell the position."""
    key = distance, camera.world_to_camera.numpy().tobytes()
    if key not in SEEN:
        SEEN[key] = _traced(distance, camera)
    return SEEN[key]


def _traced(distance: Distance, camera: Camera, far: float = 4.0) -> Frame:
    pose = camera.camera_to_world.double()
    ray = rays(camera).double()
    length = ray.norm(dim=-1, keepdim=True)
    direction = ray / length @ pose[:3, :3].T
    travelled = torch.zeros_like(length)
    for _ in range(60):
        travelled = travelled + distance(pose[:3, 3] + travelled * direction)[..., None]
    hit = (distance(pose[:3, 3] + travelled * direction).abs() < 1e-5) & (travelled[..., 0] < far)
    points = pose[:3, 3] + travelled * direction
    depth = torch.where(hit, (travelled / length)[..., 0], 0.0)
    rgb = torch.where(hit[..., None], colour_at(points), 1.0)
    return Frame(rgb.float(), hit.float(), depth.float())


def colour_at(points: Tensor) -> Tensor:
    return (0.5 + points).clamp(0, 1)


def ball(points: Tensor) -> Tensor:
    return points.norm(dim=-1) - 0.3


TURN = torch.from_numpy(look_at(np.array([1.0, 2.0, 3.0]), np.zeros(3), np.array([0.3, 0.0, 1.0]))[:3, :3])
SIDES = torch.tensor([0.25, 0.2, 0.15], dtype=torch.float64)


def box(points: Tensor) -> Tensor:
    """A tilted box."""
    beyond = (points.double() @ TURN).abs() - SIDES
    return beyond.clamp_min(0).norm(dim=-1) + beyond.amax(-1).clamp_max(0)


def room(points: Tensor) -> Tensor:
    """The inside of a cube."""
    return 0.8 - points.abs().amax(-1)


def errors(mesh: Mesh, distance: Distance) -> Array:
    return np.asarray(distance(torch.from_numpy(mesh.vertices).double()).abs().numpy())


def as_trimesh(mesh: Mesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


SMALL = MeshSettings(resolution=64, smooth=0, agreeing=1)  # few exact views: none needs another's word


@pytest.mark.parametrize(("shape", "most"), [(ball, 0.001), (box, 0.002)])
def test_depth_of_a_known_shape_gives_that_shape(shape: Distance, most: float) -> None:
    mesh = extract(lambda camera: traced(shape, camera), SMALL, around(60))
    found = errors(mesh, shape)
    assert found.mean() < most * mesh.diagonal
    assert found.max() < 0.02 * mesh.diagonal
    solid = as_trimesh(mesh)
    assert solid.is_watertight
    assert solid.is_winding_consistent
    assert len(set(components(mesh))) == 1
    truth = {ball: 4 / 3 * np.pi * 0.3**3, box: float(8 * SIDES.prod())}[shape]
    assert solid.volume == pytest.approx(truth, rel=0.03)  # positive: faces look outwards


def test_every_part_of_a_known_shape_is_found() -> None:
    mesh = extract(lambda camera: traced(ball, camera), SMALL, around(24))
    directions = np.random.default_rng(0).normal(size=(2000, 3))
    truth = 0.3 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    assert trimesh.proximity.closest_point_naive(as_trimesh(mesh), truth[:50])[1].max() < 0.005
    assert cKDTree(mesh.vertices).query(truth)[0].max() < 0.02


def test_vertices_take_the_colours_and_normals_of_the_surface() -> None:
    mesh = extract(lambda camera: traced(ball, camera), SMALL, around(24))
    assert mesh.colours is not None
    assert mesh.normals is not None
    expected = 255 * colour_at(torch.from_numpy(mesh.vertices)).numpy()
    assert np.abs(mesh.colours - expected).mean() < 2
    outwards = mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
    assert (mesh.normals * outwards).sum(1).min() > 0.9
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-5)


def test_cameras_that_look_outwards_give_the_room_around_them() -> None:
    eyes = around(20, 0.2)
    cameras = [
        camera_at(camera.centre.double().numpy(), 2 * camera.centre.double().numpy(), focal=0.4) for camera in eyes
    ]
    mesh = extract(lambda camera: traced(room, camera), SMALL, cameras)
    assert np.quantile(errors(mesh, room), 0.95) < 0.01 * mesh.diagonal
    assert np.ptp(mesh.vertices, axis=0).min() > 1.5
    inwards = -(
        mesh.vertices[mesh.faces].mean(1)
        * np.cross(
            mesh.vertices[mesh.faces[:, 1]] - mesh.vertices[mesh.faces[:, 0]],
            mesh.vertices[mesh.faces[:, 2]] - mesh.vertices[mesh.faces[:, 0]],
        )
    ).sum(1)
    assert (inwards > 0).mean() > 0.99


def test_what_few_cameras_see_is_left_out_unless_asked_for() -> None:
    def two(points: Tensor) -> Tensor:
        return torch.minimum(ball(points), (points - points.new_tensor([0.9, 0, 0])).norm(dim=-1) - 0.2)

    cameras = [camera for camera in around(40) if camera.centre[2] > 0.1]
    subject = extract(lambda camera: traced(two, camera), SMALL, cameras)
    everything = extract(lambda camera: traced(two, camera), replace(SMALL, share=0.0), cameras)
    assert subject.vertices[:, 0].max() < 0.4
    assert everything.vertices[:, 0].max() > 0.7


def test_the_mesh_keeps_to_the_budget_of_faces() -> None:
    mesh = extract(lambda camera: traced(ball, camera), replace(SMALL, faces=1000), around(24))
    assert 900 <= len(mesh) <= 1000
    assert errors(mesh, ball).mean() < 0.003 * mesh.diagonal


def test_floating_fog_that_a_single_view_shows_is_left_out() -> None:
    cameras = around(24)

    def draw(camera: Camera) -> Frame:
        frame = traced(ball, camera)
        if not torch.equal(camera.world_to_camera, cameras[3].world_to_camera):
            return frame
        depth, alpha = frame.depth.clone(), frame.alpha.clone()
        depth[5:30, 40:60], alpha[5:30, 40:60] = 0.9, 1.0
        return replace(frame, depth=depth, alpha=alpha)

    mesh = extract(draw, replace(SMALL, agreeing=3), cameras)
    assert np.linalg.norm(mesh.vertices, axis=1).max() < 0.32


def test_progress_grows_to_the_end_and_may_be_abandoned() -> None:
    shares, texts = zip(*extracting(lambda camera: traced(ball, camera), SMALL, around(8)), strict=True)
    assert list(shares) == sorted(shares)
    assert shares[-1] == 1
    assert all(texts)
    other = extracting(lambda camera: traced(ball, camera), SMALL, around(8))
    next(other)
    other.close()


def test_the_same_views_give_the_same_mesh() -> None:
    first, second = (extract(lambda camera: traced(ball, camera), SMALL, around(8)) for _ in range(2))
    np.testing.assert_array_equal(first.vertices, second.vertices)
    np.testing.assert_array_equal(first.faces, second.faces)
    np.testing.assert_array_equal(first.colours, second.colours)


def test_one_view_is_enough() -> None:
    mesh = extract(lambda camera: traced(ball, camera), SMALL, around(1))
    assert errors(mesh, ball).mean() < 0.005
    assert len(mesh) > 100


@pytest.mark.parametrize("depth", [0.0, float("nan"), float("inf"), -1.0])
def test_views_without_depth_are_an_error_in_words(depth: float) -> None:
    def draw(camera: Camera) -> Frame:
        plane = torch.full((camera.height, camera.width), depth)
        return Frame(torch.zeros(camera.height, camera.width, 3), torch.ones_like(plane), plane)

    with pytest.raises(DataError, match="nothing to mesh: no view shows anything opaque"):
        extract(draw, SMALL, around(4))


def test_transparent_views_are_an_error_in_words() -> None:
    def draw(camera: Camera) -> Frame:
        return replace(traced(ball, camera), alpha=torch.full((camera.height, camera.width), 0.2))

    with pytest.raises(DataError, match="no view shows anything opaque"):
        extract(draw, SMALL, around(4))


def test_no_cameras_are_an_error_in_words() -> None:
    with pytest.raises(UsageError, match="needs cameras"):
        extract(lambda camera: traced(ball, camera), SMALL)
    with pytest.raises(DataError, match="no training views"):
        extract(lambda camera: traced(ball, camera), SMALL, [])


@pytest.mark.parametrize(
    "setting", [{"resolution": 1}, {"resolution": 10**6}, {"faces": 0}, {"share": 1.5}, {"smallest": -1}, {"views": 0}]
)
def test_impossible_settings_are_an_error_that_names_them(setting: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=f"--{next(iter(setting))}: expected"):
        MeshSettings(**setting)  # type: ignore[arg-type]


class _Field(Model):
    """A shape that also says what it is."""

    def render(self, camera: Camera) -> Frame:
        return traced(ball, camera)


class _Distance(_Field):
    def distance(self, points: Tensor) -> Tensor:
        return ball(points)


class _Density(_Field):
    def density(self, points: Tensor) -> Tensor:
        return 1000 * torch.sigmoid(-200 * ball(points))


class _Meshed(_Field):
    def mesh(self) -> Mesh:
        made = trimesh.creation.icosphere(4, 0.3)
        return Mesh(made.vertices.astype(np.float32), made.faces.astype(np.int32))


@pytest.mark.parametrize(("model", "most"), [(_Distance(), 1e-3), (_Density(), 2e-2), (_Meshed(), 1e-3)])
def test_the_best_that_a_model_offers_is_used(model: Model, most: float) -> None:
    mesh = extract(model, SMALL, around(24))
    assert errors(mesh, ball).max() < most
    assert as_trimesh(mesh).is_watertight
    assert as_trimesh(mesh).volume > 0
    assert mesh.colours is not None


class _Haunted(_Density):
    """With a lump that its pictures do not show."""

    def density(self, points: Tensor) -> Tensor:
        lump = (points - torch.tensor([0.3, 0.3, 0.3])).norm(dim=1) - 0.12
        return super().density(points) + 1000 * torch.sigmoid(-200 * lump)


def test_a_density_that_no_view_shows_is_no_surface() -> None:
    mesh = extract(_Haunted(), SMALL, around(24))
    assert errors(mesh, ball).max() < 2e-2


def test_the_fused_distance_is_that_of_the_formula() -> None:
    camera = Camera(torch.eye(4), 50.0, 50.0, 32.0, 32.0, 64, 64)
    plane = torch.full((64, 64), 2.0)
    view = depth_view(camera, Frame(torch.zeros(64, 64, 3), torch.ones(64, 64), plane))
    where = Region(torch.tensor([-0.4, -0.4, 1.6]), 0.05, (16, 16, 16), 0.2, 0.0)
    volume = Volume(where, [view])
    volume.integrate(view)
    weights = volume.weights
    assert (weights > 0).any()
    z = 1.6 + 0.05 * (volume.blocks[:, 2, None] * 8 + torch.arange(8).repeat(64)[None])  # the last axis of a block is z
    expected = ((2 - z) / 0.2).clamp(-1, 1)
    known = weights > 0
    torch.testing.assert_close((volume.sums / weights)[known], expected[known].float(), atol=1e-4, rtol=0)
    assert not (known & (z > 2.2 + 1e-4)).any()  # hidden behind the plane


def test_tiles_hang_together() -> None:
    size = TILE + 30
    axis = np.arange(size + 1) - size / 2
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    values = (np.sqrt(x * x + y * y + z * z) - 40.3).astype(np.float32)

    def sample(first: tuple[int, int, int], count: tuple[int, int, int]) -> NDArray[np.float32]:
        return values[tuple(slice(f, f + c) for f, c in zip(first, count, strict=True))]

    tiles = [(int(i), int(j), int(k)) for i, j, k in np.ndindex(2, 2, 2)]
    mesh = zero_surface(sample, tiles, (size, size, size), np.full(3, -size / 2), 1.0, 2)
    assert as_trimesh(mesh).is_watertight
    assert len(set(components(mesh))) == 1
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - 40.3).max() < 0.02


def test_a_surface_through_grid_points_stays_whole() -> None:
    axis = np.arange(17, dtype=np.float32) - 8
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    values = np.maximum(np.maximum(np.abs(x), np.abs(y)), np.abs(z)) - 5  # exactly 0 on grid points
    mesh = zero_surface(lambda first, count: values, [(0, 0, 0)], (16, 16, 16), np.zeros(3), 1.0, 1)
    assert as_trimesh(mesh).is_watertight


def test_cells_with_an_unknown_corner_stay_open() -> None:
    axis = np.arange(17, dtype=np.float32) - 8
    values = np.broadcast_to(axis + 0.25, (17, 17, 17)).copy()
    values[:, :5] = np.nan
    mesh = zero_surface(lambda first, count: values, [(0, 0, 0)], (16, 16, 16), np.zeros(3), 1.0, 1)
    assert mesh.vertices[:, 1].min() == 5
    assert len(mesh) == 2 * 16 * 11


def sheet(size: int) -> Mesh:
    """A flat square of 2 size^2 triangles."""
    row, column = (a.ravel() for a in np.meshgrid(np.arange(size), np.arange(size), indexing="ij"))
    at = row * (size + 1) + column
    faces = np.concatenate([np.stack([at, at + 1, at + size + 2], 1), np.stack([at, at + size + 2, at + size + 1], 1)])
    y, x = np.meshgrid(np.arange(size + 1.0), np.arange(size + 1.0), indexing="ij")
    return Mesh(np.stack([x, y, 0 * x], -1).reshape(-1, 3).astype(np.float32), faces.astype(np.int32))


def test_weak_patches_stay_only_where_they_fill_a_hole() -> None:
    mesh = sheet(12)
    centre = np.abs(mesh.vertices[:, :2] - 4).max(1) <= 2  # all around it is sure
    side = mesh.vertices[:, 0] >= 9  # a flap that holds on one side
    filled = without_weak_patches(mesh, ~centre & ~side)
    assert (np.abs(filled.vertices[:, :2] - 4).max(1) < 1).any()
    assert filled.vertices[:, 0].max() == 9
    assert len(without_weak_patches(mesh, np.ones(len(mesh.vertices), bool))) == len(mesh)
    assert len(without_weak_patches(mesh, np.zeros(len(mesh.vertices), bool))) == 0


def test_small_parts_go_by_their_area() -> None:
    large, small = sheet(10), sheet(2)
    vertices = np.concatenate([large.vertices, small.vertices + 100])
    both = Mesh(vertices, np.concatenate([large.faces, small.faces + len(large.vertices)]))
    assert len(without_small_parts(both, 0.05)) == len(large)
    assert len(without_small_parts(both, 0.03)) == len(both)
    assert without_small_parts(both, 0.05).vertices.max() <= 10


def test_decimation_keeps_a_plane_and_smoothing_does_not_shrink() -> None:
    few = decimated(sheet(30), 100)
    assert len(few) <= 100
    assert face_areas(few).sum() == pytest.approx(900, rel=0.05)
    made = trimesh.creation.icosphere(4, 1.0)
    noise = np.random.default_rng(0).normal(0, 0.01, made.vertices.shape)
    rough = Mesh((made.vertices + noise).astype(np.float32), made.faces.astype(np.int32))
    even = smoothed(rough, 5)
    off = [np.abs(np.linalg.norm(mesh.vertices, axis=1) - 1).mean() for mesh in (rough, even)]
    assert off[1] < 0.6 * off[0]
    assert np.linalg.norm(even.vertices, axis=1).mean() == pytest.approx(1, abs=2e-3)


def test_normals_of_degenerate_faces_are_finite() -> None:
    flat = Mesh(np.zeros((3, 3), np.float32), np.array([[0, 1, 2]], np.int32))
    assert np.isfinite(with_normals(flat).normals).all()  # type: ignore[arg-type]


def test_views_are_chosen_far_from_each_other() -> None:
    cameras = around(30)
    chosen = spread(cameras, 6)
    assert len(set(chosen)) == 6
    centres = np.stack([cameras[index].centre.numpy() for index in chosen])
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1) + 9 * np.eye(6)
    assert apart.min() > 0.8
    assert spread(cameras, 100) == list(range(30))


def test_up_is_what_is_up_in_the_pictures() -> None:
    level = [camera for camera in around(30) if abs(float(camera.centre[2])) < 0.5]
    np.testing.assert_allclose(up_of(level, np.eye(4)), [0, 0, 1], atol=0.15)
    quarter = np.array([[1.0, 0, 0, 5], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    np.testing.assert_allclose(up_of(level, quarter), [0, -1, 0], atol=0.15)


@dataclass(frozen=True)
class _Trained:
    run: Run
    capture: Path
    folder: Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> _Trained:
    folder = tmp_path_factory.mktemp("mesh")
    capture = make_capture(folder / "capture")
    run = train(capture, settings={"cap": 300, "sh-degree": 0}, steps=60, out=folder / "run", show=silent)
    return _Trained(run, capture, folder)


COARSE = ("--resolution", "32", "--share", "0", "--smallest", "0", "--agreeing", "1")


def test_the_verb_writes_every_format(trained: _Trained, capsys: pytest.CaptureFixture[str]) -> None:
    for ending in ("ply", "glb", "obj"):
        out = trained.folder / f"scene.{ending}"
        assert main(["mesh", str(trained.run.path), "-o", str(out), "--json", *COARSE]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["faces"] > 0
        assert facts["bytes"] == out.stat().st_size
        read = trimesh.load(out, force="mesh", process=False)
        assert len(read.faces) == facts["faces"]


def test_the_file_is_in_the_frame_that_is_asked_for(trained: _Trained) -> None:
    out = trained.folder / "frame.ply"
    settings = MeshSettings(resolution=32, share=0, smallest=0, agreeing=1)
    mesh = write(trained.run, out, settings)
    matrix = trained.run.source_from_world
    read = trimesh.load(out, process=False)
    np.testing.assert_allclose(read.vertices, mesh.vertices @ matrix[:3, :3].T + matrix[:3, 3], rtol=1e-4, atol=1e-4)
    assert main(["mesh", str(trained.run.path), "-o", str(out), "--frame", "local", *COARSE]) == 0
    np.testing.assert_allclose(trimesh.load(out, process=False).vertices, mesh.vertices, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "needs -o FILE"),
        (("-o", "scene.fbx"), 2, "unknown ending '.fbx' for a mesh. Known: .ply, .glb, .obj"),
        (("-o", "scene.ply", "--resolution", "3"), 2, "--resolution: expected 16 to 2048, got 3"),
        (("-o", "scene.ply", "--faces", "0"), 2, "--faces: expected"),
        (("-o", "scene.ply", "--scene", "nowhere"), 3, "nowhere"),
    ],
)
def test_the_verb_explains_what_is_wrong(
    trained: _Trained,
    arguments: tuple[str, ...],
    code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["mesh", str(trained.run.path), *arguments]) == code
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
