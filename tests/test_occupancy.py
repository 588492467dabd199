"""The occupancy grid: what is asked when, what is remembered, which bits follow; and rays of cameras."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from anchorfield.cuda_ext.marching import OccupancyLayout, march
from anchorfield.renderer.cameras import Camera, rays
from anchorfield.renderer.occupancy import UNKNOWN, OccupancyGrid, Space, cells_of, is_due, packed
from anchorfield.renderer.rays import camera_rays
from reference import marching as plain
from reference.made_scenes import generator, pose, uniform

SMALL, NESTED = OccupancyLayout(16), OccupancyLayout(8, 3)
ALL = 16**3  # cells at most
pytestmark = pytest.mark.usefixtures("one_torch_thread")


def ball(points: Tensor) -> Tensor:
    """Dense within 0.2 of the middle."""
    return torch.where((points - 0.5).norm(dim=1) < 0.2, 1000.0, 0.0)


def voxels(bits: Tensor, layout: OccupancyLayout) -> Tensor:
    """The bits as truth values by cascade, x, y, z, index by index."""
    shape = layout.cascades, *[layout.resolution] * 3
    found = torch.zeros(shape, dtype=torch.bool)
    for cascade, x, y, z in itertools.product(*map(range, shape)):
        i = plain.morton((x, y, z))
        found[cascade, x, y, z] = bool(bits[cascade, i // 8] >> i % 8 & 1)
    return found


def centres(layout: OccupancyLayout, cascade: int = 0) -> Tensor:
    """Centres of the voxels by x, y, z."""
    ticks = ((torch.arange(layout.resolution) + 0.5) / layout.resolution - 0.5) * 2**cascade + 0.5
    return torch.stack(torch.meshgrid(ticks, ticks, ticks, indexing="ij"), -1)


# ------------------------------------------------------------------------------------------------------------- the bits
def test_cells_are_in_morton_order() -> None:
    cells = cells_of(8, torch.device("cpu")).tolist()
    assert [plain.morton(cell) for cell in cells] == list(range(512))


def test_bits_are_packed_from_the_lowest() -> None:
    occupied = torch.rand(3, 800, generator=generator(0)) < 0.5
    expected = (occupied.view(3, -1, 8) * 2 ** torch.arange(8)).sum(-1)
    assert torch.equal(packed(occupied).long(), expected)
    assert packed(torch.ones(1, 8, dtype=torch.bool)).tolist() == [[255]]


def test_a_ball_is_found() -> None:
    """Cells inside it are occupied, cells outside are not; rays meet samples only there."""
    grid, random = OccupancyGrid(SMALL), generator(0)
    assert bool((grid.bits == 255).all())
    for _ in range(6):
        grid.update(ball, SMALL.cells, random)
    found, distance = voxels(grid.bits, SMALL)[0], (centres(SMALL) - 0.5).norm(dim=-1)
    reach = 3**0.5 / 2 / 16
    assert bool(found[distance < 0.2 - reach].all())
    assert not bool(found[distance > 0.2 + reach].any())
    one, zero = torch.ones(1), torch.zeros(1)
    forwards = torch.tensor([[1.0, 0.0, 0.0]])
    samples = march(torch.tensor([[-1.0, 0.52, 0.48]]), forwards, zero, 9 * one, zero, grid.bits, SMALL)
    assert len(samples.t0) == pytest.approx(0.4 / SMALL.smallest_step, abs=2 / 16 / SMALL.smallest_step)


def test_coarser_cascades_hold_what_finer_ones_do() -> None:
    """As they would if each finer bit were looked up by the place of its voxel."""
    grid, random = OccupancyGrid(NESTED), generator(1)

    def scattered(points: Tensor) -> Tensor:
        near = (points - 0.5).abs().amax(1) < 1  # nothing of its own in the outermost shell
        return (torch.rand(len(points), generator=random) < 0.05) * near * 100.0

    grid.update(scattered, ALL, random)
    found = voxels(grid.bits, NESTED)
    own = grid.density > grid.threshold
    for cascade in range(3):
        expected = torch.zeros(8, 8, 8, dtype=torch.bool)
        for i, (x, y, z) in enumerate(cells_of(8, own.device).tolist()):
            expected[x, y, z] = own[cascade, i]
        if cascade:
            for x, y, z in found[cascade - 1].nonzero().tolist():
                expected[2 + x // 2, 2 + y // 2, 2 + z // 2] = True
        assert torch.equal(found[cascade], expected)
    assert found[2].sum() > own[2].sum()


# ---------------------------------------------------------------------------------------------------- the state machine
def test_updates_are_due_rarely_in_the_end() -> None:
    assert [step for step in range(40) if is_due(step)] == [*range(33), 34, 36, 38]
    assert [step for step in range(250, 320) if is_due(step)] == [255, 256, 272, 288, 304]


def test_all_cells_are_asked_or_a_share_of_any_and_of_the_occupied() -> None:
    grid, random = OccupancyGrid(NESTED), generator(2)
    asked: list[Tensor] = []

    def field(points: Tensor) -> Tensor:
        asked.append(points)
        return ball(points)

    cells = 8**3
    grid.update(field, 3 * cells, random)
    points = torch.cat(asked)
    assert len(points) == 3 * cells
    for cascade in range(3):  # each cell once, at a point inside
        inside = (points[cascade * cells : (cascade + 1) * cells] - 0.5) / 2**cascade + 0.5
        assert torch.equal((inside * 8).floor().to(torch.int16), cells_of(8, points.device))
    asked.clear()
    occupied = int((grid.density > grid.threshold).sum())
    assert 0 < occupied < 3 * cells // 4
    grid.update(field, 3 * cells // 2, random)
    assert len(torch.cat(asked)) == 3 * cells // 4 + occupied
    asked.clear()
    grid.density.fill_(1.0)
    grid.update(field, 3 * cells // 2, random)
    assert len(torch.cat(asked)) == 2 * (3 * cells // 4)


def test_cells_are_occupied_until_they_were_asked() -> None:
    """And those that were not are asked first, so that soon all are known."""
    grid, random = OccupancyGrid(NESTED), generator(3)
    unknown = [grid.density.numel()]
    while unknown[-1]:
        grid.update(lambda points: torch.zeros(len(points)), 200, random)
        unknown.append(int((grid.density == UNKNOWN).sum()))
        assert unknown[-1] < unknown[-2]
        own = voxels(grid.bits, NESTED)[0]
        inner = torch.zeros(8, 8, 8, dtype=torch.bool)
        inner[tuple(cells_of(8, own.device).long().unbind(1))] = grid.density[0] == UNKNOWN
        assert torch.equal(own, inner)
    assert not bool(grid.bits.any())
    assert len(unknown) < 60


def test_cells_decay_and_rise_at_once() -> None:
    """By 0.95 whether asked or not; a new value counts where it is larger."""
    grid, random = OccupancyGrid(SMALL), generator(3)
    grid.update(lambda points: torch.full((len(points),), 2.0), ALL, random)
    first = 2 * SMALL.smallest_step
    torch.testing.assert_close(grid.density, torch.full_like(grid.density, first))
    grid.update(lambda points: torch.zeros(len(points)), ALL // 2, random)
    torch.testing.assert_close(grid.density, torch.full_like(grid.density, 0.95 * first))
    grid.update(lambda points: torch.full((len(points),), 3.0), ALL, random)
    torch.testing.assert_close(grid.density, torch.full_like(grid.density, 1.5 * first))


def test_the_threshold_is_the_mean_but_not_more() -> None:
    grid = OccupancyGrid(NESTED)
    grid.density.zero_()
    grid.density[0, :100], grid.density[0, 100:200], grid.density[1] = 0.004, -1, 5
    assert grid.threshold == pytest.approx(0.004 * 100 / 512)
    grid.density[0] = 1
    assert grid.threshold == 0.01


def test_what_is_not_a_number_counts_as_empty() -> None:
    grid = OccupancyGrid(SMALL)
    grid.update(lambda points: torch.where(points[:, 0] < 0.5, torch.nan, -1.0), ALL, generator(0))
    assert bool((grid.density == 0).all())


def test_random_numbers_come_from_the_generator_alone() -> None:
    grids = []
    for seed in (5, 5, 6):
        grid, random = OccupancyGrid(SMALL), generator(seed)
        for most in (ALL, ALL, 1000, 1000):
            grid.update(lambda points: 1 / points.norm(dim=1), most, random)
            torch.rand(3)
        grids.append(grid.density)
    assert torch.equal(grids[0], grids[1])
    assert not torch.equal(grids[0], grids[2])


def test_a_resumed_grid_goes_on_as_if_nothing_had_happened() -> None:
    grid, random = OccupancyGrid(NESTED), generator(7)
    grid.update(ball, 500, random)
    stored, stream = {name: value.clone() for name, value in grid.state_dict().items()}, random.get_state()
    grid.update(ball, 500, random)
    other = OccupancyGrid(NESTED)
    other.load_state_dict(stored)
    other.update(ball, 500, torch.Generator().set_state(stream))
    for name, value in grid.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])


# ------------------------------------------------------------------------------------------------------------- cameras
def looking(at: float, width: int = 40) -> Camera:
    """Along the world's z from z = -3, at x = `at`, with a view 0.8 wide at depth 2.5."""
    matrix = torch.eye(4)
    matrix[0, 3], matrix[2, 3] = -at, 3
    return Camera(matrix, 125.0, 125.0, width / 2, 15.0, width, 30)


