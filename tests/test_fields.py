"""Radiance fields and pictures: what they hold, how rays see them, and what `fit-image` says."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from anchorfield import methods
from anchorfield.app.cli import main
from anchorfield.cuda_ext.hash_grid import HashGrid
from anchorfield.cuda_ext.marching import OccupancyLayout, Samples
from anchorfield.methods import Fit
from anchorfield.methods._fields import FieldModel, Region, moved
from anchorfield.methods.instant_ngp import InstantNgp
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.encodings import HashEncoding
from anchorfield.renderer.errors import UsageError
from anchorfield.renderer.fields import RadianceField, contract
from anchorfield.renderer.occupancy import OccupancyGrid, Space
from anchorfield.renderer.picture_field import PictureField, fit_picture, picture_grid
from anchorfield.renderer.proposals import Proposals
from anchorfield.renderer.raymarching import UnitRays, _of_samples, in_light, marched, trace
from anchorfield.renderer.rays import camera_rays, spread_of
from anchorfield.renderer.types import stacked
from anchorfield.scenes.scene import Scene, View

pytestmark = pytest.mark.usefixtures("one_torch_thread")
SIDE = 2.0


def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def dense_field(contracted: bool = False) -> RadianceField:
    """A field of made-up content: thick enough to hide what lies behind, with edges."""
    field = RadianceField(HashEncoding(HashGrid(levels=6, log2_table_size=12), random()), 16, contracted, random())
    with torch.no_grad():
        field.encoding.table.mul_(2e4)
        field.density_weights.mul_(3)
    return field


def model(cascades: int = 1, proposals: bool = False) -> FieldModel:
    region = Region(Space(torch.tensor([0.5, 0.0, 0.0]), SIDE), cascades, 0.05)
    sampler = Proposals(random()) if proposals else OccupancyGrid(OccupancyLayout(16, cascades, 3**0.5 / 128))
    return FieldModel(dense_field(cascades > 1), region, sampler, torch.tensor([0.2, 0.4, 0.6]))


def steps(shown: FieldModel, rays: UnitRays, jitter: Tensor) -> Samples:
    """Of a model with a grid."""
    assert shown.grid
    return marched(rays, shown.grid.bits, shown.grid.layout, jitter)


def camera(distance: float = 3.0) -> Camera:
    matrix = torch.eye(4)
    matrix[0, 3], matrix[2, 3] = -0.5, distance
    return Camera(matrix, 40.0, 40.0, 16.0, 12.0, 32, 24)


@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3))
def test_contraction_keeps_all_of_space_in_the_cube_and_the_unit_cube_in_its_middle(numbers: list[float]) -> None:
    point = torch.tensor([numbers], dtype=torch.float64)
    found = contract(point)
    assert bool(((found >= 0) & (found <= 1)).all())
    y = 2 * point - 1
    if float(y.abs().max()) <= 1:
        torch.testing.assert_close(found, 0.25 * y + 0.5)
    else:  # in the shell, on the same side
        assert float((found - 0.5).abs().max()) >= 0.25 - 1e-12
        assert bool((((found - 0.5) * y) >= 0).all())


def test_contraction_is_continuous_where_the_unit_cube_ends() -> None:
    inside, outside = torch.tensor([[1.0, 0.3, 0.6]]), torch.tensor([[1.0 + 1e-6, 0.3, 0.6]])
    torch.testing.assert_close(contract(inside), contract(outside), atol=2e-6, rtol=0)


@pytest.mark.parametrize(("cascades", "proposals"), [(1, False), (3, False), (3, True)])
def test_strips_are_the_picture(cascades: int, proposals: bool) -> None:
    """However many rows they have: every ray is its own, up to the rounding of its neighbours' sums."""
    whole = model(cascades, proposals).render(camera())
    for rows in (1, 7, 100):
        strips = stacked(list(model(cascades, proposals).strips(camera(), rows)))
        for name in ("rgb", "alpha", "depth"):
            torch.testing.assert_close(getattr(strips, name), getattr(whole, name), atol=1e-4, rtol=1e-4)
    assert float(whole.alpha.max()) > 0.9


