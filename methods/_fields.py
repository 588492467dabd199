"""What methods that march rays through a radiance field share: their space, their batches of rays, and the model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from anchorfield.methods._initial import BACKDROP_FAR, focus_distance, random_points
from anchorfield.methods._method import Model
from anchorfield.renderer.cameras import Camera, focus
from anchorfield.renderer.fields import RadianceField
from anchorfield.renderer.occupancy import OccupancyGrid, Space
from anchorfield.renderer.proposals import Proposals
from anchorfield.renderer.raymarching import Seen, UnitRays, render_strips, see, trace
from anchorfield.renderer.rays import camera_rays, spread_of
from anchorfield.renderer.types import Frame, stacked
from anchorfield.scenes.scene import Scene

RAYS = 2**15  # that are traced at a time
VIEWS = 32  # photographs that a step draws its rays from
NEAR = 0.05  # where rays begin, in distances from the cameras to what they look at
MARGIN = 1.1  # of the cube around an object
HULL_POINTS = 20000  # random points that tell where an object with alpha is
LEAST_POINTS = 100  # of them, below which they say too little
CASCADES = 1 + math.ceil(math.log2(2 * BACKDROP_FAR))  # of space that has no end


@dataclass(frozen=True)
class Region:
    """Where a field lives: its unit cube in the world, and how many cubes lie around it, each twice as wide."""

    space: Space
    cascades: int
    near: float  # along a ray, in the world's units


def region_of(scene: Scene, random: torch.Generator) -> Region:
    """The cube around an object whose photographs have alpha; else one around what cameras look at, and cascades."""
    distance = focus_distance(scene)
    near = NEAR * distance
    if has_alpha(scene):
        points = torch.from_numpy(random_points(scene, HULL_POINTS, random).xyz)
        if len(points) >= LEAST_POINTS:
            low, high = points.amin(0), points.amax(0)
            return Region(Space((low + high) / 2, MARGIN * float((high - low).max())), 1, near)
    centre = focus([scene.views[i].camera for i in scene.train]).float()
    return Region(Space(centre, distance), CASCADES, near)


def has_alpha(scene: Scene) -> bool:
    """Whether the photographs say what is transparent."""
    return scene.views[scene.train[0]].load().shape[-1] == 4


@dataclass(frozen=True)
class Batch:
    """Random pixels of random training views."""

    rays: UnitRays
    view: Tensor  # [R] place in the training split
    colour: Tensor  # [R, 3] of the photographs, in [0, 1]
    alpha: Tensor | None  # [R, 1]; None where they have none
    counts: Tensor  # [R] bool, where the views' masks let pixels count

    def over(self, background: Tensor) -> Tensor:
        """The colours over a background [R, 3] or [3]."""
        if self.alpha is None:
            return self.colour
        return self.colour * self.alpha + background * (1 - self.alpha)


def draw(scene: Scene, count: int, region: Region, random: torch.Generator) -> Batch:
    """A batch of `count` rays, a multiple of `VIEWS`, evenly from `VIEWS` training views drawn with replacement."""
    drawn = torch.randint(len(scene.train), (VIEWS,), generator=random)
    views = [scene.views[scene.train[i]] for i in drawn]
    origins, directions, spreads, pixels, masks = [], [], [], [], []
    for view in views:
        camera, shape = view.camera, (count // VIEWS,)
        row = torch.randint(camera.height, shape, generator=random)
        column = torch.randint(camera.width, shape, generator=random)
        origin, direction, z_scale = camera_rays(camera, torch.stack([column, row], 1))
        origins.append(origin)
        directions.append(direction)
        spreads.append(spread_of(camera, z_scale))
        pixels.append(view.load()[row, column])
        masks.append(view.load_mask()[row, column] if view.load_mask else torch.ones(shape, dtype=torch.bool))
    seen = torch.cat(pixels).float() / 255
    near = torch.full((len(seen),), region.near / region.space.side)
    return Batch(
        UnitRays(region.space.to_unit(torch.cat(origins)), torch.cat(directions), near, torch.cat(spreads)),
        drawn.repeat_interleave(count // VIEWS),
        seen[:, :3],
        seen[:, 3:] if seen.shape[1] == 4 else None,
        torch.cat(masks),
    )


class Beams:
    """How wide the beams of pixels are that reach points from training cameras."""

    def __init__(self, scene: Scene, region: Region):
        cameras = [scene.views[i].camera for i in scene.train]
        self.centres = region.space.to_unit(torch.stack([camera.centre for camera in cameras]))
        self.spreads = torch.tensor([(camera.fx * camera.fy) ** -0.5 for camera in cameras])

    def widths(self, points: Tensor, random: torch.Generator) -> Tensor:
        """Widths [N] at points [N, 3] of the unit cube, each as a camera drawn at random sees it."""
        drawn = torch.randint(len(self.centres), (len(points),), generator=random)
        distances: Tensor = (points - self.centres[drawn]).norm(dim=1)
        return self.spreads[drawn] * distances

    def around(self, count: int, reach: float, random: torch.Generator) -> Tensor:
        """Points [count, 3] around cameras drawn at random: normally distributed, `reach` far about each axis."""
        drawn = torch.randint(len(self.centres), (count,), generator=random)
        return self.centres[drawn] + reach * torch.randn(count, 3, generator=random)


class FieldModel(Model):
    """A radiance field with what says where to sample it, and what was learnt of the photographs themselves."""

    space: Tensor
    near: Tensor
    background: Tensor
    codes: nn.Parameter | None  # [T, A] appearance of the training photographs
    moves: nn.Parameter | None  # [T, 6] of their cameras: a turn as a rotation vector, and a way in the unit cube

    def __init__(
        self,
        field: RadianceField,
        region: Region,
        sampler: OccupancyGrid | Proposals,  # of where rays are sampled
        background: Tensor,
        codes: Tensor | None = None,
        moves: Tensor | None = None,
    ):
        super().__init__()
        self.field, self.cascades = field, region.cascades
        self.grid = sampler if isinstance(sampler, OccupancyGrid) else None
        self.proposals = sampler if isinstance(sampler, Proposals) else None
        self.codes = None if codes is None else nn.Parameter(codes)
        self.moves = None if moves is None else nn.Parameter(moves)
        self.register_buffer("space", torch.cat([region.space.centre, torch.tensor([region.space.side])]))
        self.register_buffer("near", torch.tensor(region.near))
        if self.grid:
            self.register_buffer("step", torch.tensor(self.grid.layout.smallest_step, dtype=torch.float64))
        self.register_buffer("background", background.clone())

    @property
    def training_tensors(self) -> frozenset[str]:
        """What rays do not need, which march by the bits."""
        learning = {f"field.encoding.{name}" for name in self.field.encoding.learning}
        if self.grid:
            learning.add("grid.density")
        if self.moves is not None:
            learning.add("moves")
        return frozenset(learning)

    @property
    def region(self) -> Region:
        """Where the field lives."""
        return Region(Space(self.space[:3], float(self.space[3])), self.cascades, float(self.near))

    def render(self, camera: Camera) -> Frame:
        """The view from `camera`."""
        return stacked(list(self.strips(camera, max(1, RAYS // camera.width))))

    def strips(self, camera: Camera, rows: int) -> Iterator[Frame]:
        """The view from `camera` in strips of `rows` rows, from top to bottom; its appearance is the mean."""
        region = self.region
        code = None if self.codes is None else self.codes.detach().mean(0)
        yield from render_strips(self._seen, camera, rows, region.space, region.near, self.background, code)

    def _seen(self, rays: UnitRays) -> Seen:
        if self.grid:
            return see(self.field, rays, self.grid.bits, self.grid.layout)
        assert self.proposals, "a model has either"
        return trace(self.field, rays, self.proposals(rays).samples).seen

    def as_taken(self, rays: UnitRays, view: Tensor) -> UnitRays:
        """The rays of photographs `view` [R] as their cameras are believed to stand, and with their appearance."""
        if self.moves is not None:
            rays = moved(rays, self.moves - self.moves.mean(0), view)  # else all might drift with the scene
        return rays if self.codes is None else replace(rays, code=self.codes[view])

    @torch.no_grad()
    def density(self, points: Tensor) -> Tensor:
        """Share of the light that is absorbed per unit of length [N] at world points [N, 3]; 0 outside of all cubes."""
        space = self.region.space
        positions = space.to_unit(points)
        reach = 2 ** (self.cascades - 1) / 2
        inside = ((positions - 0.5).abs() <= reach).all(1)
        return torch.where(inside, self.field.density(positions) / space.side, 0)


def moved(
    rays: UnitRays,
    moves: Tensor,  # [T, 6] turns as rotation vectors, and ways
    view: Tensor,  # [R] which of them is a ray's
) -> UnitRays:
    """The rays of cameras that are turned about their centres and shifted; differentiable in `moves`."""
    x, y, z = moves[:, :3].unbind(1)
    zero = torch.zeros_like(x)
    turns = torch.linalg.matrix_exp(torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).view(-1, 3, 3))
    directions = (turns[view] @ rays.directions[:, :, None])[:, :, 0]
    return replace(rays, origins=rays.origins + moves[view, 3:], directions=directions)
