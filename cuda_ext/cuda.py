"""CUDA implementations of the registered operations, from the same formulas as the CPU's; float32 only.

Work is queued on torch's current stream and memory comes from torch's allocator. The device never waits for the host;
the host waits at three places for numbers that are read back: in `bin_tiles`, while the device already sorts, in
`decode_anchors`, whose results are as long as Gaussians are kept, and in `march`, for the number of samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from anchorfield.cuda_ext import (
    _kernels,
    activations,
    adam,
    anchors,
    binning,
    compositing,
    directions,
    hash_grid,
    langevin,
    marching,
    mlp,
    neighbours,
    projection,
    rays,
    spherical_harmonics,
    ssim,
)

_native: Any = getattr(_kernels, "cuda", None)  # None where the build carries no CUDA kernels
_HEADROOM = 1.25  # room for visible Gaussians and pairs, over what was needed
_rooms: dict[torch.device, tuple[int, int]] = {}  # visible Gaussians and pairs to make room for


@contextmanager
def _queue(device: torch.device) -> Iterator[int]:
    """The handle of the current stream of `device`, which is the current device meanwhile."""
    with torch.cuda.device(device):
        yield torch.cuda.current_stream().cuda_stream


def _run(name: str, *arguments: Any) -> None:
    """Queue a kernel. Tensors travel as DLPack capsules made without any exchange between streams."""
    tensors = [a for a in tree_leaves(arguments) if isinstance(a, Tensor)]
    if any(t.dtype == torch.float64 for t in tensors):
        raise TypeError(f"{name}: expected float32 tensors on a CUDA device, got float64; use .float() or the CPU")
    with _queue(tensors[0].device) as stream:
        getattr(_native, name)(*_capsules(arguments), stream)


def _capsules(arguments: Any) -> Any:
    """The arguments with capsules in place of the tensors."""
    return tree_map_only(Tensor, lambda t: t.detach().__dlpack__(stream=-1), arguments)


def _read_back(totals: Tensor) -> Callable[[], list[int]]:
    """Start copying two integers to the host; the function returned waits for them alone, not for later work."""
    host = torch.empty(2, dtype=torch.int64, pin_memory=True)
    with torch.cuda.device(totals.device):
        host.copy_(totals, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()

    def wait() -> list[int]:
        arrived.synchronize()
        return [int(number) for number in host]

    return wait


def _dense(*tensors: Tensor) -> list[Tensor]:
    return [t.detach().contiguous() for t in tensors]


# ----------------------------------------------------------------------------------------------- Gaussians to the image
def project(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    world_to_camera: Tensor,
    numbers: list[float],
    antialiased: bool,
    raw: bool,
) -> tuple[Tensor, ...]:
    """Means, conics, depths, opacities and extents on the image; see `projection.project`."""
    inputs = _dense(means, quats, scales, opacities, world_to_camera)
    outputs = projection.empty_outputs(means)
    _run("project", *inputs, numbers, antialiased, raw, *outputs)
    return outputs


def project_backward(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    world_to_camera: Tensor,
    numbers: list[float],
    antialiased: bool,
    raw: bool,
    gradients: list[Tensor],
    extents: Tensor,
    needs_pose: bool,
) -> tuple[Tensor, ...]:
    """Gradients to means, quats, scales, opacities and pose."""
    inputs = _dense(means, quats, scales, opacities, world_to_camera)
    outputs = [torch.empty_like(t) for t in inputs[:4]]
    pose = torch.zeros_like(inputs[4])
    partial = means.new_empty((_native.sum_rows(means.shape[0]), 12))
    results = [*outputs, pose if needs_pose else None]
    _run("project_backward", *inputs, numbers, antialiased, raw, *_dense(*gradients, extents), *results, partial)
    return (*outputs, pose)


def colours_from_harmonics(sh: Tensor, means: Tensor, centre: Tensor, visible: Tensor, degree: int) -> Tensor:
    """Colours; see `spherical_harmonics.spherical_harmonics`."""
    colours = means.new_empty((means.shape[0], 3))
    _run("spherical_harmonics", *_dense(sh, means, centre, visible), degree, colours)
    return colours


def colours_from_harmonics_backward(
    sh: Tensor, means: Tensor, centre: Tensor, visible: Tensor, degree: int, colours: Tensor, v_colours: Tensor
) -> tuple[Tensor, ...]:
    """Gradients to coefficients, means and centre."""
    inputs = _dense(sh, means, centre, visible)
    outputs = [torch.empty_like(t) for t in inputs[:3]]
    partial = means.new_empty((_native.sum_rows(means.shape[0]), 3))
    _run("spherical_harmonics_backward", *inputs, degree, *_dense(colours, v_colours), *outputs, partial)
    return tuple(outputs)


# -------------------------------------------------------------------------------------------------------------- anchors
def _anchor_inputs(
    points: Tensor,
    features: Tensor,
    offsets: Tensor,
    log_scales: Tensor,
    heads: list[Tensor],
    centre: Tensor,
    rows: Tensor,
    fade: Tensor | None,
) -> tuple[list[Tensor], Tensor]:
    """What every part of decoding begins with: the arrays of numbers, and the rows."""
    fade = points.new_empty(0) if fade is None else fade
    return _dense(points, features, offsets, log_scales, centre, fade, *heads), rows.contiguous()


def _anchor_scratch(inputs: list[Tensor], rows: Tensor, backward: bool) -> Tensor:
    return inputs[0].new_empty(_native.anchor_scratch(*_capsules((inputs, rows)), backward))


def decode_anchors(
    points: Tensor,
    features: Tensor,
    offsets: Tensor,
    log_scales: Tensor,
    heads: list[Tensor],
    centre: Tensor,
    rows: Tensor,
    fade: Tensor | None,
) -> tuple[Tensor, ...]:
    """The tensors of `anchors.Decoded`. The host waits for their number."""
    if rows.shape[0] == 0:
        return anchors.empty_outputs(points, 0)
    inputs, rows = _anchor_inputs(points, features, offsets, log_scales, heads, centre, rows, fade)
    ranks = rows.new_empty((rows.shape[0], offsets.shape[1]))
    logits = points.new_empty((ranks.numel(), anchors.LOGITS))
    totals = rows.new_empty(2, dtype=torch.int64)
    with _queue(points.device):
        scan = rows.new_empty(_native.anchor_scan_bytes(ranks.numel()), dtype=torch.uint8)
    _run("decode_logits", inputs, rows, logits, ranks, totals, scan, _anchor_scratch(inputs, rows, False))
    outputs = anchors.empty_outputs(points, _read_back(totals)()[0])
    _run("write_gaussians", inputs, rows, logits, ranks, *outputs)
    return outputs


def decode_anchors_backward(
    points: Tensor,
    features: Tensor,
    offsets: Tensor,
    log_scales: Tensor,
    heads: list[Tensor],
    centre: Tensor,
    rows: Tensor,
    fade: Tensor | None,
    decoded: list[Tensor],
    gradients: list[Tensor],
) -> list[Tensor]:
    """Gradients to features, offsets, scales and heads."""
    inputs, rows = _anchor_inputs(points, features, offsets, log_scales, heads, centre, rows, fade)
    outputs = [t.new_zeros(t.shape) for t in (features, offsets, log_scales, *heads)]
    scratch = _anchor_scratch(inputs, rows, True)
    _run("decode_anchors_backward", inputs, rows, *_dense(*decoded), _dense(*gradients), outputs, scratch)
    return outputs


# ---------------------------------------------------------------------------------------------------------------- tiles
def _room(needed: int, before: int) -> int:
    """Room for the next call: views differ, so what was large shrinks slowly; CUB counts in 32 bits."""
    return min(max(int(needed * _HEADROOM) + 1, int(before * 0.95)), 2**31 - 1)


def bin_tiles(
    means2d: Tensor, conics: Tensor, depths: Tensor, opacities: Tensor, extents: Tensor, width: int, height: int
) -> tuple[Tensor, ...]:
    """The tensors of `binning.Bins`.

    How long they are is known on the device only. So room is made for what recent calls needed and a quarter more,
    everything is queued, and then the host fetches the true numbers while the device sorts. Only where the room was too
    small, the work is queued again.
    """
    arrays = _dense(means2d, conics, depths, opacities, extents)
    count, device = means2d.shape[0], means2d.device
    if count == 0:
        tiles = -(-width // binning.TILE) * -(-height // binning.TILE)
        lengths = {"gaussians": 0, "blocks": 0, "slots": 0, "tile_offsets": tiles + 1, "order": 0, "order_offsets": 1}
        return tuple(
            torch.zeros(length, dtype=torch.uint16 if name == "blocks" else torch.int32, device=device)
            for name, length in lengths.items()
        )
    room_visible, room_pairs = _rooms.get(device, (count, 4 * count))
    while True:
        room = (min(room_visible, count), max(room_pairs, 1))
        lists, wait = _queue_binning(arrays, *room, width, height)
        visible, pairs = wait()
        if pairs >= 2**31:
            raise ValueError(f"bin_tiles: expected fewer than 2^31 pairs of Gaussian and tile, got {pairs}")
        room_visible, room_pairs = (_room(*numbers) for numbers in ((visible, room[0]), (pairs, room[1])))
        _rooms[device] = room_visible, room_pairs
        if visible <= room[0] and pairs <= room[1]:
            break
    gaussians, blocks, slots, tile_offsets, order, offsets = lists
    return gaussians[:pairs], blocks[:pairs], slots[:pairs], tile_offsets, order[:visible], offsets[: visible + 1]


def _queue_binning(
    arrays: list[Tensor], room_visible: int, room_pairs: int, width: int, height: int
) -> tuple[list[Tensor], Callable[[], list[int]]]:
    """The lists, as long as the room, and how to wait for the numbers of visible Gaussians and pairs."""
    count, device = arrays[0].shape[0], arrays[0].device
    tiles = -(-width // binning.TILE) * -(-height // binning.TILE)

    def new(length: int, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.empty(length, dtype=dtype, device=device)

    with _queue(device):
        scratch = new(_native.binning_scratch(count, room_visible, room_pairs, width, height), torch.uint8)
    order, offsets, totals = new(room_visible), new(room_visible + 1), new(2, torch.int64)
    _run("order_by_depth", *arrays, room_pairs, width, height, order, offsets, totals, scratch)
    wait = _read_back(totals)
    pairs = [new(room_pairs), new(room_pairs, torch.uint16), new(room_pairs), new(tiles + 1)]
    _run("list_pairs", *arrays, width, height, order, offsets, totals, *pairs, scratch)
    return [*pairs, order, offsets], wait


# ---------------------------------------------------------------------------------------------------------- compositing
def _trail(bins: list[Tensor], width: int, height: int, channels: int) -> Tensor:
    """Room for what compositing forward leaves for backward."""
    size = _native.trail_size(len(bins[0]), width, height, channels)
    return torch.empty(size, dtype=torch.float32, device=bins[0].device)


def composite(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    features: Tensor,
    background: Tensor,
    absgrad_probe: Tensor | None,
    bins: list[Tensor],
    width: int,
    height: int,
) -> tuple[Tensor, ...]:
    """Image, transmittance, and what backward wants to know; see `compositing.composite`."""
    inputs = _dense(means2d, conics, opacities, features, background)
    image = features.new_empty((height, width, features.shape[1]))
    transmittance = image.new_empty((height, width))
    trail = _trail(bins, width, height, features.shape[1])
    _run("composite", *inputs, *bins, width, height, image, transmittance, trail)
    return image, transmittance, trail


def composite_backward(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    features: Tensor,
    background: Tensor,
    bins: list[Tensor],
    width: int,
    height: int,
    trail: Tensor,
    v_image: Tensor,
    v_transmittance: Tensor,
    absolute: bool,
) -> tuple[Tensor, ...]:
    """Gradients to means2d, conics, opacities and features, and the absolute gradient to means2d."""
    inputs = _dense(means2d, conics, opacities, features, background)
    outputs = [torch.zeros_like(t) for t in inputs[:4]]
    probe = torch.zeros_like(inputs[0]) if absolute else inputs[0].new_zeros(0)
    records = means2d.new_empty((len(bins[0]), _native.record_size(features.shape[1], absolute)))
    given = [*_dense(v_image, v_transmittance), *outputs, probe if absolute else None]
    _run("composite_backward", *inputs, *bins, width, height, trail, *given, records)
    return (*outputs, probe)


def contributions(
    means2d: Tensor, conics: Tensor, opacities: Tensor, bins: list[Tensor], width: int, height: int
) -> Tensor:
    """Blend weights summed over the pixels; see `compositing.contributions`."""
    weights = torch.zeros_like(opacities, memory_format=torch.contiguous_format)
    scratch = [opacities.new_empty((height, width)), _trail(bins, width, height, 0), opacities.new_empty(len(bins[0]))]
    _run("contributions", *_dense(means2d, conics, opacities), *bins, width, height, *scratch, weights)
    return weights


# ------------------------------------------------------------------------------------------------------------- training
def _masked(image: Tensor, mask: Tensor | None) -> Tensor:
    """Zero where the mask hides a pixel, whatever stands there."""
    return image.detach().contiguous() if mask is None else image.detach().masked_fill(~mask[..., None], 0)


def _share(mask: Tensor | None) -> Tensor | float:
    """By what the mean difference over all pixels is multiplied to be that over the pixels which count."""
    return 1.0 if mask is None else mask.numel() / mask.sum().clamp_min(1)


def photometric(
    image: Tensor, target: Tensor, mask: Tensor | None, differentiable: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean absolute difference, mean SSIM, and what backward wants to know; see `ssim.l1_and_ssim`."""
    height, width, _ = image.shape
    maps = ssim.empty_outputs(image, True)[2]  # room for [3, H, W, C]
    means, partial = image.new_empty(2), image.new_empty((_native.photometric_rows(width, height), 2))
    _run("photometric", _masked(image, mask), _masked(target, mask), means, maps, partial)
    return means[1] * _share(mask), means[0].clone(), maps if differentiable else image.new_empty(0)