def test_a_picture_is_what_its_rays_see_in_one_go() -> None:
    """Rounds of samples end rays that are opaque: by no more than the light that is not followed."""
    shown = model()
    frame = shown.render(camera())
    pose, space = camera().camera_to_world, shown.region.space
    pixels = torch.tensor([[x, y] for y in range(24) for x in range(32)])
    local = torch.stack([(pixels[:, 0] + 0.5 - 16) / 40, (pixels[:, 1] + 0.5 - 12) / 40, torch.ones(768)], 1)
    directions = torch.nn.functional.normalize(local @ pose[:3, :3].T, dim=1)
    rays = UnitRays(
        space.to_unit(pose[:3, 3].expand(768, 3)),
        directions,
        torch.full((768,), 0.05 / SIDE),
        torch.full((768,), 1 / 40),
    )
    with torch.no_grad():
        samples = steps(shown, rays, torch.zeros(768))
        seen, lit = trace(shown.field, rays, samples).seen, in_light(shown.field, rays, samples)
        culled = trace(shown.field, rays, lit).seen
    expected = seen.colour + seen.light[:, None] * shown.background
    torch.testing.assert_close(frame.rgb.reshape(-1, 3), expected, atol=2e-3, rtol=0)
    # What is dark already has no weight: to leave it out changes nothing.
    assert len(lit.t0) < len(samples.t0)
    torch.testing.assert_close(culled.colour, seen.colour, atol=1e-6, rtol=0)
    # Depth lies along the camera's z: between the two sides of the cube, where it is opaque.
    opaque = frame.alpha > 0.99
    assert bool(opaque.any())
    assert bool(((frame.depth >= 2 - 1e-3) & (frame.depth <= 4 + 1e-3))[opaque].all())


def test_density_is_per_length_of_the_world() -> None:
    shown = model()
    points = torch.rand(50, 3, generator=random()) * SIDE + torch.tensor([-0.5, -1.0, -1.0])
    unit: Tensor = shown.field.density((points - torch.tensor([0.5, 0, 0])) / SIDE + 0.5)
    torch.testing.assert_close(shown.density(points), unit.detach() / SIDE)
    assert shown.density(torch.tensor([[0.5, 0.0, 1.01]])).item() == 0


def unit_rays(shown: FieldModel, taken: Camera) -> UnitRays:
    """All rays of a camera."""
    origins, directions, z_scale = camera_rays(taken)
    near = torch.full((len(origins),), 0.05 / SIDE)
    return UnitRays(shown.region.space.to_unit(origins), directions, near, spread_of(taken, z_scale))


def turned(taken: Camera, turn: Tensor, way: Tensor) -> Camera:
    """The camera, turned about its centre by a rotation vector and shifted, in the world."""
    x, y, z = turn.tolist()
    pose = taken.camera_to_world
    pose[:3, :3] = torch.linalg.matrix_exp(torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]])) @ pose[:3, :3]
    pose[:3, 3] += way
    return dataclasses.replace(taken, world_to_camera=torch.linalg.inv(pose))


def test_moved_rays_are_those_of_the_camera_that_moved() -> None:
    shown, turn, way = model(), torch.tensor([0.3, -0.2, 0.5]), torch.tensor([0.1, 0.4, -0.2])
    moves = torch.stack([torch.zeros(6), torch.cat([turn, way / SIDE])])
    rays, expected = unit_rays(shown, camera()), unit_rays(shown, turned(camera(), turn, way))
    found = moved(rays, moves, torch.ones(len(rays), dtype=torch.long))
    torch.testing.assert_close(found.origins, expected.origins, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.directions, expected.directions, atol=1e-6, rtol=0)
    same = moved(rays, moves, torch.zeros(len(rays), dtype=torch.long))
    assert torch.equal(same.origins, rays.origins)


