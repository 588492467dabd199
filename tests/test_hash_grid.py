"""What must hold of hash grids whatever the numbers: levels, vertices, weights, who adds to which row."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from operations.fields import GRIDS, away_from_borders, draw_probed_hash_grid
from test_ops import native_settings
from torch import Tensor

from anchorfield.cuda_ext import native
from anchorfield.cuda_ext.hash_grid import INTERPOLATIONS, HashGrid, hash_grid
from reference import hash_grid as plain
from reference.made_scenes import generator, uniform

__all__ = ["native_settings"]  # a fixture
pytestmark = pytest.mark.usefixtures("one_torch_thread")
EACH_DTYPE = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
# Scale 8: the vertices lie at (c - 1/2) / 8, exactly. The second level, scale 17, is hashed in three dimensions.
EXACT = {d: HashGrid(2, 2, 11, 9, 2.0, dimensions=d) for d in (2, 3, 4)}


def table_of(layout: HashGrid, dtype: torch.dtype = torch.float64) -> Tensor:
    return uniform(generator(1), -1, 1, layout.rows, layout.features).to(dtype)


def at_vertices(vertices: list[tuple[int, ...]], dtype: torch.dtype = torch.float64) -> Tensor:
    """Positions of vertices of the first level of EXACT."""
    return (torch.tensor(vertices, dtype=dtype) - 0.5) / 8


def table_gradient(layout: HashGrid, positions: Tensor, v_encoded: Tensor) -> Tensor:
    table = torch.zeros(layout.rows, layout.features, dtype=positions.dtype, requires_grad=True)
    (gradient,) = torch.autograd.grad(hash_grid(positions, table, layout), table, v_encoded)
    return gradient


# ---------------------------------------------------------------------------------------------------------- layout
def test_levels_of_the_usual_grids() -> None:
    """Resolutions by hand; parameters and dense levels as in the paper, table 1, but for the last vertices at x = 1."""
    paper = HashGrid.up_to(2048, log2_table_size=19)
    assert paper.resolutions[:6] == [16, 23, 31, 43, 59, 81]
    assert paper.resolutions[-1] == 2048
    assert [side > 0 for side in paper.sides] == [True] * 5 + [False] * 11
    assert paper.rows * paper.features == pytest.approx(12.2e6, rel=0.01)
    assert HashGrid().resolutions[-1] == 4085
    assert HashGrid().size == 32
    assert HashGrid().sides == [17, 25, *[0] * 14]


@pytest.mark.parametrize("name", GRIDS)
def test_levels_follow_each_other(name: str) -> None:
    layout = GRIDS[name]
    assert layout.offsets[0] == 0
    assert layout.offsets[-1] == layout.rows
    for level, (first, end) in enumerate(itertools.pairwise(layout.offsets)):
        assert first % 8 == 0
        assert end - first == plain.rows_of(layout, level, layout.dimensions) <= 2**layout.log2_table_size


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("levels", 0, "1 to 32"),
        ("levels", 33, "1 to 32"),
        ("features", 3, "1, 2, 4 or 8"),
        ("log2_table_size", 25, "3 to 24"),
        ("base_resolution", 1, "at least 2"),
        ("per_level_scale", 0.9, "at least 1"),
        ("per_level_scale", 3.0, "at most 2.20 cells"),
        ("interpolation", "cubic", "linear, smoothstep or simplex"),
        ("dimensions", 5, "2, 3 or 4"),
        ("probes", 3, "1, 2, 4, 8 or 16"),
        ("log2_index_size", 0, "1 to 24"),
    ],
)
def test_wrong_settings_are_refused_with_words(setting: str, value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=f"{setting}: expected .*{expected}.*, got {value}"):
        HashGrid(**{setting: value})


# -------------------------------------------------------------------------------------------------------- vertices
@EACH_DTYPE
@given(name=st.sampled_from(list(GRIDS)), interpolation=st.sampled_from(INTERPOLATIONS), seed=st.integers(0, 2**31))
def test_weights_add_up_to_one(dtype: torch.dtype, name: str, interpolation: Any, seed: int) -> None:
    """A table of equal rows is reproduced everywhere, and its gradient adds up to the samples."""
    layout = dataclasses.replace(GRIDS[name], interpolation=interpolation)
    positions = uniform(generator(seed), -0.1, 1.1, 100, layout.dimensions).to(dtype)
    rounding = 2**layout.dimensions * 4 * torch.finfo(dtype).eps
    ones = torch.ones(layout.rows, layout.features, dtype=dtype)
    encoded = hash_grid(positions, ones, layout)
    assert float((encoded - 1).abs().max()) <= rounding
    gradient = table_gradient(layout, positions, torch.ones_like(encoded))
    for first, end in itertools.pairwise(layout.offsets):
        torch.testing.assert_close(gradient[first:end].sum(0), ones[0] * 100, rtol=100 * rounding, atol=0)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_vertices_of_a_dense_level_have_rows_of_their_own(dimensions: int) -> None:
    layout = EXACT[dimensions]
    assert layout.sides[0] == 10
    vertices = list(itertools.product(range(1, 9), repeat=dimensions))
    weights = torch.zeros(1, layout.size, dtype=torch.float64)
    weights[0, 0] = 1
    rows = set()
    for vertex in vertices:
        touched = table_gradient(layout, at_vertices([vertex]), weights)[:, 0].nonzero()[:, 0].tolist()
        assert touched == [plain.row_of(layout, 0, vertex)]
        rows.update(touched)
    assert len(rows) == len(vertices)


@EACH_DTYPE
@pytest.mark.parametrize("interpolation", ["linear", "smoothstep"])
@pytest.mark.parametrize("dimensions", [2, 3, 4])
def test_values_at_vertices_are_exact(dimensions: int, interpolation: str, dtype: torch.dtype) -> None:
    """Dense or hashed: in four dimensions the first level is."""
    layout = dataclasses.replace(EXACT[dimensions], interpolation=cast("Any", interpolation))
    table = table_of(layout, dtype)
    vertices = list(itertools.product((1, 2, 5, 8), repeat=dimensions))
    rows = torch.tensor([plain.row_of(layout, 0, vertex) for vertex in vertices])
    assert torch.equal(hash_grid(at_vertices(vertices, dtype), table, layout)[:, :2], table[rows])


def test_a_hashed_row_by_hand() -> None:
    """Of (5, 6, 9): 6 * 2654435761 and 9 * 805459861 are 38 and 61 modulo 2^8, and 5 xor 38 xor 61 = 30."""
    layout = HashGrid(1, 1, 8, 17, 1.0)  # scale 16
    position = torch.tensor([[4.5, 5.5, 8.5]]) / 16
    assert float(hash_grid(position, torch.arange(256.0)[:, None], layout)) == 30


@EACH_DTYPE
def test_the_last_vertex_at_one_is_inside(dtype: torch.dtype) -> None:
    """No position reads another level's rows, however scale and position round."""
    for growth, how in itertools.product(
        torch.linspace(1.05, 2.2, 60, dtype=torch.float64).tolist(), ("linear", "simplex")
    ):
        layout = HashGrid(6, 1, 20, 5, growth, cast("Any", how), dimensions=2)
        assert 0 not in layout.sides
        levels = torch.arange(6).repeat_interleave(torch.tensor(layout.offsets).diff())
        positions = torch.ones(3, 2, dtype=dtype)
        positions[1], positions[2, 0] = 1 - torch.finfo(dtype).eps, 0
        encoded = hash_grid(positions, levels.to(dtype)[:, None], layout)
        torch.testing.assert_close(encoded, torch.arange(6, dtype=dtype).expand(3, 6))