def test_cells_that_too_few_cameras_see_are_out_for_ever() -> None:
    """Corner by corner, as the projection of each says."""
    layout, space = OccupancyLayout(8, 2), Space(torch.tensor([0.1, -0.2, 0.5]), 2.0)
    cameras = [looking(0.0), looking(0.2), looking(-3.0)]
    grid = OccupancyGrid(layout)
    grid.mark_unseen(cameras, space)
    cells = cells_of(8, grid.density.device).float()
    for cascade in range(2):
        views = torch.zeros(len(cells), dtype=torch.int64)
        for camera in cameras:
            seen = torch.zeros(len(cells), dtype=torch.bool)
            for corner in itertools.product((0, 1), repeat=3):
                unit = ((cells + torch.tensor(corner)) / 8 - 0.5) * 2**cascade + 0.5
                x, y, z = (space.to_world(unit) + camera.world_to_camera[:3, 3]).unbind(1)
                u, v = camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy
                seen |= (z > 0) & (u >= 0) & (u < camera.width) & (v >= 0) & (v < camera.height)
            views += seen
        assert torch.equal(grid.density[cascade] < 0, views < 2)
        assert 0 < int((views < 2).sum()) < len(cells)
    out = grid.density < 0
    assert torch.equal(grid.bits, packed(~out))
    grid.update(lambda points: torch.full((len(points),), 50.0), ALL, generator(0))
    assert torch.equal(grid.density < 0, out)
    assert torch.equal(voxels(grid.bits, layout)[0], voxels(packed(~out), layout)[0])


