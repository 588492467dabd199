"""What must hold of hash grids whatever the numbers: levels, vertices, weights, who adds to which row."""

from __future__ import annotations

import itertools
from typing import Any, Literal, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_ops import GRIDS, native_settings
from torch import Tensor

from anchorfield.cuda_ext import native
from anchorfield.cuda_ext.hash_grid import HashGrid, hash_grid
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
        ("interpolation", "cubic", "linear or smoothstep"),
        ("dimensions", 5, "2, 3 or 4"),
    ],
)
def test_wrong_settings_are_refused_with_words(setting: str, value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=f"{setting}: expected .*{expected}.*, got {value}"):
        HashGrid(**{setting: value})


# -------------------------------------------------------------------------------------------------------- vertices
@EACH_DTYPE
@given(name=st.sampled_from(list(GRIDS)), smooth=st.booleans(), seed=st.integers(0, 2**31))
def test_weights_add_up_to_one(dtype: torch.dtype, name: str, smooth: bool, seed: int) -> None:
    """A table of equal rows is reproduced everywhere, and its gradient adds up to the samples."""
    settings = {**vars(GRIDS[name]), "interpolation": "smoothstep" if smooth else "linear"}
    layout = HashGrid(**{field: settings[field] for field in HashGrid.__dataclass_fields__})
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
    settings = {field: getattr(EXACT[dimensions], field) for field in HashGrid.__dataclass_fields__}
    layout = HashGrid(**{**settings, "interpolation": interpolation})
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
    for growth in torch.linspace(1.05, 2.2, 60, dtype=torch.float64).tolist():
        layout = HashGrid(6, 1, 19, 5, growth, dimensions=2)
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


@pytest.mark.parametrize("interpolation", ["linear", "smoothstep"])
@pytest.mark.parametrize("dimensions", [2, 3, 4])
def test_gradients_of_gradients(dimensions: int, interpolation: Literal["linear", "smoothstep"]) -> None:
    """To positions, table and the gradient that comes in, by finite differences; also of the gradient to the table."""
    layout = HashGrid(2, 2, 4, 2, 1.4, interpolation, dimensions)
    positions = uniform(generator(5), 0.3, 0.4, 2, dimensions).double().requires_grad_()
    table = table_of(layout).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x, t: hash_grid(x, t, layout), (positions, table))


def test_linear_interpolation_bends_along_no_axis() -> None:
    """Second derivatives along one axis vanish, those along two do not; smoothstep has both."""
    for interpolation, bends in (("linear", False), ("smoothstep", True)):
        layout = HashGrid(1, 1, 12, 5, 1.0, cast("Any", interpolation))
        position = torch.tensor([0.31, 0.47, 0.36], dtype=torch.float64)
        table = table_of(layout)
        hessian = torch.autograd.functional.hessian(
            lambda x, t=table, at=layout: hash_grid(x[None], t, at).sum(), position
        )
        assert isinstance(hessian, Tensor)
        assert bool((hessian.diagonal() != 0).all()) is bends
        assert bool((hessian[~torch.eye(3, dtype=torch.bool)] != 0).all())


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