def photometric_backward(
    image: Tensor, target: Tensor, mask: Tensor | None, maps: Tensor, v_l1: Tensor, v_ssim: Tensor
) -> Tensor:
    """Gradient to the image from those to the two means."""
    v_image = torch.empty(image.shape, dtype=image.dtype, device=image.device)
    v_means = torch.stack([v_ssim, v_l1 * _share(mask)])
    _run("photometric_backward", _masked(image, mask), _masked(target, mask), maps, v_means, v_image)
    return v_image if mask is None else v_image.masked_fill_(~mask[..., None], 0)


def adam_step(
    parameters: list[Tensor],
    gradients: list[Tensor],
    moments1: list[Tensor],
    moments2: list[Tensor],
    rates: list[Tensor],
    rows: Tensor | None,
    step: int,
    numbers: list[float],
) -> None:
    """See `adam.adam_step`."""
    for parameter, gradient, moment1, moment2, rate in zip(
        parameters, gradients, moments1, moments2, rates, strict=True
    ):
        dense = gradient.detach().contiguous(), moment1, moment2, rate.contiguous()
        _run("adam_step", parameter, *dense, rows, parameter.shape[0], step, *numbers)


def perturb_means(
    means: Tensor, quats: Tensor, log_scales: Tensor, logit_opacities: Tensor, strength: float, seed: int
) -> None:
    """See `langevin.perturb_means`."""
    _run("perturb_means", means, *_dense(quats, log_scales, logit_opacities), strength, seed)


