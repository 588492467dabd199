"""Modes: strips equal the whole, counts equal brute force, colours mean what they say."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anchorfield.app.view import pictures
from anchorfield.app.view.pictures import Look, Pictures
from anchorfield.methods import Model
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.renderer.splatting import flattened, splat
from anchorfield.renderer.strips import LEAST, MOST, STOP, blend_counts, splat_strips
from anchorfield.renderer.types import Frame, Gaussians, stacked
from anchorfield.scenes.scene import Scene, View

BACKGROUND = torch.tensor([0.2, 0.4, 0.6])


def some(count: int = 400, seed: int = 0) -> Gaussians:
    random = torch.Generator().manual_seed(seed)
    means = torch.randn(count, 3, generator=random) * torch.tensor([1.2, 0.9, 0.4]) + torch.tensor([0.0, 0, 2.5])
    return Gaussians(
        means,
        torch.randn(count, 3, generator=random) * 0.5 - 2.2,
        torch.randn(count, 4, generator=random),
        torch.randn(count, generator=random) + 1,
        0.4 * torch.randn(count, 4, 3, generator=random),
    )


def lens(width: int = 100, height: int = 90, pose: torch.Tensor | None = None) -> Camera:
    return Camera(torch.eye(4) if pose is None else pose, 80, 84, width / 2 + 3, height / 2 - 2, width, height)


class Splats(Model):
    def __init__(self, held: Gaussians):
        super().__init__()
        self.held = held

    def gaussians(self, camera: Camera | None = None) -> Gaussians:
        return self.held

    def render(self, camera: Camera) -> Frame:
        return splat(self.held, camera, BACKGROUND).frame()


class Plain(Model):
    """A grey plane across the view, without Gaussians."""

    def render(self, camera: Camera) -> Frame:
        shape = camera.height, camera.width
        return Frame(torch.full((*shape, 3), 0.5), torch.ones(shape), torch.full(shape, 2.0))


@dataclass
class Open:
    """What a document shows to pictures."""

    model: Model | None
    scene: Scene | None = None
    edited: bool = False
    editor: None = None
    background: torch.Tensor = BACKGROUND

    def draw(self, camera: Camera) -> Frame:
        assert self.model
        return self.model.render(camera)


def whole(drawn: Frame | object) -> Frame:
    return drawn if isinstance(drawn, Frame) else stacked(list(drawn))  # type: ignore[call-overload]


@pytest.mark.parametrize("rows", [16, 32, 48, 64, 1000])
@pytest.mark.parametrize("antialiased", [False, True])
def test_strips_are_the_whole_picture_bit_for_bit(rows, antialiased):
    gaussians = replace(some(), antialiased=antialiased)
    frame = splat(gaussians, lens(), BACKGROUND).frame()
    found = stacked(list(splat_strips(gaussians, lens(), BACKGROUND, rows)))
    for name in ("rgb", "alpha", "depth"):
        assert torch.equal(getattr(found, name), getattr(frame, name)), name


def test_a_large_picture_of_gaussians_comes_in_strips_and_is_the_same():
    big = lens(700, 500)
    drawn = Pictures(Open(Splats(some()))).draw(big, Look())
    assert not isinstance(drawn, Frame)
    strips = list(drawn)
    assert len(strips) > 2
    assert torch.equal(stacked(strips).rgb, splat(some(), big, BACKGROUND).rgb)
    assert isinstance(Pictures(Open(Plain())).draw(big, Look()), Frame)


def counted(gaussians: Gaussians, camera: Camera) -> torch.Tensor:
    """Counts by looking at every Gaussian in every pixel, front to back."""
    flat = flattened(gaussians, camera)
    counts = torch.zeros(camera.height, camera.width, dtype=torch.int32)
    passed = torch.ones(camera.height, camera.width)
    y, x = torch.meshgrid(torch.arange(camera.height) + 0.5, torch.arange(camera.width) + 0.5, indexing="ij")
    for i in flat.depths.masked_fill(~flat.visible, math.inf).argsort(stable=True)[: int(flat.visible.sum())].tolist():
        dx, dy = x - flat.means2d[i, 0], y - flat.means2d[i, 1]
        a, b, c = flat.conics[i]
        alpha = flat.opacities[i] * torch.exp(-(0.5 * (a * dx.square() + c * dy.square()) + b * dx * dy))
        alpha = alpha.clamp_max(MOST)
        blends = (alpha >= LEAST) & (passed > STOP)
        counts += blends
        passed = torch.where(blends, passed * (1 - alpha), passed)
    return counts


@pytest.mark.parametrize("rows", [16, 64, None])
def test_counts_are_those_of_brute_force(rows):
    found = torch.cat(list(blend_counts(some(), lens(), rows)))
    expected = counted(some(), lens())
    assert found.shape == expected.shape
    assert torch.equal(found, expected)
    assert int(expected.max()) > 5


def test_the_count_mode_shows_them():
    picture = Pictures(Open(Splats(some())))
    look = Look("count")
    frame = whole(picture.draw(lens(), look))
    assert torch.equal(frame.extras["count"], counted(some(), lens()))
    assert picture.paint(frame, lens(), look).shape == (90, 100, 3)
    with pytest.raises(UsageError, match="Gaussians"):
        whole(Pictures(Open(Plain())).draw(lens(), look))


def test_normals_of_a_slanted_plane():
    camera = lens(64, 48)
    slope = torch.tensor([0.3, -0.2])
    y, x = torch.meshgrid(torch.arange(48) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    u, v = (x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy
    depth = 2 / (1 - slope[0] * u - slope[1] * v)  # z = 2 + slope . (X, Y)
    found = pictures.normals(Frame(torch.zeros(48, 64, 3), torch.ones(48, 64), depth), camera)
    expected = torch.tensor([slope[0], slope[1], -1.0])
    expected = expected / expected.norm()
    assert torch.allclose(found[1:-1, 1:-1], expected.expand(46, 62, 3), atol=2e-4)


def test_depth_is_brighter_where_it_is_nearer_and_black_where_nothing_is():
    depth = torch.linspace(1, 5, 100).expand(20, 100).clone()
    alpha = torch.ones(20, 100)
    alpha[:, :10] = 0
    painted = pictures.painted(Frame(torch.zeros(20, 100, 3), alpha, depth), lens(100, 20), Look("depth"))
    brightness = painted.astype(int).sum(-1)[0]
    assert (painted[:, :10] == 0).all()
    assert (np.diff(brightness[10:]) <= 0).all()
    empty = Frame(torch.zeros(4, 4, 3), torch.zeros(4, 4), torch.zeros(4, 4))
    assert (pictures.painted(empty, lens(4, 4), Look("depth")) == 0).all()


def test_colours_grow_brighter_evenly():
    assert (np.diff(pictures.COLOURS[::8].astype(int) @ [299, 587, 114]) > 0).all()


def capture(photo: torch.Tensor, *cameras: Camera) -> Scene:
    views = tuple(View(f"{i}", camera, load=lambda: photo) for i, camera in enumerate(cameras))
    return Scene("made", Path("made"), views, tuple(range(len(views))), (), None, np.eye(4))


def shifted(x: float, z: float = 0.0) -> torch.Tensor:
    pose = torch.eye(4)
    pose[0, 3], pose[2, 3] = -x, -z
    return pose


def test_the_error_at_a_photographs_place_is_that_photographs():
    photo = torch.randint(0, 255, (90, 100, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    frame = whole(Pictures(Open(Plain(), capture(photo, lens()))).draw(lens(), Look("error")))
    assert frame.extras["seen"].all()
    assert torch.allclose(frame.extras["photo"], photo / 255, atol=1e-4)


def test_a_photograph_is_carried_by_the_depth():
    photo = torch.zeros(90, 100, 3, dtype=torch.uint8)
    photo[40:50, 50:60] = 255
    beside = lens(pose=shifted(0.25))  # at depth 2 and focal length 80: 10 pixels
    frame = whole(Pictures(Open(Plain(), capture(photo, lens()))).draw(beside, Look("error")))
    bright = (frame.extras["photo"][..., 0] > 0.5).nonzero()
    assert bright[:, 1].min() == 40
    assert bright[:, 1].max() == 49
    assert not frame.extras["seen"][:, 95:].any() or frame.extras["seen"][:, :90].all()
    painted = pictures.painted(frame, beside, Look("error"))
    assert (painted[~frame.extras["seen"].numpy()] == pictures.NOT_SEEN).all()


def test_the_nearest_photograph_is_chosen():
    cameras = [lens(pose=shifted(x)) for x in (-1.0, 0.0, 1.0)]
    scene = capture(torch.zeros(90, 100, 3, dtype=torch.uint8), *cameras)
    assert pictures.nearest(lens(pose=shifted(0.8)), scene) == 2
    assert pictures.nearest(lens(pose=shifted(-0.1)), scene) == 1


def test_without_photographs_the_error_is_refused_in_words():
    with pytest.raises(DataError, match="photographs"):
        Pictures(Open(Plain())).draw(lens(), Look("error"))


@pytest.mark.parametrize("mode", pictures.MODES)
def test_every_mode_paints_the_whole_picture(mode):
    photo = torch.zeros(90, 100, 3, dtype=torch.uint8)
    picture = Pictures(Open(Splats(some()), capture(photo, lens(pose=shifted(0.1)))))
    look = Look(mode)
    painted = picture.paint(whole(picture.draw(lens(), look)), lens(), look)
    assert painted.shape == (90, 100, 3)
    assert painted.dtype == np.uint8
