"""How radiance fields on hash grids are trained, whatever their encoding: what instant-NGP and its kin share.

Mueller, Evans, Schied and Keller 2022. Learns from rays through random pixels instead of whole photographs; the number
of rays follows from how many samples they need, so that every step costs about the same.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from anchorfield.cuda_ext.hash_grid import HashGrid
from anchorfield.cuda_ext.marching import OccupancyLayout
from anchorfield.cuda_ext.mlp import WIDTHS
from anchorfield.methods._fields import CASCADES, Beams, FieldModel, Region, draw, region_of
from anchorfield.methods._method import Fit, State, check_choices, check_ranges
from anchorfield.methods._sampling import FINE, LEAST_RAYS, Marching, Proposing, Sampler
from anchorfield.renderer.adam import Adam
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.encodings import Encoding
from anchorfield.renderer.fields import RadianceField
from anchorfield.renderer.occupancy import OccupancyGrid, Space
from anchorfield.renderer.proposals import Proposals
from anchorfield.scenes.scene import Scene

HUBER = 0.1  # difference of colours from which on the loss is linear
STEPS_PER_PIXEL = 2.5  # of a photograph's longer side: one for each costs 2 dB
VOXELS = 128  # along an axis, unless told otherwise
LEAST_STEPS, MOST_STEPS = 256, 1024  # along the unit cube's diagonal, unless told otherwise
MOST_DIAGONAL = 4096  # of these steps, by any setting
LEAST_SAMPLES, MOST_SAMPLES, MOST_PROPOSED = 2**14, 2**17, 3 * 2**14  # of a step, unless told otherwise
LAST_RATE = 0.03  # of the learning rate, at the end
MOVING, LAST_MOVING = 6e-4, 0.03  # rate of the cameras, in radians and sides of the unit cube, and its share at the end
FALLING = 0.4  # of the budget, after which rates fall
CONE = 1 / 128  # length of a step over its distance, in checkpoints from when endless space was marched through
WARM_UP = 10  # steps in which rates rise
ENCODING, PROPOSALS = "field.encoding.", "proposals."  # begin the names of their parameters


@dataclass(frozen=True)
class Grid:
    """The multiresolution hash grid."""

    levels: int = 16
    """Grids, from coarse to fine."""
    features: int = 2
    """Numbers of a vertex: 1, 2, 4 or 8."""
    log2_table_size: int = 17
    """Most rows of a level, as a power of two."""
    coarsest: int = 16
    """Vertices along an axis of the coarsest level."""
    finest: int = 2048
    """Vertices along an axis of the finest level."""

    def __post_init__(self) -> None:
        check_ranges(self, levels=(1, 32), log2_table_size=(3, 24), coarsest=(2, 1024), finest=(2, 2**19))
        check_choices(self, features=(1, 2, 4, 8))

    def layout(self, **more: Any) -> HashGrid:
        """The grid as its kernel knows it, with more of the kernel's settings."""
        return HashGrid.up_to(
            max(self.finest, self.coarsest),
            self.levels,
            self.coarsest,
            features=self.features,
            log2_table_size=self.log2_table_size,
            **more,
        )


