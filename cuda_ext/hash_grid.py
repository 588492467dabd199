"""Multiresolution hash grid encoding (Mueller et al. 2022): positions to trainable features.

Cells are cubes or simplices (Wen and Yang 2023); where vertices share rows, each may choose among a few by a learned
index (Takikawa et al. 2023).
"""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from anchorfield.cuda_ext import _kernels
from anchorfield.cuda_ext._checks import check

INTERPOLATIONS = ("linear", "smoothstep", "simplex")  # in the order of the kernels' own


@dataclasses.dataclass(frozen=True)
class HashGrid:
    """How a hash grid is laid out.

    Level l has scale base_resolution * per_level_scale^l - 1 cells along an axis (rarely a whole number) and
    resolution ceil(scale) + 1. A position x in [0, 1] lies at p = scale * x + 0.5, so that it touches vertices 0 to
    resolution. Where all (resolution + 1)^dimensions vertices fit into 2^log2_table_size rows, the level is dense:
    vertex c has row c_0 + c_1 (resolution + 1) + ..., and none shares it. Elsewhere vertices are hashed to h(c) mod
    2^log2_table_size, where h(c) = c_0 P_0 xor c_1 P_1 xor ... in 32 bits, P = 1, 2654435761, 805459861, 3674653429.
    Levels follow each other in the table; each begins at a multiple of 8 rows.

    Simplices (Wen and Yang 2023), d = dimensions: p is skewed to p + (sqrt(d + 1) - 1) / d (p_0 + ... + p_(d - 1)), and
    the cube around that cut into d! simplices along its diagonal. These have sqrt(d + 1) times as many vertices as the
    cubes of that scale; so the scale is divided by (d + 1)^(1 / (2 d)), and there are as many. A level is dense where
    the box around its skewed vertices fits: it is never larger than a hashed one then, and no vertices share a row, but
    only 58, 25 and 9 % of the box is used where d = 2, 3 and 4. Positions skew to (scale + 0.5) sqrt(d + 1) at most.

    Probes (Takikawa et al. 2023): vertex c of a hashed level has row (probes h(c)) mod 2^log2_table_size + choice[r],
    where r are the upper log2_index_size bits of c_0 Q_0 xor c_1 Q_1 xor ..., Q = 2246822519, 3266489917, 668265263,
    374761393: one of `probes` rows that follow each other, so that vertices which collide in h can keep apart.
    """

    levels: int = 16
    """Grids, from coarse to fine; 1 to 32."""
    features: int = 2
    """Numbers of a vertex: 1, 2, 4 or 8."""
    log2_table_size: int = 15
    """Most rows of a level, as a power of two; 3 to 24."""
    base_resolution: int = 16
    """Vertices along an axis of the coarsest level."""
    per_level_scale: float = 1.447
    """Growth of the resolution from level to level."""
    interpolation: Literal["linear", "smoothstep", "simplex"] = "linear"
    """Between the vertices of a cell; smoothstep has continuous gradients, simplex reads dimensions + 1 vertices."""
    dimensions: int = 3
    """Of the positions: 2, 3 or 4."""
    probes: int = 1
    """Rows that a vertex of a hashed level chooses from: 1, 2, 4, 8 or 16."""
    log2_index_size: int = 14
    """Choices of a hashed level, as a power of two; 1 to 24."""

    def __post_init__(self) -> None:
        """Refuse what the kernels cannot do."""
        _expect("levels", self.levels, "1 to 32", 1 <= self.levels <= 32)
        _expect("features", self.features, "1, 2, 4 or 8", self.features in (1, 2, 4, 8))
        _expect("log2_table_size", self.log2_table_size, "3 to 24", 3 <= self.log2_table_size <= 24)
        _expect("base_resolution", self.base_resolution, "at least 2", self.base_resolution >= 2)
        _expect("per_level_scale", self.per_level_scale, "at least 1", self.per_level_scale >= 1)
        known = self.interpolation in INTERPOLATIONS
        _expect("interpolation", self.interpolation, "linear, smoothstep or simplex", known)
        _expect("dimensions", self.dimensions, "2, 3 or 4", self.dimensions in (2, 3, 4))
        _expect("probes", self.probes, "1, 2, 4, 8 or 16", self.probes in (1, 2, 4, 8, 16))
        most = 2**self.log2_table_size
        _expect("probes", self.probes, f"at most the {most} rows of a level", self.probes <= most)
        _expect("log2_index_size", self.log2_index_size, "1 to 24", 1 <= self.log2_index_size <= 24)
        finest = self.scales[-1]
        _expect("per_level_scale", self.per_level_scale, "a finest level of at most 2^20 cells", finest <= 2**20)

    @classmethod
    def up_to(cls, finest_resolution: float, levels: int = 16, base_resolution: int = 16, **settings: Any) -> HashGrid:
        """The grid whose levels grow from `base_resolution` to `finest_resolution`."""
        growth = (finest_resolution / base_resolution) ** (1 / max(levels - 1, 1))
        return cls(levels=levels, base_resolution=base_resolution, per_level_scale=growth, **settings)

    @cached_property
    def scales(self) -> list[float]:
        """Cells along an axis, level by level."""
        d = self.dimensions
        coarser = (d + 1) ** (0.5 / d) if self.interpolation == "simplex" else 1
        return [(self.base_resolution * self.per_level_scale**level - 1) / coarser for level in range(self.levels)]

    @cached_property
    def resolutions(self) -> list[int]:
        """Vertices along an axis, of simplices skewed, level by level; one more is touched where x = 1."""
        if self.interpolation == "simplex":
            return [math.ceil((scale + 0.5) * math.sqrt(self.dimensions + 1)) + 1 for scale in self.scales]
        return [math.ceil(scale) + 1 for scale in self.scales]

    @cached_property
    def sides(self) -> list[int]:
        """Vertices along an axis that have rows of their own, level by level; 0 where they are hashed."""
        most = 2**self.log2_table_size
        return [r + 1 if (r + 1) ** self.dimensions <= most else 0 for r in self.resolutions]

    @cached_property
    def offsets(self) -> list[int]:
        """The levels' first rows in the table, and the number of all rows."""
        offsets = [0]
        for side in self.sides:
            rows = -(-(side**self.dimensions) // 8) * 8 if side else 2**self.log2_table_size
            offsets.append(offsets[-1] + rows)
        return offsets

    @property
    def rows(self) -> int:
        """Rows of the table."""
        return self.offsets[-1]

    @property
    def index_rows(self) -> int:
        """Choices of all hashed levels, one level after the other."""
        return self.sides.count(0) << self.log2_index_size

    @property
    def size(self) -> int:
        """Numbers of the encoding of a position, levels * features."""
        return self.levels * self.features


def _expect(name: str, got: object, expected: str, fulfilled: bool) -> None:
    if not fulfilled:
        raise ValueError(f"{name}: expected {expected}, got {got}")


def hash_grid(
    positions: Tensor,  # [N, layout.dimensions] in [0, 1]; outside they are clamped
    table: Tensor,  # [layout.rows, layout.features]
    layout: HashGrid,
    levels_used: int | None = None,  # 0 to layout.levels; all where none is given
    choice: Tensor | None = None,  # [layout.index_rows] uint8, below layout.probes; not needed for one probe
    probabilities: Tensor
    | None = None,  # [layout.index_rows, layout.probes] in [0, 1], of every row that may be chosen
) -> Tensor:
    """Features of each level interpolated at the positions, [N, levels * features], level by level.

    Levels from `levels_used` on give zeros and get no gradient, for fits from coarse to fine. Differentiable twice in
    `table` and `positions`: linear interpolation has second derivatives along two different axes only, smoothstep all,
    simplices none. A clamped coordinate has no gradient, one that is not a number counts as 0.

    With `probabilities`, the softmax of learned confidences whose largest is `choice`, features are still those of the
    chosen rows, but gradients are as if each row counted with its probability (Takikawa et al. 2023): the table's
    reaches all rows that may be chosen, and `probabilities` has one. The gradient to the positions is of the chosen
    rows. First derivatives only: a second one raises RuntimeError. A trained grid needs its `choice` alone.
    """
    check(positions=(positions, ("N", layout.dimensions)), table=(table, (layout.rows, layout.features)))
    used = layout.levels if levels_used is None else levels_used
    _expect("levels_used", used, f"0 to {layout.levels}", 0 <= used <= layout.levels)
    _check_choice(layout, choice, probabilities, table)
    if used == 0:
        return positions.new_zeros((positions.shape[0], layout.size))
    index_rows = layout.sides[:used].count(0) << layout.log2_index_size
    choice = None if choice is None else choice[:index_rows]
    table = table[: layout.offsets[used]]
    numbers = (
        layout.scales[:used],
        layout.sides[:used],
        layout.offsets[: used + 1],
        INTERPOLATIONS.index(layout.interpolation),
        layout.probes,
        layout.log2_index_size,
    )
    encoded: Tensor
    if probabilities is None:
        encoded = _hash_grid(positions, None, table, choice, *numbers)
    else:
        encoded = _probed_hash_grid(positions, table, choice, probabilities[:index_rows], *numbers)
    return encoded if used == layout.levels else pad(encoded, (0, layout.size - encoded.shape[1]))


def _check_choice(layout: HashGrid, choice: Tensor | None, probabilities: Tensor | None, table: Tensor) -> None:
    """Refuse indices that the kernels cannot use."""
    if choice is None:
        if layout.probes > 1 or probabilities is not None:
            raise ValueError(
                f"choice: expected [{layout.index_rows}] uint8 for a grid of {layout.probes} probes, got None; "
                "give the argmax of the confidences"
            )
        return
    if choice.dtype != torch.uint8 or choice.device != table.device:
        kind = str(choice.dtype).removeprefix("torch.")
        raise TypeError(f"choice: expected uint8 on {table.device}, got {kind} on {choice.device}")
    if tuple(choice.shape) != (layout.index_rows,):
        raise ValueError(f"choice: expected shape [{layout.index_rows}], got {list(choice.shape)}")
    if probabilities is not None:
        check(table=(table, ("R", "F")), probabilities=(probabilities, (layout.index_rows, layout.probes)))


# What the operations return, for torch's tracing and for those that fill it.
def _empty_encoding(
    positions: Tensor, along: Tensor | None, table: Tensor, choice: Tensor | None, scales: list[float], *_: Any
) -> Tensor:
    return positions.new_empty((positions.shape[0], len(scales) * table.shape[1]))


def _empty_table(
    positions: Tensor,
    along: Tensor | None,
    choice: Tensor | None,
    v_encoded: Tensor,
    scales: list[float],
    sides: list[int],
    offsets: list[int],
    *_: Any,
) -> Tensor:
    return positions.new_empty((offsets[-1], v_encoded.shape[1] // len(scales)))


def _empty_positions(positions: Tensor, *_: Any) -> Tensor:
    return positions.new_empty(positions.shape)


def _empty_probed(
    positions: Tensor, table: Tensor, choice: Tensor, probabilities: Tensor, scales: list[float], *_: Any
) -> Tensor:
    return _empty_encoding(positions, None, table, choice, scales)


def _empty_probed_gradients(
    positions: Tensor, table: Tensor, choice: Tensor, probabilities: Tensor, v_encoded: Tensor, *layout: Any
) -> tuple[Tensor, Tensor, Tensor]:
    of_positions, of_others = layout[-1]
    shapes = (positions, of_positions), (table, of_others), (probabilities, of_others)
    v_positions, v_table, v_probabilities = (t.new_empty(t.shape if want else (0,)) for t, want in shapes)
    return v_positions, v_table, v_probabilities


def _dense(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if t is None else t.detach().contiguous() for t in tensors]


# With `along`, [N, dimensions], each operation gives the derivative of its result as the positions move that way: a
# gradient to the positions passes on such derivatives, along the gradient that comes to it. With `choice`, rows are
# those that it says; those of one probe need none.
@torch.library.custom_op("anchorfield::hash_grid", mutates_args=(), device_types="cpu")
def _hash_grid(
    positions: Tensor,
    along: Tensor | None,
    table: Tensor,
    choice: Tensor | None,
    scales: list[float],
    sides: list[int],
    offsets: list[int],
    interpolation: int,
    probes: int,
    log2_index_size: int,
) -> Tensor:
    encoded = _empty_encoding(positions, along, table, choice, scales)
    layout = (scales, sides, offsets, interpolation, probes, log2_index_size)
    _kernels.hash_grid(*_dense(positions, along, table, choice), *layout, encoded)
    return encoded


@torch.library.custom_op("anchorfield::hash_grid_table_backward", mutates_args=(), device_types="cpu")
def _hash_grid_table_backward(
    positions: Tensor,
    along: Tensor | None,
    choice: Tensor | None,
    v_encoded: Tensor,
    scales: list[float],
    sides: list[int],
    offsets: list[int],
    interpolation: int,
    probes: int,
    log2_index_size: int,
) -> Tensor:
    v_table = _empty_table(positions, along, choice, v_encoded, scales, sides, offsets)
    layout = (scales, sides, offsets, interpolation, probes, log2_index_size)
    _kernels.hash_grid_table_backward(*_dense(positions, along, choice, v_encoded), *layout, v_table)
    return v_table


@torch.library.custom_op("anchorfield::hash_grid_positions_backward", mutates_args=(), device_types="cpu")
def _hash_grid_positions_backward(
    positions: Tensor,
    along: Tensor | None,
    table: Tensor,
    choice: Tensor | None,
    v_encoded: Tensor,
    scales: list[float],
    sides: list[int],
    offsets: list[int],
    interpolation: int,
    probes: int,
    log2_index_size: int,
) -> Tensor:
    v_positions = _empty_positions(positions)
    layout = (scales, sides, offsets, interpolation, probes, log2_index_size)
    _kernels.hash_grid_positions_backward(*_dense(positions, along, table, choice, v_encoded), *layout, v_positions)
    return v_positions


def _remember(ctx: Any, tensors: int, inputs: tuple[Any, ...]) -> None:
    positions, along, *others = inputs[:tensors]
    ctx.second, ctx.layout = along is not None, inputs[tensors:]
    ctx.save_for_backward(positions, *others)


def _saved(ctx: Any) -> tuple[Any, ...]:
    if ctx.second:
        raise RuntimeError("hash_grid: expected at most second derivatives, got third ones; detach what they come from")
    # Kept in the graph only for further derivatives.
    return tuple(t if t is None or torch.is_grad_enabled() else t.detach() for t in ctx.saved_tensors)


def _backward(ctx: Any, v_encoded: Tensor) -> tuple[Tensor | None, ...]:
    positions, table, choice = _saved(ctx)
    v_positions = v_table = None
    if ctx.needs_input_grad[0]:
        v_positions = _hash_grid_positions_backward(positions, None, table, choice, v_encoded, *ctx.layout)
    if ctx.needs_input_grad[2]:
        v_table = _hash_grid_table_backward(positions, None, choice, v_encoded, *ctx.layout)
    return v_positions, None, v_table, *[None] * 7


# The gradient to the table is linear in that to the encoding, as the encoding is in the table.
def _table_backward_backward(ctx: Any, v_v_table: Tensor) -> tuple[Tensor | None, ...]:
    positions, choice, v_encoded = _saved(ctx)
    v_positions = v_v_encoded = None
    if ctx.needs_input_grad[0]:
        v_positions = _hash_grid_positions_backward(positions, None, v_v_table, choice, v_encoded, *ctx.layout)
    if ctx.needs_input_grad[3]:
        v_v_encoded = _hash_grid(positions, None, v_v_table, choice, *ctx.layout)
    return v_positions, None, None, v_v_encoded, *[None] * 6


def _positions_backward_backward(ctx: Any, v_v_positions: Tensor) -> tuple[Tensor | None, ...]:
    positions, table, choice, v_encoded = _saved(ctx)
    v_positions = v_table = v_v_encoded = None
    if ctx.needs_input_grad[0]:
        v_positions = _hash_grid_positions_backward(positions, v_v_positions, table, choice, v_encoded, *ctx.layout)
    if ctx.needs_input_grad[2]:
        v_table = _hash_grid_table_backward(positions, v_v_positions, choice, v_encoded, *ctx.layout)
    if ctx.needs_input_grad[4]:
        v_v_encoded = _hash_grid(positions, v_v_positions, table, choice, *ctx.layout)
    return v_positions, None, v_table, None, v_v_encoded, *[None] * 6


_hash_grid.register_fake(_empty_encoding)
_hash_grid_table_backward.register_fake(_empty_table)
_hash_grid_positions_backward.register_fake(_empty_positions)
for _operation, _tensors, _formula in (
    (_hash_grid, 4, _backward),
    (_hash_grid_table_backward, 4, _table_backward_backward),
    (_hash_grid_positions_backward, 5, _positions_backward_backward),
):
    _operation.register_autograd(
        _formula, setup_context=lambda ctx, inputs, output, n=_tensors: _remember(ctx, n, inputs)
    )


# -------------------------------------------------------------------------------------------------- learned probing
@torch.library.custom_op("anchorfield::probed_hash_grid", mutates_args=(), device_types="cpu")
def _probed_hash_grid(
    positions: Tensor,
    table: Tensor,
    choice: Tensor,
    probabilities: Tensor,
    scales: list[float],
    sides: list[int],
    offsets: list[int],
    interpolation: int,
    probes: int,
    log2_index_size: int,
) -> Tensor:
    encoded = _empty_encoding(positions, None, table, choice, scales)
    layout = (scales, sides, offsets, interpolation, probes, log2_index_size)
    _kernels.hash_grid(*_dense(positions, None, table, choice), *layout, encoded)
    return encoded


# Gradients to positions, and to table and probabilities; those that are not `wanted` have no numbers.
@torch.library.custom_op("anchorfield::probed_hash_grid_backward", mutates_args=(), device_types="cpu")
def _probed_hash_grid_backward(
    positions: Tensor,
    table: Tensor,
    choice: Tensor,
    probabilities: Tensor,
    v_encoded: Tensor,
    scales: list[float],
    sides: list[int],
    offsets: list[int],
    interpolation: int,
    probes: int,
    log2_index_size: int,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    v_positions, *others = results = _empty_probed_gradients(positions, table, choice, probabilities, v_encoded, wanted)
    layout = (scales, sides, offsets, interpolation, probes, log2_index_size)
    if wanted[0]:
        inputs = _dense(positions, None, table, choice, v_encoded)
        _kernels.hash_grid_positions_backward(*inputs, *layout, v_positions)
    if wanted[1]:
        _kernels.probed_hash_grid_backward(*_dense(positions, table, probabilities, v_encoded), *layout, *others)
    return results


def _remember_probed(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.layout = inputs[4:]


def _probed_backward(ctx: Any, v_encoded: Tensor) -> tuple[Tensor | None, ...]:
    # Kept in the graph only for second derivatives, which are then refused aloud instead of left out.
    tensors = (t if torch.is_grad_enabled() else t.detach() for t in ctx.saved_tensors)
    of_positions, of_table, _, of_probabilities, *_ = ctx.needs_input_grad
    wanted = [of_positions, of_table or of_probabilities]
    v_positions, v_table, v_probabilities = _probed_hash_grid_backward(*tensors, v_encoded, *ctx.layout, wanted)
    return (
        v_positions if of_positions else None,
        v_table if of_table else None,
        None,
        v_probabilities if of_probabilities else None,
        *[None] * 6,
    )


def _no_second_derivatives(ctx: Any, *gradients: Tensor) -> None:
    raise RuntimeError(
        "hash_grid: expected first derivatives only where probabilities are given, got second ones; detach what they "
        "come from, or give the choice alone"
    )


_probed_hash_grid.register_fake(_empty_probed)
_probed_hash_grid_backward.register_fake(_empty_probed_gradients)
_probed_hash_grid.register_autograd(_probed_backward, setup_context=_remember_probed)
_probed_hash_grid_backward.register_autograd(_no_second_derivatives)
