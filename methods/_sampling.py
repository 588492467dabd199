"""Where the rays of a step are sampled: in voxels that are occupied, or where small fields propose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from anchorfield.cuda_ext.marching import OccupancyLayout
from anchorfield.methods._fields import VIEWS, Beams
from anchorfield.methods._method import Fit
from anchorfield.renderer.fields import RadianceField
from anchorfield.renderer.occupancy import OccupancyGrid, is_due
from anchorfield.renderer.proposals import SAMPLES, Proposals, power_of
from anchorfield.renderer.raymarching import Rendered, UnitRays, in_light, marched, trace

LOOKS = 2  # cells that are asked in an update of what is occupied, for every sample of a step
LEAST_RAYS, MOST_RAYS = 4 * VIEWS, 2**18
COARSE = ((4, 0.05), (2, 0.2))  # by how much steps are longer until a share of the budget is spent
FINE = COARSE[-1][1]  # of the budget, after which they are no longer
CULLED = 0.1  # of the budget, after which samples behind opaque ones are left out
SPREAD = 0.002  # weight of how far apart along rays what they see lies
FOG = 1e-3  # weight of how dense it is around cameras, which stand where nothing is
AROUND = 0.35  # how far from them that is asked, in sides of the unit cube
ASKED = 8  # samples of a step for each place where it is asked


class Sampler(Protocol):
    """How a step looks along its rays."""

    def look(self, fit: Fit, rays: UnitRays) -> tuple[Rendered, dict[str, Tensor]]:
        """What the rays see, and what is added to the loss for it."""
        ...

    def rays(self, count: int, rendered: Rendered) -> int:
        """How many rays the next step has, where these were `count`."""
        ...


class Marching:
    """Steps along a lattice, where the grid of what is occupied lets them; the grid follows the field."""

    def __init__(self, field: RadianceField, grid: OccupancyGrid, samples: int, density: Callable[[Tensor], Tensor]):
        self.field, self.grid, self.samples, self.density = field, grid, samples, density

    def look(self, fit: Fit, rays: UnitRays) -> tuple[Rendered, dict[str, Tensor]]:
        """Updates the grid first, where it is due."""
        if is_due(fit.step):
            self.grid.update(self.density, LOOKS * self.samples, fit.random)
        jitter = torch.rand(len(rays), generator=fit.random)
        samples = marched(rays, self.grid.bits, _strides(self.grid.layout, fit.progress), jitter)
        if fit.progress > CULLED:
            samples = in_light(self.field, rays, samples)
        return trace(self.field, rays, samples), {}

    def rays(self, count: int, rendered: Rendered) -> int:
        """As many as need the samples that are wanted."""
        fitting = count * self.samples / max(len(rendered.weights), 1)
        return _whole(min(fitting, 2 * count))  # a batch that hit little says little


class Proposing:
    """As many steps for every ray, where proposals expect something."""

    def __init__(self, field: RadianceField, proposals: Proposals, samples: int, beams: Beams):
        self.field, self.proposals, self.beams = field, proposals, beams
        self.count = _whole(samples / SAMPLES)

    def look(self, fit: Fit, rays: UnitRays) -> tuple[Rendered, dict[str, Tensor]]:
        """Adds what proposals missed, how far apart along rays weights lie, and fog around cameras.

        Space right before a camera is seen by others only from afar, before plain walls perhaps: fog of a wall's colour
        explains their photographs as well as the wall. But where a camera stood there is none.
        """
        jitter = torch.rand(len(rays), 1 + len(self.proposals.fields), generator=fit.random)
        proposed = self.proposals(rays, jitter, power_of(fit.progress))
        found = trace(self.field, rays, proposed.samples)
        points = self.beams.around(len(found.weights) // ASKED, AROUND, fit.random)
        density = self.field.density(points, self.beams.widths(points, fit.random))
        return found, {
            "proposals": proposed.loss(found.weights),
            "spread": SPREAD * proposed.spread(found.weights),
            "fog": FOG * torch.log1p(2 * density.square()).mean(),
        }

    def rays(self, count: int, rendered: Rendered) -> int:
        """Always the same."""
        return self.count


def _strides(layout: OccupancyLayout, progress: float) -> OccupancyLayout:
    """Longer steps at first, when space is foggy and only coarse levels have learnt: more rays for as many samples."""
    factor = next((factor for factor, share in COARSE if progress < share), 1)
    return replace(
        layout, smallest_step=min(factor * layout.smallest_step, layout.largest_step), cone=factor * (layout.cone or 0)
    )


def _whole(rays: float) -> int:
    return max(LEAST_RAYS, min(MOST_RAYS, round(rays / VIEWS) * VIEWS))
