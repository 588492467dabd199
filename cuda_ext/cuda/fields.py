"""Fields on a CUDA device: hash grids, neighbours, rays, perceptrons."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from anchorfield.cuda_ext import directions, hash_grid, marching, mlp, neighbours, rays
from anchorfield.cuda_ext.cuda import launch


# -------------------------------------------------------------------------------------------- hash grids and neighbours
def encode_positions(
    positions: Tensor, along: Tensor | None, table: Tensor, choice: Tensor | None, *layout: Any
) -> Tensor:
    """Encoding of positions; see `hash_grid.hash_grid`."""
    encoded = hash_grid._empty_encoding(positions, along, table, choice, *layout)
    launch.run("hash_grid", *hash_grid._dense(positions, along, table, choice), *layout, encoded)
    return encoded


def encode_positions_table_backward(
    positions: Tensor,
    along: Tensor | None,
    choice: Tensor | None,
    v_encoded: Tensor,
    scales: list[float],
    *layout: Any,
) -> Tensor:
    """Gradient to the table. Sums are of 64-bit integers, in any order, so that they repeat bit for bit."""
    v_table = hash_grid._empty_table(positions, along, choice, v_encoded, scales, *layout)
    largest = _largest(v_encoded)
    if along is not None and along.numel():
        # Derivatives of all weights along an axis add up to 2 times a slope of at most 3/2 a cell, those of simplices
        # to 2 + 2 (sqrt(d + 1) - 1) / d at most, which is less.
        largest = largest * (4 * max(scales)) * along.abs().sum(1).amax()
    sums = torch.empty(v_table.shape, dtype=torch.int64, device=v_table.device)
    inputs = hash_grid._dense(positions, along, choice, v_encoded, largest)
    launch.run("hash_grid_table_backward", *inputs, scales, *layout, sums, v_table)
    return v_table


def encode_positions_backward(
    positions: Tensor, along: Tensor | None, table: Tensor, choice: Tensor | None, v_encoded: Tensor, *layout: Any
) -> Tensor:
    """Gradient to the positions."""
    v_positions = hash_grid._empty_positions(positions)
    inputs = hash_grid._dense(positions, along, table, choice, v_encoded)
    launch.run("hash_grid_positions_backward", *inputs, *layout, v_positions)
    return v_positions


def encode_probed(positions: Tensor, table: Tensor, choice: Tensor, probabilities: Tensor, *layout: Any) -> Tensor:
    """Encoding of positions by chosen rows."""
    return encode_positions(positions, None, table, choice, *layout)


def encode_probed_backward(
    positions: Tensor,
    table: Tensor,
    choice: Tensor,
    probabilities: Tensor,
    v_encoded: Tensor,
    *layout_and_wanted: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients to positions, and to table and probabilities, whose sums are of 64-bit integers."""
    *layout, wanted = layout_and_wanted
    results = hash_grid._empty_probed_gradients(positions, table, choice, probabilities, v_encoded, wanted)
    v_positions, *others = results
    if wanted[0]:
        v_positions.copy_(encode_positions_backward(positions, None, table, choice, v_encoded, *layout))
    if wanted[1]:
        largest = _largest(v_encoded)
        largest = torch.stack([largest, largest * table.abs().amax() * table.shape[1]])
        sums = [torch.empty(v.shape, dtype=torch.int64, device=v.device) for v in others]
        inputs = hash_grid._dense(positions, table, probabilities, v_encoded, largest)
        launch.run("probed_hash_grid_backward", *inputs, *layout, *sums, *others)
    return results


def _largest(numbers: Tensor) -> Tensor:
    return numbers.abs().amax() if numbers.numel() else numbers.new_zeros(())


def aggregate_neighbours(
    features: Tensor, neighbour_indices: Tensor, weights: Tensor, starts: Tensor, arrivals: Tensor
) -> tuple[Tensor, Tensor]:
    """Aggregated features and the edges of the messages; see `neighbours.aggregate_neighbours`."""
    aggregated, edges = neighbours._empty_outputs(features)
    inputs = launch.dense(features, neighbour_indices, weights, starts, arrivals)
    launch.run("aggregate_neighbours", *inputs, aggregated, edges, torch.empty_like(aggregated))
    return aggregated, edges


def aggregate_neighbours_backward(
    neighbour_indices: Tensor, weights: Tensor, starts: Tensor, arrivals: Tensor, edges: Tensor, v_aggregated: Tensor
) -> Tensor:
    """Gradient to the features."""
    inputs = launch.dense(neighbour_indices, weights, starts, arrivals, edges, v_aggregated)
    v_features = torch.empty_like(inputs[-1])
    launch.run("aggregate_neighbours_backward", *inputs, v_features, torch.empty_like(v_features))
    return v_features


