"""Images of radiance fields: rays, samples along them, and their compositing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from anchorfield.cuda_ext.directions import spherical_harmonics_basis
from anchorfield.cuda_ext.marching import OccupancyLayout, Samples, march
from anchorfield.cuda_ext.rays import composite_rays
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.fields import DIRECTION_DEGREE, RadianceField
from anchorfield.renderer.occupancy import Space
from anchorfield.renderer.rays import camera_rays, spread_of
from anchorfield.renderer.types import Frame

ROUND = 24  # samples of a ray at a time, so that rays which are opaque ask for no more
OPAQUE = 1e-3  # light that is not followed further


@dataclass(frozen=True)
class UnitRays:
    """Rays in the unit cube's frame."""

    origins: Tensor  # [R, 3]
    directions: Tensor  # [R, 3] of unit length
    near: Tensor  # [R]
    spread: Tensor  # [R] of a pixel's beam: its width over the distance
    code: Tensor | None = None  # [R, A] appearance of the photograph, for fields that know of it

    def __len__(self) -> int:
        return len(self.origins)

    def view(self) -> Tensor:
        """What colours depend on beside the place, [R, 16 + A]."""
        basis = spherical_harmonics_basis(self.directions, DIRECTION_DEGREE)
        return basis if self.code is None else torch.cat([basis, self.code], 1)


class Seen(NamedTuple):
    """What rays see."""

    colour: Tensor  # [R, 3] without what lies behind
    light: Tensor  # [R] that passes, in [0, 1]
    distance: Tensor  # [R] sum of weight times distance


@dataclass(frozen=True)
class Rendered:
    """What rays see, and in which steps."""

    seen: Seen
    weights: Tensor  # [S]
    samples: Samples


def trace(field: RadianceField, rays: UnitRays, samples: Samples) -> Rendered:
    """What rays see of a field in these steps, differentiable in it and in the rays."""
    latent = field.latent(points_of(rays, samples), _widths(rays, samples))
    colour = field.colour(latent, _of_samples(rays.view(), samples))
    values = torch.cat([colour, samples.middles[:, None]], 1)
    sums, light, weights = composite_rays(field.density_of(latent) * (samples.t1 - samples.t0), values, samples.starts)
    return Rendered(Seen(sums[:, :3], light, sums[:, 3]), weights, samples)


def marched(
    rays: UnitRays,
    bits: Tensor,
    layout: OccupancyLayout,
    jitter: Tensor,  # [R]
    most: int = 1024,  # of a ray
) -> Samples:
    """The steps of rays whose middles lie in occupied voxels."""
    far = torch.full_like(rays.near, torch.inf)
    return march(rays.origins.detach(), rays.directions.detach(), rays.near, far, jitter, bits, layout, most)


@torch.no_grad()
def in_light(field: RadianceField, rays: UnitRays, samples: Samples) -> Samples:
    """The samples that light still reaches: the field is asked for densities alone."""
    optical = field.density(points_of(rays, samples), _widths(rays, samples)) * (samples.t1 - samples.t0)
    dark = composite_rays(optical, optical[:, None], samples.starts)[2] == 0
    lit = ~dark | (optical == 0)  # what takes nothing has no weight either
    before = torch.cat([lit.new_zeros(1, dtype=torch.int32), lit.cumsum(0, dtype=torch.int32)])
    return Samples(before[samples.starts.long()], samples.t0[lit], samples.t1[lit], samples.ray[lit])


class _Repeated(torch.autograd.Function):
    """Rows of rays for their samples, which follow each other: gradients are sums over runs, in one fixed order."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, ray: Tensor, starts: Tensor) -> Tensor:
        ctx.save_for_backward(starts)
        return rows[ray]

    @staticmethod
    def backward(ctx: Any, *v: Tensor) -> tuple[Tensor, None, None]:
        (starts,) = ctx.saved_tensors
        return torch.segment_reduce(v[0].contiguous(), "sum", lengths=starts.diff().long(), initial=0), None, None


def _of_samples(rows: Tensor, samples: Samples) -> Tensor:
    """What is known of rays [R, K], for each of their samples [S, K]."""
    repeated: Tensor = _Repeated.apply(rows, samples.ray, samples.starts)  # type: ignore[no-untyped-call]
    return repeated


def points_of(rays: UnitRays, samples: Samples) -> Tensor:
    """Where samples lie, [S, 3]."""
    return _of_samples(rays.origins, samples) + samples.middles[:, None] * _of_samples(rays.directions, samples)


def _widths(rays: UnitRays, samples: Samples) -> Tensor:
    """Of the pixels' beams where samples lie, [S]."""
    return rays.spread[samples.ray] * samples.middles


@torch.no_grad()
def render_strips(
    look: Callable[[UnitRays], Seen],
    camera: Camera,
    rows: int,
    space: Space,
    near: float,  # along the ray, in the world's units
    background: Tensor,  # [3]
    code: Tensor | None = None,  # [A]
) -> Iterator[Frame]:
    """The view from `camera` in strips of `rows` rows from top to bottom, of rays that `look`."""
    across = torch.arange(camera.width)
    for top in range(0, camera.height, rows):
        down = torch.arange(top, min(top + rows, camera.height))
        pixels = torch.stack([across.repeat(len(down)), down.repeat_interleave(camera.width)], 1)
        origins, directions, z_scale = camera_rays(camera, pixels)
        close = torch.full((len(origins),), near / space.side)
        codes = None if code is None else code.expand(len(origins), -1)
        rays = UnitRays(space.to_unit(origins), directions, close, spread_of(camera, z_scale), codes)
        colour, light, distance = look(rays)
        alpha = 1 - light
        depth = distance / alpha.clamp_min(1e-6) * z_scale * space.side
        rgb = colour + light[:, None] * background
        shape = len(down), camera.width
        yield Frame(rgb.reshape(*shape, 3), alpha.reshape(shape), depth.reshape(shape))


def see(field: RadianceField, rays: UnitRays, bits: Tensor, layout: OccupancyLayout) -> Seen:
    """What rays see that march to their ends, in rounds: those which are opaque ask for no more."""
    colour, light, distance = torch.zeros(len(rays), 3), torch.ones(len(rays)), torch.zeros(len(rays))
    open_rays, at = torch.arange(len(rays)), rays
    while len(open_rays):
        found = trace(field, at, marched(at, bits, layout, torch.zeros(len(at)), ROUND))
        before = light[open_rays]
        colour[open_rays] += before[:, None] * found.seen.colour
        distance[open_rays] += before * found.seen.distance
        light[open_rays] = before * found.seen.light
        starts = found.samples.starts.long()
        more = (starts.diff() == ROUND) & (light[open_rays] > OPAQUE)
        reached = found.samples.t1[(starts[1:] - 1).clamp_min(0)] if len(found.samples.t1) else at.near
        open_rays = open_rays[more]
        code = None if at.code is None else at.code[more]
        at = UnitRays(at.origins[more], at.directions[more], reached[more], at.spread[more], code)
    return Seen(colour, light, distance)
