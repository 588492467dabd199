"""Marching: the lattice of steps, which of them lie in occupied voxels, and rays that ask for trouble."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import pytest
import torch
from cuda_on_cpu import compiled, on_the_cpu
from hypothesis import given
from hypothesis import strategies as st
from test_ops import CORRUPTIONS, native_settings, strided
from torch import Tensor

from anchorfield.cuda_ext import marching, native
from anchorfield.cuda_ext.marching import OccupancyLayout, Samples, march, step_count, step_distance
from reference import marching as plain
from reference.made_scenes import float32_exact, generator, uniform

__all__ = ["native_settings"]  # a fixture
pytestmark = pytest.mark.usefixtures("one_torch_thread")
LAYOUTS = {
    "one": OccupancyLayout(16),
    "three": OccupancyLayout(8, 3),
    "cone": OccupancyLayout(16, 2, 0.003, 1 / 16),
    "eight": OccupancyLayout(4, 8),
    "long steps": OccupancyLayout(8, 1, 0.05, 1.0),
}
EACH_LAYOUT = pytest.mark.parametrize("name", LAYOUTS)
EACH_DTYPE = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
Rays = dict[str, Tensor]


def cone_of(layout: OccupancyLayout) -> float:
    return layout._numbers()[1][2]


@functools.cache
def occupied(layout: OccupancyLayout) -> Tensor:
    """Random voxels [cascades, x, y, z] in a third of the blocks of 4x4x4: marching skips whole blocks too."""
    g = generator(layout.resolution)
    blocks = torch.rand(layout.cascades, *[layout.resolution // 4] * 3, generator=g) < 0.35
    if layout.resolution < 8:
        blocks[:] = True
    for axis in (1, 2, 3):
        blocks = blocks.repeat_interleave(4, dim=axis)
    return blocks & (torch.rand(blocks.shape, generator=g) < 0.6)


def made_rays(layout: OccupancyLayout, count: int, seed: int = 0) -> Rays:
    """Rays from outside and inside, parallel to one face or two, short ones, and some that miss."""
    g = generator(seed)
    side = 2.0 ** (layout.cascades - 1)
    kind = torch.arange(count) % 6
    aims = 0.5 + side * uniform(g, -0.45, 0.45, count, 3)
    away = torch.nn.functional.normalize(torch.randn(count, 3, generator=g, dtype=torch.float64), dim=1)
    away = torch.where((kind == 2)[:, None], away * torch.tensor([1.0, 0.0, 1.0]), away)
    away = torch.where((kind == 3)[:, None], torch.tensor([[0.0, 1.0, 0.0]]), away)
    away = torch.nn.functional.normalize(away, dim=1)
    distance = side * torch.where(kind == 1, 0.1, 2.0)[:, None]
    origins = aims - away * distance + (kind == 5)[:, None] * 3 * side
    near = torch.where(kind == 4, 1.9 * side, 0.0).double()
    far = torch.where(kind == 4, 2.3 * side, torch.inf).double()
    drawn = {"origins": origins, "directions": away, "near": near, "far": far, "jitter": uniform(g, 0, 0.99, count)}
    return {name: float32_exact(value) for name, value in drawn.items()}


def marched(layout: OccupancyLayout, rays: Rays, bits: Tensor, dtype: torch.dtype, most: int = 1024) -> Samples:
    return march(**{name: value.to(dtype) for name, value in rays.items()}, bits=bits, layout=layout, most_samples=most)


def of_rays(samples: Samples) -> list[list[tuple[float, float]]]:
    """Begins and ends, ray by ray."""
    pairs = list(zip(samples.t0.tolist(), samples.t1.tolist(), strict=True))
    starts = samples.starts.tolist()
    return [pairs[begin:end] for begin, end in itertools.pairwise(starts)]


def full(layout: OccupancyLayout) -> Tensor:
    return torch.full((layout.cascades, layout.cells // 8), 255, dtype=torch.uint8)


# --------------------------------------------------------------------------------------------------------- the lattice
@EACH_LAYOUT
@given(t=st.floats(0, 300))
def test_counting_steps_is_the_inverse_of_their_distance(name: str, t: float) -> None:
    layout = LAYOUTS[name]
    n = step_count(t, layout)
    assert step_distance(n, layout) == pytest.approx(t, rel=1e-11, abs=1e-11)
    assert n == pytest.approx(plain.step_count(t, layout, cone_of(layout)), rel=1e-9, abs=1e-6)


@EACH_LAYOUT
def test_steps_grow_without_a_jump(name: str) -> None:
    """Near, in proportion to the distance, and at most the largest; equal value and slope where the pieces join."""
    layout, cone = LAYOUTS[name], cone_of(LAYOUTS[name])
    first = step_count(0, layout)
    at = [step_distance(first + k, layout) for k in range(3000)]
    steps = [b - a for a, b in itertools.pairwise(at)]
    slack = 1e-9
    assert steps[0] == pytest.approx(layout.smallest_step)
    assert all(b >= a - slack for a, b in itertools.pairwise(steps))
    assert all(b <= a * (1 + cone) + slack for a, b in itertools.pairwise(steps))
    for t, step in zip(at, steps, strict=False):
        expected = min(max(cone * t, layout.smallest_step), layout.largest_step)
        assert step == pytest.approx(expected, rel=cone + slack)


def test_the_settings_of_the_paper() -> None:
    layout = OccupancyLayout(cascades=8)
    assert layout.largest_step == pytest.approx(layout.smallest_step * 128 * 1024 / 128)
    assert cone_of(layout) == 1 / 256
    assert cone_of(OccupancyLayout()) == 0
    assert layout.smallest_step == math.sqrt(3) / 1024


# ----------------------------------------------------------------------------------------------- against the reference
@EACH_LAYOUT
@pytest.mark.parametrize("most", [1024, 7])
def test_samples_are_those_of_the_plain_march(name: str, most: int) -> None:
    layout, voxels = LAYOUTS[name], occupied(LAYOUTS[name])
    rays = made_rays(layout, 60)
    samples = marched(layout, rays, plain.packed(voxels), torch.float64, most)
    numbers = [rays[key].tolist() for key in ("origins", "directions", "near", "far", "jitter")]
    found = 0
    for got, ray in zip(of_rays(samples), zip(*numbers, strict=True), strict=True):
        expected = plain.march_one(*ray, voxels, layout, cone_of(layout), most)
        assert len(got) == len(expected)
        assert got == [pytest.approx(pair, rel=1e-9, abs=1e-9) for pair in expected]
        found += len(expected)
    assert found > 10
    assert torch.equal(samples.ray.long(), torch.arange(60).repeat_interleave(samples.starts.diff().long()))


def assert_right_but_for_rounding(layout: OccupancyLayout, rays: Rays, voxels: Tensor, got: Samples) -> None:
    """In one cascade: float32 samples lie in occupied voxels, and none is missing that lies well inside one."""
    exact = marched(layout, rays, plain.packed(voxels), torch.float64)
    reach = float(rays["origins"].norm(dim=1).max()) + 2
    off = 32 * torch.finfo(torch.float32).eps * reach

    def at(samples: Samples) -> Tensor:
        ray = samples.ray.long()
        return rays["origins"][ray] + samples.middles.double()[:, None] * rays["directions"][ray]

    near = torch.zeros(len(got.t0), dtype=torch.bool)
    for corner in range(8):
        shift = off * torch.tensor([1.0 if corner >> k & 1 else -1.0 for k in range(3)])
        x, y, z = ((at(got) + shift) * layout.resolution).long().clamp(0, layout.resolution - 1).unbind(1)
        near |= voxels[0, x, y, z]
    assert bool(near.all())
    cells = at(exact) * layout.resolution
    inside = ((cells - cells.round()).abs() > off * layout.resolution).all(1)
    assert int(inside.sum()) > 0.9 * len(inside) > 100
    keys = {(int(r), round(float(t) / off)) for r, t in zip(got.ray, got.t0, strict=True)}
    missing = [
        (int(r), float(t))
        for r, t, sure in zip(exact.ray, exact.t0, inside, strict=True)
        if sure and not any((int(r), round(float(t) / off) + d) in keys for d in (-1, 0, 1))
    ]
    assert not missing


@pytest.mark.usefixtures("native_settings")
@pytest.mark.parametrize("instruction_set", native.instruction_sets())
def test_float32_is_right_but_for_rounding(instruction_set: str) -> None:
    native.set_instruction_set(instruction_set)
    layout = LAYOUTS["one"]
    rays, voxels = made_rays(layout, 80, 1), occupied(layout)
    got = marched(layout, rays, plain.packed(voxels), torch.float32)
    assert_right_but_for_rounding(layout, rays, voxels, got)


@EACH_DTYPE
@EACH_LAYOUT
def test_what_is_skipped_does_not_move_the_rest(name: str, dtype: torch.dtype) -> None:
    """Bit for bit, the steps are among those of a full grid, which follow each other without gaps."""
    layout = LAYOUTS[name]
    rays = made_rays(layout, 60, 2)
    everything = of_rays(marched(layout, rays, full(layout), dtype, 10**6))
    some = of_rays(marched(layout, rays, plain.packed(occupied(layout)), dtype, 10**6))
    assert 10 < sum(map(len, some)) < sum(map(len, everything))
    for part, whole in zip(some, everything, strict=True):
        assert set(part) <= set(whole)
        assert part == sorted(part)
        assert all(b[0] == a[1] for a, b in itertools.pairwise(whole))


# --------------------------------------------------------------------------------------------------------- odd rays
def one_ray(layout: OccupancyLayout, bits: Tensor | None = None, **changes: Any) -> list[tuple[float, float]]:
    """The samples of a ray that enters the unit cube through the middle of a face, with some numbers changed."""
    values = {"origins": [-1.0, 0.5, 0.5], "directions": [1.0, 0.0, 0.0], "near": 0.0, "far": torch.inf, "jitter": 0.0}
    rays = {name: torch.tensor([value]) for name, value in (values | changes).items()}
    bits = full(layout) if bits is None else bits
    samples = march(**rays, bits=bits, layout=layout, most_samples=10**6)
    assert len(samples.starts) == 2
    return of_rays(samples)[0]


def test_a_ray_through_a_full_cube() -> None:
    layout = OccupancyLayout(16)
    samples = one_ray(layout)
    assert len(samples) == math.floor(1 / layout.smallest_step + 0.5)  # steps whose middles lie inside
    assert samples[0][0] == pytest.approx(1, abs=1e-6)
    late = one_ray(layout, jitter=0.75)
    assert late[0][0] - samples[0][0] == pytest.approx(0.75 * layout.smallest_step, abs=1e-6)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("zero", [0.0, -0.0, 1e-40])
def test_a_ray_along_an_axis(axis: int, sign: float, zero: float) -> None:
    """In front of the cube, inside it, behind it, beside it, and on the border of voxels."""
    layout = OccupancyLayout(16)
    direction = [zero] * 3
    direction[axis] = sign

    def samples(along: float, across: float) -> int:
        origin = [across] * 3
        origin[axis] = 0.5 + sign * along
        return len(one_ray(layout, origins=origin, directions=direction))

    whole = samples(-1, 0.53)
    assert whole == math.floor(1 / layout.smallest_step + 0.5)
    assert samples(0, 0.53) == pytest.approx(whole / 2, abs=1)
    assert samples(0.51, 0.53) == 0
    assert samples(-1, 1.01) == samples(-1, -0.01) == 0
    assert samples(-1, 0.25) == samples(-1, 0.5) == whole


def test_a_ray_on_the_border_sees_one_of_its_sides() -> None:
    """Where empty and occupied voxels meet, moving along and against the axis ends."""
    layout = OccupancyLayout(16)
    voxels = torch.zeros(1, 16, 16, 16, dtype=torch.bool)
    voxels[0, :, 8:] = True
    on, off = {"origins": [-1.0, 0.5, 0.4]}, {"origins": [-1.0, 0.4999, 0.4]}
    assert len(one_ray(layout, plain.packed(voxels), **on)) == len(one_ray(layout))
    assert one_ray(layout, plain.packed(voxels), **off) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"far": 0.99},
        {"near": 2.01},
        {"near": 1.5, "far": 1.4},
        {"near": 1.5, "far": 1.5},
        {"far": -1.0},
        {"origins": [2.0, 0.5, 0.5]},
        {"origins": [-1.0, 1.5, 0.5]},
        {"directions": [-1.0, 0.0, 0.0]},
        {"directions": [0.0, 0.0, 0.0]},
        {"directions": [1e-3, 0.0, 0.0]},
        {"directions": [30.0, 0.0, 0.0]},
        {"origins": [-1e30, 0.5, 0.5]},
        *({name: torch.nan} for name in ("near", "far", "jitter")),
        *({name: torch.inf} for name in ("near", "jitter")),
        *({"origins": [-1.0, bad, 0.5]} for bad in (torch.nan, torch.inf)),
        *({"directions": [1.0, bad, 0.0]} for bad in (torch.nan, torch.inf)),
    ],
    ids=str,
)
def test_rays_without_samples(changes: dict[str, Any]) -> None:
    assert one_ray(OccupancyLayout(16), **changes) == []


@EACH_LAYOUT
def test_rays_from_far_away_end(name: str) -> None:
    """Where float32 cannot tell steps apart any more."""
    layout = LAYOUTS[name]
    for bits in (full(layout), torch.zeros_like(full(layout)), plain.packed(occupied(layout))):
        for distance in (1e3, 1e5, 1e7, 1e10, 1e37):
            samples = one_ray(layout, bits, origins=[-distance, 0.5, 0.5])
            assert all(0 < t0 < t1 for t0, t1 in samples)


def test_the_finest_cascade_that_holds_a_point_counts() -> None:
    layout = OccupancyLayout(8, 3, cone=0.0)
    for cascade in range(3):
        bits = torch.zeros_like(full(layout))
        bits[cascade] = 255
        inner = 2.0 ** (cascade - 1) if cascade else 0.0
        middles = torch.tensor(one_ray(layout, bits, origins=[-9.0, 0.55, 0.55])).mean(1) - 9.5
        assert float(middles.abs().min()) == pytest.approx(inner / 2, abs=layout.smallest_step)
        assert float(middles.abs().max()) == pytest.approx(2.0**cascade / 2, abs=layout.smallest_step)


def test_voxels_are_twice_as_wide_as_steps_where_there_are_such() -> None:
    layout = OccupancyLayout(32, 3, cone=1 / 64)
    bits = torch.zeros_like(full(layout))
    bits[0] = 255
    origins = [-0.4, 0.55, 0.55]  # inside; steps are half a voxel of the finest cascade from t = 1 on
    samples = torch.tensor(one_ray(layout, bits, origins=origins))
    assert float(samples.max()) == pytest.approx(1, abs=1 / 64)


# ----------------------------------------------------------------------------------------------------- as an operation
@pytest.mark.usefixtures("native_settings")
def test_independent_of_the_number_of_threads() -> None:
    layout = LAYOUTS["three"]
    rays, bits = made_rays(layout, 700), plain.packed(occupied(layout))
    native.set_threads(1)
    expected = marched(layout, rays, bits, torch.float32)
    for threads in (2, 3):
        native.set_threads(threads)
        for name, value in vars(marched(layout, rays, bits, torch.float32)).items():
            assert torch.equal(value, getattr(expected, name)), name


def test_opcheck() -> None:
    layout = LAYOUTS["one"]
    arguments = [value.float() for value in made_rays(layout, 12).values()]
    arguments.append(plain.packed(occupied(layout)))
    torch.library.opcheck(marching._march, (*arguments, *layout._numbers(), 9))


@EACH_DTYPE
def test_no_rays(dtype: torch.dtype) -> None:
    layout = LAYOUTS["one"]
    rays = {name: value[:0] for name, value in made_rays(layout, 1).items()}
    samples = marched(layout, rays, full(layout), dtype)
    assert samples.starts.tolist() == [0]
    assert samples.t0.dtype == dtype
    assert len(samples.t0) == len(samples.t1) == len(samples.ray) == 0


def test_non_contiguous() -> None:
    layout = LAYOUTS["one"]
    rays, bits = made_rays(layout, 30), plain.packed(occupied(layout))
    gaps = {name: strided(value) for name, value in rays.items()}
    got = march(**gaps, bits=strided(bits), layout=layout)
    for name, value in vars(march(**rays, bits=bits, layout=layout)).items():
        assert torch.equal(value, getattr(got, name)), name


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("argument", ["origins", "directions", "near", "far", "jitter", "bits"])
def test_wrong_input_is_refused_with_words(argument: str, corruption: str) -> None:
    layout = LAYOUTS["one"]
    arguments = {name: value.float() for name, value in made_rays(layout, 5).items()} | {"bits": full(layout)}
    arguments[argument] = CORRUPTIONS[corruption](arguments[argument])
    with pytest.raises((ValueError, TypeError), match=r"(?s)expected.*got") as caught:
        march(**arguments, layout=layout)
    assert argument in str(caught.value) or argument == "origins"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"resolution": 100}, "a power of two"),
        ({"resolution": 2}, "4 to 512"),
        ({"cascades": 9}, "1 to 8"),
        ({"smallest_step": 0.5}, "0.01353, the diagonal"),
        ({"smallest_step": 0.0}, "1e-5"),
        ({"cone": -0.1}, "0 to 1"),
    ],
)
def test_wrong_settings_are_refused_with_words(settings: dict[str, Any], expected: str) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=rf"{name}: expected .*{expected}.*, got {settings[name]}"):
        OccupancyLayout(**settings)


# ---------------------------------------------------------------------------------------------------------------- CUDA
@pytest.mark.parametrize("turned_round", [False, True])
def test_cuda(turned_round: bool) -> None:
    layout = LAYOUTS["one"]
    rays, voxels = made_rays(layout, 80, 1), occupied(layout)
    bits = plain.packed(voxels)
    with on_the_cpu():
        compiled().turn_round(turned_round)
        got = marched(layout, rays, bits, torch.float32)
        assert marched(layout, {name: value[:0] for name, value in rays.items()}, bits, torch.float32).starts[0] == 0
    assert_right_but_for_rounding(layout, rays, voxels, got)


def test_cuda_of_several_cascades() -> None:
    """Against the CPU: nearly all rays have the same samples, as far as float32 can tell."""
    layout = LAYOUTS["three"]
    rays, bits = made_rays(layout, 200), plain.packed(occupied(layout))
    expected = of_rays(marched(layout, rays, bits, torch.float32))
    with on_the_cpu():
        got = of_rays(marched(layout, rays, bits, torch.float32))
    same = 0
    for one, other in zip(got, expected, strict=True):
        same += len(one) == len(other) and torch.allclose(torch.tensor(one), torch.tensor(other), rtol=1e-5)
    assert same >= 0.95 * len(got)
