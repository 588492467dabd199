"""Rays through a made grid with 5 % of its voxels occupied: marching, compositing, distortion.

As many rays as there are Gaussians, from around the unit cube through its middle; blobs of occupied voxels, so that
rays skip and stay as they do in scenes. The floor of marching counts the samples alone, not the voxels between them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from anchorfield.cuda_ext.marching import OccupancyLayout, Samples, march
from anchorfield.cuda_ext.rays import composite_rays, distortion
from bench import _table
from bench._operations import FLOAT, Operation, Stages, backward, forward

LAYOUT, OCCUPIED, CHANNELS = OccupancyLayout(), 0.05, 4
MARCH_LANES, COMPOSITE_LANES, DISTORTION_LANES = 30, 20, 8  # arithmetic of one sample, channels apart


@functools.cache
def made_bits() -> Tensor:
    """The most occupied 5 % of smooth noise, [1, resolution^3 / 8]; Morton order is one as good as any for noise."""
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 1, *[LAYOUT.resolution // 8] * 3, generator=g)
    smooth = torch.nn.functional.interpolate(noise, scale_factor=8, mode="trilinear")[0, 0]
    occupied = smooth >= smooth.flatten().kthvalue(int((1 - OCCUPIED) * LAYOUT.cells)).values
    axes = [2] * (3 * (LAYOUT.resolution.bit_length() - 1))  # z and y and x, bit by bit
    bits = len(axes) // 3
    order = [axis * bits + bit for bit in range(bits) for axis in range(3)]
    by_morton = occupied.view(axes).permute(order).reshape(1, -1, 8)
    weights = 2 ** torch.arange(8)
    return (by_morton * weights).sum(-1).to(torch.uint8)


@functools.cache
def made_rays(count: int) -> dict[str, Any]:
    """Arguments of `march`."""
    g = torch.Generator().manual_seed(1)
    origins = 0.5 + 1.5 * torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=1)
    aims = 0.2 + 0.6 * torch.rand(count, 3, generator=g)
    directions = torch.nn.functional.normalize(aims - origins, dim=1)
    near, far = torch.zeros(count), torch.full((count,), torch.inf)
    rays = {"origins": origins, "directions": directions, "near": near, "far": far}
    return {**rays, "jitter": torch.rand(count, generator=g), "bits": made_bits(), "layout": LAYOUT}


def operations(stages: Stages) -> Iterator[Operation]:
    """Marching, then compositing and distortion of what it found, and their gradients."""
    rays = made_rays(stages.count)
    samples = march(**rays)
    number, ends = len(samples.t0), FLOAT * stages.count
    march_traffic = 3.0 * FLOAT * number + 10 * ends + rays["bits"].numel()
    yield Operation("march", lambda: march(**rays), MARCH_LANES * number, march_traffic)
    yield from _compositing(samples, stages.count)


def _compositing(samples: Samples, rays: int) -> Iterator[Operation]:
    g = torch.Generator().manual_seed(2)
    number = len(samples.t0)
    optical = (torch.rand(number, generator=g) * 0.05).requires_grad_()
    values = torch.rand(number, CHANNELS, generator=g).requires_grad_()
    lanes = float(number * (COMPOSITE_LANES + CHANNELS))
    traffic = FLOAT * (number * (CHANNELS + 2.0) + rays * (CHANNELS + 2.0))
    result = composite_rays(optical, values, samples.starts)
    run = forward(lambda: composite_rays(optical, values, samples.starts)[0])
    yield Operation("composite rays", run, lanes, traffic)
    back = FLOAT * (number * (2 * CHANNELS + 3.0) + rays * (CHANNELS + 3.0))
    lanes = float(number * (4 + 3 * CHANNELS))
    yield Operation("composite rays backward", backward(result[0], (optical, values)), lanes, back)
    weights = result[2].detach().requires_grad_()
    given = weights, samples.t0, samples.t1, samples.starts
    lanes, traffic = float(DISTORTION_LANES * number), FLOAT * (3.0 * number + 2 * rays)
    yield Operation("distortion", forward(lambda: distortion(*given)), lanes, traffic)
    yield Operation(
        "distortion backward", backward(distortion(*given), (weights,)), 2 * lanes, traffic + FLOAT * number
    )


if __name__ == "__main__":
    _table.main(operations)