def test_a_camera_finds_back_to_where_its_photograph_was_taken() -> None:
    """The field is known, and where the camera is believed to stand is wrong by three degrees and some way."""
    shown = model()
    truth, wrong = camera(), turned(camera(), torch.tensor([0.02, -0.03, 0.04]), torch.tensor([0.04, 0.03, -0.04]))
    photograph = shown.render(truth).rgb.reshape(-1, 3)
    rays, moves = unit_rays(shown, wrong), torch.zeros(1, 6, requires_grad=True)
    view, optimiser = torch.zeros(len(rays), dtype=torch.long), torch.optim.Adam([moves], 3e-3)
    for step in range(150):
        optimiser.param_groups[0]["lr"] = 3e-3 * 0.02 ** (step / 150)
        jitter = torch.rand(len(rays), generator=torch.Generator().manual_seed(step))
        at = moved(rays, moves, view)
        seen = trace(shown.field, at, steps(shown, at, jitter)).seen
        loss = (seen.colour + seen.light[:, None] * shown.background - photograph).square().mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    found = turned(wrong, moves.detach()[0, :3], SIDE * moves.detach()[0, 3:])
    cube = torch.rand(500, 3, generator=random()) * SIDE + torch.tensor([-0.5, -1.0, -1.0])
    expected = pixels_of(truth, cube)
    apart = [float((pixels_of(at, cube) - expected).norm(dim=1).mean()) for at in (wrong, found)]
    assert apart[1] < 0.2 * apart[0]


def pixels_of(taken: Camera, points: Tensor) -> Tensor:
    """Where a camera sees points [N, 3], [N, 2]."""
    x, y, z = (points @ taken.world_to_camera[:3, :3].T + taken.world_to_camera[:3, 3]).unbind(1)
    return torch.stack([taken.fx * x / z + taken.cx, taken.fy * y / z + taken.cy], 1)


@pytest.mark.parametrize("empty", [False, True])
def test_gradients_to_rays_are_sums_over_their_samples(empty: bool) -> None:
    counts = torch.zeros(5) if empty else torch.tensor([3.0, 0, 2, 0, 1])
    starts = torch.cat([torch.zeros(1), counts.cumsum(0)]).int()
    ray = torch.arange(5).repeat_interleave(counts.long())
    length = torch.ones(len(ray))
    rows = torch.randn(5, 4, generator=random(), requires_grad=True)
    weights = torch.randn(len(ray), 4, generator=random())
    found = _of_samples(rows, Samples(starts, length, length, ray.int()))
    assert torch.equal(found, rows[ray])
    (gradient,) = torch.autograd.grad((found * weights).sum(), rows)
    torch.testing.assert_close(gradient, torch.zeros(5, 4).index_add(0, ray, weights))


def driven(steps: Iterator[Fit]) -> Iterator[Fit]:
    """Steps of a budget of 60, as the application drives them."""
    for fit in steps:
        fit.progress = fit.step / 60
        yield fit


def test_what_photographs_are_like_is_learnt_with_their_poses(sample_scene: Scene) -> None:
    """Each is brighter or darker than the last; all that is learnt of them is resumed, and only the look is shared."""
    views = list(sample_scene.views)
    for place, index in enumerate(sample_scene.train):
        pixels = sample_scene.views[index].load().float() * (0.4, 1.0)[place % 2]
        views[index] = dataclasses.replace(views[index], load=partial(torch.Tensor.byte, pixels))
    scene = dataclasses.replace(sample_scene, views=tuple(views))
    method = InstantNgp(appearance=4, refine=True)
    for fit in islice(driven(method.fit(scene)), 60):
        if fit.step == 40:
            early = copy.deepcopy(fit.state())
    *_, parts = islice(driven(method.fit(scene, early)), 20)
    whole = fit.model.state_dict()
    assert 0 < float(whole["moves"].abs().max()) < 0.2
    for name, tensor in parts.model.state_dict().items():
        assert torch.equal(tensor, whole[name]), name
    assert isinstance(fit.model, FieldModel)
    assert "moves" in fit.model.training_tensors
    shared = {name: tensor for name, tensor in whole.items() if name not in fit.model.training_tensors}
    view = scene.views[scene.test[0]].camera
    assert torch.equal(method.restore({**fit.state(), "model": shared}).render(view).rgb, fit.model.render(view).rgb)
    assert fit.model.codes is not None
    looks = fit.model.codes.detach().clone()
    shades = []
    for look in (looks[0::2].mean(0), looks[1::2].mean(0)):  # of the dark photographs, and of the others
        fit.model.codes.data = look.expand_as(looks)
        shades.append(float(fit.model.render(view.resized(50, 50)).rgb.mean()))
    assert shades[1] > 1.3 * shades[0], shades  # of 2.5, after so few steps