# ----------------------------------------------------------------------------------------------------------------- rays
def march(
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    jitter: Tensor,
    bits: Tensor,
    shape: list[int],
    steps: list[float],
    most: int,
) -> tuple[Tensor, ...]:
    """The tensors of `marching.Samples`. The host waits for their number."""
    inputs = launch.dense(origins, directions, near, far, jitter, bits)
    counts = bits.new_empty(origins.shape[0], dtype=torch.int32)
    launch.run("march_count", *inputs, shape, steps, most, counts)
    starts, totals = marching.starts_of(counts)
    outputs = marching.empty_samples(origins, starts, launch.read_back(totals)()[0])
    launch.run("march_write", *inputs, shape, steps, most, *outputs)
    return outputs


def composite_rays(optical: Tensor, values: Tensor, starts: Tensor) -> tuple[Tensor, ...]:
    """Sums, transmittance, weights, and where rays are opaque; see `rays.composite_rays`."""
    outputs = rays._empty_sums(optical, values, starts)
    launch.run("composite_rays", *launch.dense(optical, values, starts), *outputs)
    return outputs


def composite_rays_backward(values: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients to optical thicknesses and values."""
    outputs = rays._empty_gradients(values)
    launch.run("composite_rays_backward", *launch.dense(values, *others), *outputs)
    return outputs


def distortion(weights: Tensor, t0: Tensor, t1: Tensor, starts: Tensor) -> Tensor:
    """See `rays.distortion`."""
    losses = rays._empty_losses(weights, t0, t1, starts)
    launch.run("distortion", *launch.dense(weights, t0, t1, starts), losses)
    return losses


def distortion_backward(weights: Tensor, t0: Tensor, t1: Tensor, starts: Tensor, v_losses: Tensor) -> Tensor:
    """Gradient to the weights."""
    v_weights = weights.new_empty(weights.shape)
    launch.run("distortion_backward", *launch.dense(weights, t0, t1, starts, v_losses), v_weights)
    return v_weights


# --------------------------------------------------------------------------------------------------------- perceptrons
def harmonics_basis(axes: Tensor, degree: int) -> Tensor:
    """See `directions.spherical_harmonics_basis`."""
    values = directions._empty_values(axes, degree)
    launch.run("harmonics_basis", *launch.dense(axes), degree, values)
    return values


def harmonics_basis_backward(axes: Tensor, v_values: Tensor, degree: int) -> Tensor:
    """Gradient to the directions."""
    v_axes = directions._empty_gradient(axes)
    launch.run("harmonics_basis_backward", *launch.dense(axes, v_values), degree, v_axes)
    return v_axes


def perceptron(inputs: Tensor, weights: Tensor, outputs: int, width: int, hidden: int) -> Tensor:
    """See `mlp.mlp`."""
    result = mlp._empty_outputs(inputs, weights, outputs)
    scratch = inputs.new_empty(launch.native.mlp_scratch(inputs.shape[1], outputs, width, hidden, len(inputs), False))
    launch.run("mlp", *launch.dense(inputs, weights), width, hidden, result, scratch)
    return result


def perceptron_backward(
    inputs: Tensor, weights: Tensor, v_outputs: Tensor, width: int, hidden: int, wanted: list[bool]
) -> tuple[Tensor, Tensor]:
    """Gradients to inputs and weights, those that are wanted."""
    results = mlp._empty_gradients(inputs, weights, v_outputs, width, hidden, wanted)
    sizes = inputs.shape[1], v_outputs.shape[1], width, hidden
    scratch = inputs.new_empty(launch.native.mlp_scratch(*sizes, len(inputs), True))
    arrays = launch.dense(inputs, weights, v_outputs)
    launch.run("mlp_backward", *arrays, width, hidden, *mlp._only(wanted, results), scratch)
    return results


IMPLEMENTATIONS: launch.Implementations = {
    hash_grid._hash_grid: encode_positions,
    hash_grid._hash_grid_table_backward: encode_positions_table_backward,
    hash_grid._hash_grid_positions_backward: encode_positions_backward,
    hash_grid._probed_hash_grid: encode_probed,
    hash_grid._probed_hash_grid_backward: encode_probed_backward,
    neighbours._aggregate_neighbours: aggregate_neighbours,
    neighbours._aggregate_neighbours_backward: aggregate_neighbours_backward,
    marching._march: march,
    rays._composite_rays: composite_rays,
    rays._composite_rays_backward: composite_rays_backward,
    rays._distortion: distortion,
    rays._distortion_backward: distortion_backward,
    directions._basis: harmonics_basis,
    directions._basis_backward: harmonics_basis_backward,
    mlp._mlp: perceptron,
    mlp._mlp_backward: perceptron_backward,
}