def mean_activations(log_scales: Tensor, logit_opacities: Tensor) -> tuple[Tensor, Tensor]:
    """See `activations.mean_activations`; torch's own kernels serve."""
    if log_scales.shape[0] == 0:
        return log_scales.new_zeros(()), log_scales.new_zeros(())
    return log_scales.exp().mean(), logit_opacities.sigmoid().mean()


def mean_activations_backward(
    log_scales: Tensor, logit_opacities: Tensor, v_scale: Tensor, v_opacity: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients to the raw values."""
    opacities = logit_opacities.sigmoid()
    count = max(log_scales.shape[0], 1)
    return log_scales.exp() * (v_scale / (3 * count)), opacities * (1 - opacities) * (v_opacity / count)


# -------------------------------------------------------------------------------------------- hash grids and neighbours
def encode_positions(
    positions: Tensor, along: Tensor | None, table: Tensor, choice: Tensor | None, *layout: Any
) -> Tensor:
    """Encoding of positions; see `hash_grid.hash_grid`."""
    encoded = hash_grid._empty_encoding(positions, along, table, choice, *layout)
    _run("hash_grid", *hash_grid._dense(positions, along, table, choice), *layout, encoded)
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
    _run("hash_grid_table_backward", *inputs, scales, *layout, sums, v_table)
    return v_table


def encode_positions_backward(
    positions: Tensor, along: Tensor | None, table: Tensor, choice: Tensor | None, v_encoded: Tensor, *layout: Any
) -> Tensor:
    """Gradient to the positions."""
    v_positions = hash_grid._empty_positions(positions)
    inputs = hash_grid._dense(positions, along, table, choice, v_encoded)
    _run("hash_grid_positions_backward", *inputs, *layout, v_positions)
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
        _run("probed_hash_grid_backward", *inputs, *layout, *sums, *others)
    return results


def _largest(numbers: Tensor) -> Tensor:
    return numbers.abs().amax() if numbers.numel() else numbers.new_zeros(())


def aggregate_neighbours(
    features: Tensor, neighbour_indices: Tensor, weights: Tensor, starts: Tensor, arrivals: Tensor
) -> tuple[Tensor, Tensor]:
    """Aggregated features and the edges of the messages; see `neighbours.aggregate_neighbours`."""
    aggregated, edges = neighbours._empty_outputs(features)
    inputs = _dense(features, neighbour_indices, weights, starts, arrivals)
    _run("aggregate_neighbours", *inputs, aggregated, edges, torch.empty_like(aggregated))
    return aggregated, edges


def aggregate_neighbours_backward(
    neighbour_indices: Tensor, weights: Tensor, starts: Tensor, arrivals: Tensor, edges: Tensor, v_aggregated: Tensor
) -> Tensor:
    """Gradient to the features."""
    inputs = _dense(neighbour_indices, weights, starts, arrivals, edges, v_aggregated)
    v_features = torch.empty_like(inputs[-1])
    _run("aggregate_neighbours_backward", *inputs, v_features, torch.empty_like(v_features))
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
    inputs = _dense(origins, directions, near, far, jitter, bits)
    counts = bits.new_empty(origins.shape[0], dtype=torch.int32)
    _run("march_count", *inputs, shape, steps, most, counts)
    starts, totals = marching.starts_of(counts)
    outputs = marching.empty_samples(origins, starts, _read_back(totals)()[0])
    _run("march_write", *inputs, shape, steps, most, *outputs)
    return outputs


def composite_rays(optical: Tensor, values: Tensor, starts: Tensor) -> tuple[Tensor, ...]:
    """Sums, transmittance, weights, and where rays are opaque; see `rays.composite_rays`."""
    outputs = rays._empty_sums(optical, values, starts)
    _run("composite_rays", *_dense(optical, values, starts), *outputs)
    return outputs


def composite_rays_backward(values: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients to optical thicknesses and values."""
    outputs = rays._empty_gradients(values)
    _run("composite_rays_backward", *_dense(values, *others), *outputs)
    return outputs


def distortion(weights: Tensor, t0: Tensor, t1: Tensor, starts: Tensor) -> Tensor:
    """See `rays.distortion`."""
    losses = rays._empty_losses(weights, t0, t1, starts)
    _run("distortion", *_dense(weights, t0, t1, starts), losses)
    return losses


def distortion_backward(weights: Tensor, t0: Tensor, t1: Tensor, starts: Tensor, v_losses: Tensor) -> Tensor:
    """Gradient to the weights."""
    v_weights = weights.new_empty(weights.shape)
    _run("distortion_backward", *_dense(weights, t0, t1, starts, v_losses), v_weights)
    return v_weights


# --------------------------------------------------------------------------------------------------------- perceptrons
# ------------------------------------------------------------------------------------------------ fields on hash grids
def adam_step_touched(
    parameters: list[Tensor],
    gradients: list[Tensor],
    moments1: list[Tensor],
    moments2: list[Tensor],
    counts: list[Tensor],
    rates: list[Tensor],
    scales: Tensor,
    numbers: list[float],
) -> None:
    """See `adam.adam_step_touched`."""
    lists = (parameters, gradients, moments1, moments2, counts, rates)
    for parameter, gradient, moment1, moment2, count, rate in zip(*lists, strict=True):
        dense = gradient.detach().contiguous(), moment1, moment2, count, rate.contiguous()
        _run("adam_step_touched", parameter, *dense, scales, *numbers)


def harmonics_basis(axes: Tensor, degree: int) -> Tensor:
    """See `directions.spherical_harmonics_basis`."""
    values = directions._empty_values(axes, degree)
    _run("harmonics_basis", *_dense(axes), degree, values)
    return values


def harmonics_basis_backward(axes: Tensor, v_values: Tensor, degree: int) -> Tensor:
    """Gradient to the directions."""
    v_axes = directions._empty_gradient(axes)
    _run("harmonics_basis_backward", *_dense(axes, v_values), degree, v_axes)
    return v_axes


def perceptron(inputs: Tensor, weights: Tensor, outputs: int, width: int, hidden: int) -> Tensor:
    """See `mlp.mlp`."""
    result = mlp._empty_outputs(inputs, weights, outputs)
    scratch = inputs.new_empty(_native.mlp_scratch(inputs.shape[1], outputs, width, hidden, len(inputs), False))
    _run("mlp", *_dense(inputs, weights), width, hidden, result, scratch)
    return result


def perceptron_backward(
    inputs: Tensor, weights: Tensor, v_outputs: Tensor, width: int, hidden: int, wanted: list[bool]
) -> tuple[Tensor, Tensor]:
    """Gradients to inputs and weights, those that are wanted."""
    results = mlp._empty_gradients(inputs, weights, v_outputs, width, hidden, wanted)
    sizes = inputs.shape[1], v_outputs.shape[1], width, hidden
    scratch = inputs.new_empty(_native.mlp_scratch(*sizes, len(inputs), True))
    arrays = _dense(inputs, weights, v_outputs)
    _run("mlp_backward", *arrays, width, hidden, *mlp._only(wanted, results), scratch)
    return results


IMPLEMENTATIONS: dict[Any, Callable[..., Any]] = {
    projection._project: project,
    projection._project_backward: project_backward,
    spherical_harmonics._spherical_harmonics: colours_from_harmonics,
    spherical_harmonics._spherical_harmonics_backward: colours_from_harmonics_backward,
    anchors._decode_anchors: decode_anchors,
    anchors._decode_anchors_backward: decode_anchors_backward,
    binning._bin_tiles: bin_tiles,
    compositing._composite: composite,
    compositing._composite_backward: composite_backward,
    compositing._contributions: contributions,
    ssim._photometric: photometric,
    ssim._photometric_backward: photometric_backward,
    adam._adam_step: adam_step,
    langevin._perturb_means: perturb_means,
    activations._mean_activations: mean_activations,
    activations._mean_activations_backward: mean_activations_backward,
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
    adam._adam_step_touched: adam_step_touched,
    directions._basis: harmonics_basis,
    directions._basis_backward: harmonics_basis_backward,
    mlp._mlp: perceptron,
    mlp._mlp_backward: perceptron_backward,
}

if _native is not None:
    for _operation, _function in IMPLEMENTATIONS.items():
        _operation.register_kernel("cuda")(_function)
