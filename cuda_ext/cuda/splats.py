"""Gaussians to the image on a CUDA device: projection, harmonics, tiles, compositing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from anchorfield.cuda_ext import binning, compositing, projection, spherical_harmonics
from anchorfield.cuda_ext.cuda import launch

_HEADROOM = 1.25  # room for visible Gaussians and pairs, over what was needed
_rooms: dict[torch.device, tuple[int, int]] = {}  # visible Gaussians and pairs to make room for


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
    inputs = launch.dense(means, quats, scales, opacities, world_to_camera)
    outputs = projection.empty_outputs(means)
    launch.run("project", *inputs, numbers, antialiased, raw, *outputs)
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
    inputs = launch.dense(means, quats, scales, opacities, world_to_camera)
    outputs = [torch.empty_like(t) for t in inputs[:4]]
    pose = torch.zeros_like(inputs[4])
    partial = means.new_empty((launch.native.sum_rows(means.shape[0]), 12))
    results = [*outputs, pose if needs_pose else None]
    launch.run(
        "project_backward", *inputs, numbers, antialiased, raw, *launch.dense(*gradients, extents), *results, partial
    )
    return (*outputs, pose)


def colours_from_harmonics(sh: Tensor, means: Tensor, centre: Tensor, visible: Tensor, degree: int) -> Tensor:
    """Colours; see `spherical_harmonics.spherical_harmonics`."""
    colours = means.new_empty((means.shape[0], 3))
    launch.run("spherical_harmonics", *launch.dense(sh, means, centre, visible), degree, colours)
    return colours


def colours_from_harmonics_backward(
    sh: Tensor, means: Tensor, centre: Tensor, visible: Tensor, degree: int, colours: Tensor, v_colours: Tensor
) -> tuple[Tensor, ...]:
    """Gradients to coefficients, means and centre."""
    inputs = launch.dense(sh, means, centre, visible)
    outputs = [torch.empty_like(t) for t in inputs[:3]]
    partial = means.new_empty((launch.native.sum_rows(means.shape[0]), 3))
    launch.run("spherical_harmonics_backward", *inputs, degree, *launch.dense(colours, v_colours), *outputs, partial)
    return tuple(outputs)


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
    arrays = launch.dense(means2d, conics, depths, opacities, extents)
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

    with launch.queue(device):
        scratch = new(launch.native.binning_scratch(count, room_visible, room_pairs, width, height), torch.uint8)
    order, offsets, totals = new(room_visible), new(room_visible + 1), new(2, torch.int64)
    launch.run("order_by_depth", *arrays, room_pairs, width, height, order, offsets, totals, scratch)
    wait = launch.read_back(totals)
    pairs = [new(room_pairs), new(room_pairs, torch.uint16), new(room_pairs), new(tiles + 1)]
    launch.run("list_pairs", *arrays, width, height, order, offsets, totals, *pairs, scratch)
    return [*pairs, order, offsets], wait


# ---------------------------------------------------------------------------------------------------------- compositing
def _trail(bins: list[Tensor], width: int, height: int, channels: int) -> Tensor:
    """Room for what compositing forward leaves for backward."""
    size = launch.native.trail_size(len(bins[0]), width, height, channels)
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
    inputs = launch.dense(means2d, conics, opacities, features, background)
    image = features.new_empty((height, width, features.shape[1]))
    transmittance = image.new_empty((height, width))
    trail = _trail(bins, width, height, features.shape[1])
    launch.run("composite", *inputs, *bins, width, height, image, transmittance, trail)
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
    inputs = launch.dense(means2d, conics, opacities, features, background)
    outputs = [torch.zeros_like(t) for t in inputs[:4]]
    probe = torch.zeros_like(inputs[0]) if absolute else inputs[0].new_zeros(0)
    records = means2d.new_empty((len(bins[0]), launch.native.record_size(features.shape[1], absolute)))
    given = [*launch.dense(v_image, v_transmittance), *outputs, probe if absolute else None]
    launch.run("composite_backward", *inputs, *bins, width, height, trail, *given, records)
    return (*outputs, probe)


def contributions(
    means2d: Tensor, conics: Tensor, opacities: Tensor, bins: list[Tensor], width: int, height: int
) -> Tensor:
    """Blend weights summed over the pixels; see `compositing.contributions`."""
    weights = torch.zeros_like(opacities, memory_format=torch.contiguous_format)
    scratch = [opacities.new_empty((height, width)), _trail(bins, width, height, 0), opacities.new_empty(len(bins[0]))]
    launch.run("contributions", *launch.dense(means2d, conics, opacities), *bins, width, height, *scratch, weights)
    return weights


IMPLEMENTATIONS: launch.Implementations = {
    projection._project: project,
    projection._project_backward: project_backward,
    spherical_harmonics._spherical_harmonics: colours_from_harmonics,
    spherical_harmonics._spherical_harmonics_backward: colours_from_harmonics_backward,
    binning._bin_tiles: bin_tiles,
    compositing._composite: composite,
    compositing._composite_backward: composite_backward,
    compositing._contributions: contributions,
}