def test_what_lies_outside_is_clamped_and_has_no_gradient() -> None:
    layout = EXACT[3]
    outside = torch.tensor([[-3.0, 0.5, 1e30], [0.25, -torch.inf, torch.nan]], dtype=torch.float64, requires_grad=True)
    inside = torch.tensor([[0.0, 0.5, 1.0], [0.25, 0.0, 0.0]], dtype=torch.float64)
    encoded = hash_grid(outside, table_of(layout), layout)
    assert torch.equal(encoded, hash_grid(inside, table_of(layout), layout))
    (gradient,) = torch.autograd.grad(encoded.sum(), outside)
    assert torch.equal(gradient != 0, torch.tensor([[False, True, False], [True, False, False]]))


# -------------------------------------------------------------------------------------------------------- gradients
@pytest.mark.usefixtures("native_settings")
@pytest.mark.parametrize("name", ["small", "3D"])
def test_the_table_gradient_is_the_same_however_many_threads_share_a_level(name: str) -> None:
    layout = GRIDS[name]
    positions = uniform(generator(2), 0, 1, 3000, layout.dimensions).float()
    v_encoded = torch.randn(3000, layout.size, generator=generator(3))
    native.set_threads(1)
    expected = table_gradient(layout, positions, v_encoded)
    for threads in (2, 5, 16):
        native.set_threads(threads)
        assert torch.equal(table_gradient(layout, positions, v_encoded), expected), threads


