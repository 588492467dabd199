"""Made scenes with the statistics of a trained one, for any number of Gaussians in view and any size of image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr

from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.types import Gaussians
from anchorfield.scenes.scene import Scene, View
from bench._statistics import LEVELS, NAMES, Statistics, load

FOX = Path(__file__).parent / "fox.json"
FIELD = 0.97  # focal length over the square root of the image's area, as the fox's camera has it
AREA = 0.72  # of the drawn ellipses, so that evaluations come out as in the fox, whose large ones avoid each other
DEPTH = 2.0  # median, in units of the scene


@dataclass(frozen=True)
class Made:
    """A scene to measure on."""

    gaussians: Gaussians
    camera: Camera

    @property
    def pixels(self) -> int:
        """Pixels of the image."""
        return self.camera.width * self.camera.height


@cache
def fox() -> Statistics:
    """The statistics that scenes are made from."""
    return load(FOX)


def made(count: int, width: int, height: int, seed: int = 0, sized_for: int | None = None) -> Made:
    """`count` Gaussians in view; areas shrink with the count, so that the overdraw stays that of a trained scene.

    With `sized_for` they are as large as those of a scene of so many: the overdraw grows with the count. An ellipse
    gets its axes from a Gaussian that lies across the view, as thick as it is narrow.
    """
    random = np.random.default_rng(seed)
    aside, above, log_depth, log_major, log_ratio, logit = drawn(fox(), count, random)
    unit = math.sqrt(width * height)
    camera = Camera(torch.eye(4), FIELD * unit, FIELD * unit, width / 2, height / 2, width, height)
    depth = DEPTH * np.exp(log_depth)
    side = random.choice([-1.0, 1.0], (2, count))
    x, y = side[0] * aside * width * depth / camera.fx, side[1] * above * height * depth / camera.fy
    log_long = log_major + np.log(depth / FIELD) + 0.5 * math.log(AREA * fox().seen / (sized_for or count))
    log_short = log_long + log_ratio
    half_turn, none = random.uniform(0, math.pi / 2, count), np.zeros(count)
    gaussians = Gaussians(
        means=_columns(x, y, depth),
        log_scales=_columns(log_long, log_short, log_short),
        quats=_columns(np.cos(half_turn), none, none, np.sin(half_turn)),
        logit_opacities=torch.from_numpy(logit).float(),
        sh=_colours(count, seed),
    )
    return Made(gaussians, camera)


def drawn(statistics: Statistics, count: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Values of `_statistics.NAMES` for `count` Gaussians, [6, count]."""
    scores = random.multivariate_normal(np.zeros(len(NAMES)), statistics.correlation, count, method="cholesky")
    ranks = ndtr(scores).T
    return np.stack([np.interp(rank, LEVELS, row) for rank, row in zip(ranks, statistics.quantiles, strict=True)])


def as_capture(made: Made, photo: torch.Tensor) -> Scene:
    """A capture of one photograph, for training steps on a made scene."""
    pixels = (255 * photo.clamp(0, 1)).round().to(torch.uint8)
    view = View("made", made.camera, load=lambda: pixels)
    return Scene("made", Path("made"), (view,), (0,), (), None, np.eye(4))


def _colours(count: int, seed: int) -> torch.Tensor:
    """Harmonics of degree 3 whose colours lie around grey."""
    sh = 0.05 * torch.randn(count, 16, 3, generator=torch.Generator().manual_seed(seed))
    sh[:, 0] *= 10
    return sh


def _columns(*columns: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(np.stack(columns, axis=1)).float()