def cut_out(view: View) -> View:
    """With alpha: what lies about the middle of the picture."""
    rows, columns = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in view.load().shape[:2]), indexing="ij")
    alpha = 255 * (rows.square() + columns.square() < 0.3)
    return dataclasses.replace(view, load=partial(torch.cat, [view.load(), alpha[..., None].byte()], 2))


def test_an_object_is_marched_through_what_it_occupies_and_all_else_is_proposed(sample_scene: Scene) -> None:
    """By the alpha of the photographs; and a run on an object resumes bit for bit, its grid with it."""
    scene = dataclasses.replace(sample_scene, views=tuple(map(cut_out, sample_scene.views)))
    method, losses = InstantNgp(voxels=32), []
    for fit in islice(driven(method.fit(scene)), 50):
        losses.append(fit.losses["colour"])
        if fit.step == 40:
            early = copy.deepcopy(fit.state())
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert isinstance(fit.model, FieldModel)
    assert fit.model.grid
    assert fit.model.proposals is None
    assert "grid.density" in fit.model.training_tensors
    *_, parts = islice(driven(method.fit(scene, early)), 10)
    for name, tensor in parts.model.state_dict().items():
        assert torch.equal(tensor, fit.model.state_dict()[name]), name
    endless = next(method.fit(sample_scene)).model
    assert isinstance(endless, FieldModel)
    assert endless.proposals
    assert endless.grid is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"appearance": 40}, "--appearance: expected 0 to 32"),
        ({"width": 50}, "--width: expected 16, 32, 64, 128, got 50"),
        ({"voxels": 100}, "--voxels"),
        ({"samples": -1}, "--samples"),
        ({"features": 3}, "--features: expected 1, 2, 4, 8, got 3"),
        ({"finest": 2**30}, "--finest"),
    ],
)
def test_settings_that_the_kernels_cannot_do_are_refused_in_words(settings: dict[str, int], words: str) -> None:
    method = methods.load("instant_ngp")
    with pytest.raises(UsageError, match=words):
        type(method().grid)(**settings) if set(settings) & {"features", "finest"} else method(**settings)  # type: ignore[attr-defined]


def wave(width: int, height: int) -> Tensor:
    """A picture with an edge and with waves."""
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    return torch.stack([0.5 + 0.5 * torch.sin(20 * x), (x > y).float(), 0.5 + 0.5 * torch.cos(9 * y)], -1)


def test_a_picture_is_learnt() -> None:
    picture, field = wave(96, 64), PictureField(HashEncoding(picture_grid(96, 64, 12), random()), random())
    errors = list(islice(fit_picture(field, picture, random()), 60))
    assert errors[-1] < 1e-3 < errors[0]
    found = field.picture(96, 64)
    assert float((found - picture).square().mean()) < 1e-3
    assert field.picture(13, 5).shape == (5, 13, 3)


def test_fit_image_writes_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "wave.png", tmp_path / "fitted.PNG"
    pixels = (wave(96, 64) * 255).round().byte().numpy()
    Image.fromarray(pixels).save(source)
    assert main(["fit-image", str(source), "-o", str(out), "--seconds", "2", "--size", "12", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    found = np.asarray(Image.open(out)).astype(float)
    error = np.square((found - pixels) / 255).mean()
    assert -10 * np.log10(error) == pytest.approx(said["psnr"], abs=0.2)  # rounded to eight bits
    assert said["seconds"] >= 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["missing.png", "-o", "out.png"], 3, "missing.png"),
        (["made.png"], 2, "-o FILE"),
        (["made.png", "-o", "out.gif"], 2, ".png"),
        (["made.png", "-o", "out.png", "--seconds", "0"], 2, "--seconds"),
        (["made.png", "-o", "out.png", "--size", "40"], 2, "--size"),
    ],
)
def test_fit_image_refuses_in_words(
    arguments: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("made.png")
    assert main(["fit-image", *arguments]) == code
    assert words in capsys.readouterr().err