@pytest.mark.usefixtures("native_settings")
def test_instruction_sets_agree() -> None:
    layout = GRIDS["3D of SAGS"]
    positions, table = uniform(generator(4), 0, 1, 300, 3).float(), table_of(layout, torch.float32)
    results = []
    for name in native.instruction_sets():
        native.set_instruction_set(name)
        results.append(hash_grid(positions, table, layout))
    for result in results[1:]:
        # positions in the finest cells round differently where multiply and add are one
        atol = 3 * layout.resolutions[-1] * torch.finfo(torch.float32).eps
        torch.testing.assert_close(result, results[0], rtol=0, atol=atol)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("dimensions", [2, 3, 4])
def test_gradients_of_gradients(dimensions: int, interpolation: Any) -> None:
    """To positions, table and the gradient that comes in, by finite differences; also of the gradient to the table."""
    layout = HashGrid(2, 2, 4, 2, 1.4, interpolation, dimensions)
    drawn = uniform(generator(5), 0.3, 0.4, 20, dimensions)
    positions = drawn[away_from_borders(layout, drawn)][:2].requires_grad_()
    table = table_of(layout).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x, t: hash_grid(x, t, layout), (positions, table))


def test_linear_interpolation_bends_along_no_axis() -> None:
    """Second derivatives along one axis vanish, those along two do not; smoothstep has both, simplices have none."""
    for interpolation, bends, twists in (
        ("linear", False, True),
        ("smoothstep", True, True),
        ("simplex", False, False),
    ):
        layout = HashGrid(1, 1, 12, 5, 1.0, cast("Any", interpolation))
        position = torch.tensor([0.31, 0.47, 0.36], dtype=torch.float64)
        table = table_of(layout)
        hessian = torch.autograd.functional.hessian(
            lambda x, t=table, at=layout: hash_grid(x[None], t, at).sum(), position
        )
        assert isinstance(hessian, Tensor)
        assert bool((hessian.diagonal() != 0).all()) is bends
        assert bool((hessian[~torch.eye(3, dtype=torch.bool)] != 0).all()) is twists


def test_third_derivatives_are_refused_with_words() -> None:
    layout = GRIDS["small"]
    positions = torch.full((1, 3), 0.3, requires_grad=True)
    table = table_of(layout, torch.float32)
    (slope,) = torch.autograd.grad(hash_grid(positions, table, layout).sum(), positions, create_graph=True)
    (bend,) = torch.autograd.grad(slope.square().sum(), positions, create_graph=True)
    with pytest.raises(RuntimeError, match="at most second derivatives, got third"):
        bend.sum().backward()


# ------------------------------------------------------------------------------------------------------ coarse to fine
@pytest.mark.parametrize("used", [0, 1, 4, 6])
def test_levels_beyond_those_used_are_zero_and_learn_nothing(used: int) -> None:
    layout = GRIDS["3D"]
    positions = uniform(generator(6), 0, 1, 50, 3).requires_grad_()
    table = table_of(layout).requires_grad_()
    width, rows = used * layout.features, layout.offsets[used]
    everything, some = hash_grid(positions, table, layout), hash_grid(positions, table, layout, levels_used=used)
    assert torch.equal(some[:, :width], everything[:, :width])
    assert torch.equal(some[:, width:], torch.zeros(50, layout.size - width, dtype=torch.float64))
    if used:
        (v_table,) = torch.autograd.grad(some.square().sum(), table)
        assert bool((v_table[:rows] != 0).any())
        assert not bool((v_table[rows:] != 0).any())


@pytest.mark.parametrize("used", [-1, 3])
def test_levels_that_are_not_there_are_refused_with_words(used: int) -> None:
    layout = GRIDS["small"]
    with pytest.raises(ValueError, match=f"levels_used: expected 0 to 2, got {used}"):
        hash_grid(torch.rand(1, 3), table_of(layout, torch.float32), layout, levels_used=used)