@dataclass(frozen=True)
class Ngp(ABC):
    """Settings that all fields on hash grids have."""

    ignores_points: ClassVar[Literal[True]] = True

    grid: Grid = field(default_factory=Grid)
    """Where features of positions are kept."""
    width: int = 64
    """Units of the hidden layers: 16, 32, 64 or 128."""
    samples: int = 0
    """Samples of a step, about; 0: two for each pixel, 16,384 to 131,072 (without alpha 49,152)."""
    diagonal: int = 0
    """Samples along an object's diagonal; 0: 2.5 for each pixel of a photograph's side, 256 to 1024."""
    voxels: int = 0
    """Voxels along an axis of the grid of what an object occupies, a power of two; 0: 128."""
    rate: float = 1e-2
    """Learning rate; falls to a thirtieth."""
    appearance: int = 0
    """Numbers that describe the appearance of each photograph; 0 for none."""
    refine: bool = False
    """Correct the poses of the training photographs while learning."""
    seed: int = 0
    """Of every random choice."""

    def __post_init__(self) -> None:
        check_ranges(self, samples=(0, 2**22), diagonal=(0, MOST_DIAGONAL), rate=(0, 1), seed=(0, 2**63))
        check_ranges(self, appearance=(0, 32))
        check_choices(self, width=WIDTHS, voxels=(0, 16, 32, 64, 128, 256, 512))

    @abstractmethod
    def encoding(self, random: torch.Generator | None) -> Encoding:
        """The encoding to begin with, or one of the same shapes."""

    def field(self, contracted: bool, random: torch.Generator | None) -> RadianceField:
        """The field to begin with, or one of the same shapes."""
        return RadianceField(self.encoding(random), self.width, contracted, random, appearance=self.appearance)

    def plan(self, scene: Scene) -> list[str]:
        """What will be trained, a line each."""
        with torch.device("meta"):  # only shapes
            numbers = sum(parameter.numel() for parameter in self.encoding(None).parameters())
        return [f"{numbers:,} numbers in {self.grid.levels} grids ({4e-6 * numbers:.1f} MB)"]

    def fit(self, scene: Scene, resume: State | None = None) -> Iterator[Fit]:
        """Optimise for ever, yielding after each step."""
        random = torch.Generator().manual_seed(self.seed)
        if resume:
            model = self.restore(resume)
            fit = Fit(model, self._optimiser(model), random).resume(resume)
        else:
            model = self._first(scene, random)
            fit = Fit(model, self._optimiser(model), random, memory={"rays": LEAST_RAYS})
        yield from self._steps(scene, fit, model)

    def _first(self, scene: Scene, random: torch.Generator) -> FieldModel:
        """The model to begin with; where space has an end, its grid knows already what no two photographs show."""
        region, cameras = region_of(scene, random), [scene.views[i].camera for i in scene.train]
        sampler: OccupancyGrid | Proposals
        if region.cascades > 1:
            sampler = Proposals(random)
        else:
            sampler = OccupancyGrid(self._occupancy(cameras[0]))
            sampler.mark_unseen(cameras, region.space)
        return self._model(region, sampler, torch.tensor(scene.background), random, len(cameras))

    def _steps(self, scene: Scene, fit: Fit, model: FieldModel) -> Iterator[Fit]:
        """Steps for ever from a fit that is ready."""
        region, samples = model.region, self._samples(scene, model)
        encoding, sampler = model.field.encoding, self._sampler(model, samples, Beams(scene, region), fit.random)
        while True:
            encoding.begin_step(fit.progress, fit.random)
            fit.optimiser.rates = self._rates(fit, model)
            batch = draw(scene, int(fit.memory["rays"]), region, fit.random)
            count = len(batch.rays)
            found, extra = sampler.look(fit, model.as_taken(batch.rays, batch.view))
            background = torch.rand(count, 3, generator=fit.random)
            colour = found.seen.colour + found.seen.light[:, None] * background
            difference = huber_loss(colour, batch.over(background), reduction="none", delta=HUBER).mean(1)
            penalty = encoding.penalty()
            extra |= {} if penalty is None else {"penalty": penalty}
            fit.descend(colour=(difference * batch.counts).mean(), **extra)
            encoding.end_step()
            fit.memory["rays"] = sampler.rays(count, found)
            yield fit

    def _sampler(self, model: FieldModel, samples: int, beams: Beams, random: torch.Generator) -> Sampler:
        if model.proposals:
            return Proposing(model.field, model.proposals, samples, beams)
        assert model.grid, "a model has either"
        return Marching(
            model.field, model.grid, samples, lambda points: model.field.density(points, beams.widths(points, random))
        )

    def _rates(self, fit: Fit, model: FieldModel) -> dict[str, float | Tensor]:
        """The learning rate of each parameter."""
        fallen = max(0.0, (fit.progress - FALLING) / (1 - FALLING))
        rate = self.rate * min(1.0, (fit.step + 1) / WARM_UP) * float(LAST_RATE**fallen)
        rates: dict[str, float | Tensor] = dict.fromkeys(fit.optimiser.parameters, rate)
        if self.refine:  # once there is something to stand before
            rates["moves"] = MOVING * float(LAST_MOVING**fit.progress) if fit.progress >= FINE else 0.0
        rates |= {ENCODING + name: rate * factor for name, factor in model.field.encoding.rates().items()}
        if model.proposals:
            rates |= {PROPOSALS + name: rate * factor for name, factor in model.proposals.rates().items()}
        return rates

    def _samples(self, scene: Scene, model: FieldModel) -> int:
        camera = scene.views[scene.train[0]].camera
        most = MOST_PROPOSED if model.proposals else MOST_SAMPLES
        return self.samples or max(LEAST_SAMPLES, min(most, 2 * camera.width * camera.height))

    def restore(self, state: State) -> FieldModel:
        """The model of a checkpoint."""
        saved = state["model"]
        cascades = CASCADES
        sampler: OccupancyGrid | Proposals = Proposals()
        if "grid.bits" in saved:
            cascades, eighths = saved["grid.bits"].shape
            sampler = OccupancyGrid(_layout(cascades, round((8 * eighths) ** (1 / 3)), float(saved["step"])))
        region = Region(Space(saved["space"][:3], float(saved["space"][3])), cascades, float(saved["near"]))
        taken = len(saved.get("codes", saved.get("moves", ())))
        model = self._model(region, sampler, saved["background"], None, taken)
        first = model.state_dict()
        spare = {name: first[name] for name in model.training_tensors}  # a file to share leaves these out
        model.load_state_dict(spare | dict(saved))
        return model

    def _model(
        self,
        region: Region,
        sampler: OccupancyGrid | Proposals,
        background: Tensor,
        random: torch.Generator | None,
        taken: int,  # training photographs
    ) -> FieldModel:
        codes = torch.zeros(taken, self.appearance) if self.appearance else None
        moves = torch.zeros(taken, 6) if self.refine else None
        return FieldModel(self.field(region.cascades > 1, random), region, sampler, background, codes, moves)

    def _occupancy(self, camera: Camera) -> OccupancyLayout:
        fine = round(STEPS_PER_PIXEL * max(camera.width, camera.height))
        steps = self.diagonal or max(LEAST_STEPS, min(MOST_STEPS, fine))
        return _layout(1, self.voxels or VOXELS, math.sqrt(3) / steps)

    def _optimiser(self, model: FieldModel) -> Adam:
        touched = [ENCODING + name for name in model.field.encoding.touched]
        if model.proposals:
            touched += [PROPOSALS + name for name in model.proposals.touched]
        return Adam(dict(model.named_parameters()), {}, touched=touched, betas=(0.9, 0.99))


def _layout(cascades: int, voxels: int, step: float) -> OccupancyLayout:
    longest = OccupancyLayout(voxels, cascades).largest_step
    shortest = math.sqrt(3) / MOST_DIAGONAL  # in a damaged file it may be anything
    return OccupancyLayout(voxels, cascades, max(shortest, min(step, longest)), CONE if cascades > 1 else 0.0)