def test_space_and_back() -> None:
    space = Space(torch.tensor([1.0, 2.0, 3.0]), 4.0)
    points = uniform(generator(0), -5, 5, 20, 3)
    torch.testing.assert_close(space.to_world(space.to_unit(points)), points)
    torch.testing.assert_close(space.to_unit(torch.tensor([1.0, 2.0, 5.0])), torch.tensor([0.5, 0.5, 1.0]))


def made_camera() -> Camera:
    return Camera(pose(generator(3)), 30.0, 28.0, 8.5, 5.25, 16, 12)


def test_camera_rays_hit_the_points_behind_the_pixels() -> None:
    camera = made_camera()
    origins, directions, z_scale = camera_rays(camera)
    assert origins.shape == directions.shape == (12 * 16, 3)
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(192, dtype=torch.float64))
    depth = uniform(generator(1), 1, 5, 192)
    points = origins + (depth / z_scale)[:, None] * directions
    seen = points @ camera.world_to_camera[:3, :3].T + camera.world_to_camera[:3, 3]
    expected = rays(camera).reshape(-1, 3).double() * depth[:, None]
    torch.testing.assert_close(seen.float(), expected.float())  # the pose is rigid to float32


def test_camera_rays_of_some_pixels() -> None:
    camera = made_camera()
    pixels = torch.tensor([[0, 0], [15, 11], [3, 7]])
    for some, every in zip(camera_rays(camera, pixels), camera_rays(camera), strict=True):
        assert torch.equal(some, every[pixels[:, 1] * 16 + pixels[:, 0]])


def test_camera_rays_are_differentiable_in_the_pose() -> None:
    camera = made_camera()
    pixels = torch.tensor([[2, 3], [10, 1]])

    def along(matrix: Tensor) -> tuple[Tensor, Tensor]:
        moved = Camera(matrix, camera.fx, camera.fy, camera.cx, camera.cy, camera.width, camera.height)
        return camera_rays(moved, pixels)[:2]

    assert torch.autograd.gradcheck(along, (camera.world_to_camera.clone().requires_grad_(),))