# --------------------------------------------------------------------------------------------------------- simplices
def test_a_simplex_by_hand() -> None:
    """Scale 4 at p = 4 (0.31, 0.62, 0.07), moved by the vertex (0, 0, 1), so that the half cell keeps it inside.

    Vertices are (2, 3, 2), then along y, z and x, with weights 0.186667, 0.2, 0.04 and 0.573333.
    """
    layout = HashGrid(2, 1, 12, 2, (1 + 4 * 2 ** (1 / 3)) / 2, "simplex")
    assert layout.scales[1] == pytest.approx(4)
    at = 4 * torch.tensor([[0.31, 0.62, 0.07]], dtype=torch.float64) + torch.tensor([-1, -1, 5]) / 6
    position = ((at - 0.5) / 4).requires_grad_()
    table = torch.zeros(layout.rows, 1, dtype=torch.float64)
    for vertex, value in {(2, 3, 2): 1, (2, 4, 2): 2, (2, 4, 3): 5, (3, 4, 3): 10}.items():
        table[layout.offsets[1] + plain.row_of(layout, 1, vertex)] = value
    encoded = hash_grid(position, table, layout)[0, 1]
    assert encoded.item() == pytest.approx(6.52, abs=1e-6)
    (slope,) = torch.autograd.grad(encoded, position)
    torch.testing.assert_close(slope, torch.tensor([[32.0, 16.0, 24.0]], dtype=torch.float64))


@pytest.mark.parametrize("dimensions", [2, 3, 4])
def test_simplices_take_as_many_vertices_as_cubes(dimensions: int) -> None:
    """Counted where every vertex has a row: those that a gradient reaches, but for the border of the cube."""
    touched = []
    for interpolation in ("linear", "simplex"):
        layout = HashGrid(1, 1, 24, {2: 120, 3: 40, 4: 14}[dimensions], 1.0, cast("Any", interpolation), dimensions)
        positions = torch.rand(300_000, dimensions, generator=generator(8))
        touched.append(int((table_gradient(layout, positions, torch.ones(300_000, 1)) != 0).sum()))
    scale = layout.scales[0]
    assert touched[1] / touched[0] == pytest.approx(1, abs=dimensions / scale)


@pytest.mark.parametrize("dimensions", [2, 3, 4])
def test_simplices_reproduce_what_is_linear(dimensions: int) -> None:
    """A table that is linear in the vertices' places gives that function between them, and its slope."""
    layout = HashGrid(1, 1, 14, 5, 1.0, "simplex", dimensions)
    slope = uniform(generator(9), -1, 1, dimensions)
    side = layout.sides[0]
    vertices = torch.tensor(list(itertools.product(range(side), repeat=dimensions)), dtype=torch.float64).flip(1)
    places = vertices - (1 - (dimensions + 1) ** -0.5) / dimensions * vertices.sum(1, keepdim=True)
    table = torch.zeros(layout.rows, 1, dtype=torch.float64)
    table[: len(places), 0] = (places - 0.5) / layout.scales[0] @ slope
    positions = uniform(generator(10), 0, 1, 100, dimensions).requires_grad_()
    encoded = hash_grid(positions, table, layout)
    torch.testing.assert_close(encoded[:, 0], positions @ slope)
    (found,) = torch.autograd.grad(encoded.sum(), positions)
    torch.testing.assert_close(found, slope.expand(100, -1))


# --------------------------------------------------------------------------------------------------- learned probing
@EACH_DTYPE
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_one_probe_is_the_plain_grid_bit_for_bit(interpolation: Any, dtype: torch.dtype) -> None:
    layout = dataclasses.replace(GRIDS["3D"], interpolation=interpolation)
    positions = uniform(generator(11), 0, 1, 500, 3).to(dtype).requires_grad_()
    table = table_of(layout, dtype).requires_grad_()
    index = {
        "choice": torch.zeros(layout.index_rows, dtype=torch.uint8),
        "probabilities": torch.ones(layout.index_rows, 1, dtype=dtype),
    }
    v_encoded = torch.randn(500, layout.size, generator=generator(12)).to(dtype)
    results = []
    for given_index in ({}, {"choice": index["choice"]}, index):
        encoded = hash_grid(positions, table, layout, **given_index)
        results.append((encoded, *torch.autograd.grad(encoded, (positions, table), v_encoded)))
    for result in results[1:]:
        for got, expected in zip(result, results[0], strict=True):
            assert torch.equal(got, expected)


def test_a_baked_index_renders_what_was_trained() -> None:
    """And the gradient to the table goes to the chosen rows, which are as many as the weights."""
    inputs = draw_probed_hash_grid("3D, 4", 3, 200)
    probabilities = inputs.pop("probabilities")
    assert torch.equal(hash_grid(**inputs), hash_grid(**inputs, probabilities=probabilities))
    table = inputs["table"].requires_grad_()
    found, expected = (
        torch.autograd.grad(encode(**inputs).square().sum(), table)[0] for encode in (hash_grid, plain.hash_grid)
    )
    torch.testing.assert_close(found, expected)


def test_levels_beyond_those_used_choose_nothing() -> None:
    inputs = draw_probed_hash_grid("3D, 4", 4, 50)
    layout, probabilities = inputs["layout"], inputs["probabilities"].requires_grad_()
    used = layout.levels - 1
    some, everything = hash_grid(**inputs, levels_used=used), hash_grid(**inputs)
    assert torch.equal(some[:, : -layout.features], everything[:, : -layout.features])
    (gradient,) = torch.autograd.grad(some.sum(), probabilities)
    size = 2**layout.log2_index_size
    assert bool((gradient[:-size] != 0).any())
    assert not bool((gradient[-size:] != 0).any())


@pytest.mark.parametrize("threads", [1, 16])
@pytest.mark.usefixtures("native_settings")
def test_gradients_of_probing_are_the_same_however_many_threads_share_a_level(threads: int) -> None:
    """Against the reference in float64, so with the softmax's own gradient in front."""
    native.set_threads(threads)
    inputs = draw_probed_hash_grid("3D, 4", 5, 300)
    del inputs["probabilities"], inputs["choice"]
    confidences = uniform(generator(13), -1, 1, inputs["layout"].index_rows, 4).requires_grad_()
    v_encoded = torch.randn(300, inputs["layout"].size, generator=generator(14), dtype=torch.float64)
    gradients = []
    for encode in (hash_grid, plain.hash_grid):
        index = {"choice": confidences.argmax(1).byte(), "probabilities": confidences.softmax(1)}
        gradients.append(torch.autograd.grad(encode(**inputs, **index), confidences, v_encoded)[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-14)


def test_second_derivatives_of_probing_are_refused_with_words() -> None:
    inputs = draw_probed_hash_grid("small, 4", 6, 3)
    positions = inputs["positions"].requires_grad_()
    (slope,) = torch.autograd.grad(hash_grid(**inputs).sum(), positions, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only where probabilities are given, got second"):
        slope.sum().backward()


@pytest.mark.parametrize("wrong", [{"choice": None}, {"choice": None, "probabilities": None}])
def test_probes_without_a_choice_are_refused_with_words(wrong: dict[str, None]) -> None:
    with pytest.raises(ValueError, match=r"choice: expected \[\d+\] uint8 for a grid of 4 probes, got None"):
        hash_grid(**{**draw_probed_hash_grid("small, 4", 7, 3), **wrong})


def test_probing_separates_what_collides() -> None:
    """Vertices (x, y) and (x + 2^k, y) collide in every table of at most 2^k rows: two clusters there learn apart."""
    errors = {}
    for probes in (1, 2):
        layout = HashGrid(1, 1, 6, 513, 1.0, dimensions=2, probes=probes, log2_index_size=8)  # 64 rows, 512 cells
        first = torch.rand(64, 2, generator=generator(15)) * 3 / 512 + 10.5 / 512
        positions = torch.cat([first, first + torch.tensor([256 / 512, 0.0])])
        target = torch.cat([torch.zeros(64, 1), torch.ones(64, 1)])
        table = torch.zeros(layout.rows, 1).uniform_(-1e-1, 1e-1, generator=generator(16)).requires_grad_()
        confidences = (torch.randn(layout.index_rows, probes, generator=generator(17)) * 1e-2).requires_grad_()
        optimiser = torch.optim.Adam([table, confidences], 3e-2)
        for _ in range(300):
            index = {"choice": confidences.argmax(1).byte(), "probabilities": confidences.softmax(1)}
            loss = (hash_grid(positions, table, layout, **index) - target).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        errors[probes] = loss.item()
    assert errors[1] == pytest.approx(0.25, rel=1e-2)  # the mean of both
    assert errors[2] < 0.01
