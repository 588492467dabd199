"""What splatting methods share: the model, where Gaussians start, and adding and removing rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor, nn

from anchorfield.methods._method import Fit, Model
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import DataError
from anchorfield.renderer.splatting import splat
from anchorfield.renderer.types import PARAMETERS, SH_C0, Frame, Gaussians
from anchorfield.scenes.scene import Points, Scene

LARGEST = 0.25  # standard deviation of a Gaussian, as a share of its distance
OPAQUE, INVISIBLE = 0.9999, -50.0  # an opacity, and the logit of one
BYTES_PER_GAUSSIAN = 59 * 4 * 4 + 400  # parameters, gradients and two moments, and what a step keeps beside them


class SplatModel(Model):
    """Gaussians over a constant background."""

    means: nn.Parameter
    log_scales: nn.Parameter
    quats: nn.Parameter
    logit_opacities: nn.Parameter
    sh: nn.Parameter
    background: Tensor

    def __init__(self, gaussians: Gaussians, background: Tensor):
        super().__init__()
        for name in PARAMETERS:
            self.register_parameter(name, nn.Parameter(getattr(gaussians, name).contiguous()))
        self.register_buffer("background", background)
        self.antialiased = gaussians.antialiased

    def raw(self) -> Gaussians:
        """The parameters themselves, part of the graph."""
        return Gaussians(**{name: getattr(self, name) for name in PARAMETERS}, antialiased=self.antialiased)

    def gaussians(self, camera: Camera | None = None) -> Gaussians:
        """Detached Gaussians in the training frame."""
        return Gaussians(**{name: getattr(self, name).detach() for name in PARAMETERS}, antialiased=self.antialiased)

    @torch.no_grad()
    def render(self, camera: Camera) -> Frame:
        """The view from `camera` over the model's background."""
        return splat(self.raw(), camera, self.background).frame()


def restored(state: Mapping[str, Tensor], antialiased: bool) -> SplatModel:
    """The model of a checkpoint's "model" entry."""
    missing = [name for name in (*PARAMETERS, "background") if name not in state]
    if missing:
        raise DataError(f"checkpoint: expected the tensors of splats, '{missing[0]}' is missing; is it of this method?")
    gaussians = Gaussians(**{name: state[name].clone() for name in PARAMETERS}, antialiased=antialiased)
    return SplatModel(gaussians, state["background"].clone())


def from_points(points: Points, *, sh_degree: int, opacity: float, scale: float, antialiased: bool) -> Gaussians:
    """One round Gaussian per point, as wide as `scale` times the distance to its three nearest neighbours."""
    xyz = torch.from_numpy(np.ascontiguousarray(points.xyz, dtype=np.float32))
    count = len(xyz)
    squared = squared_spacing(points.xyz)
    log_scale = torch.from_numpy(np.log(scale * np.sqrt(np.clip(squared, 1e-7, None)))).float()
    quats = torch.zeros(count, 4)
    quats[:, 0] = 1
    sh = torch.zeros(count, (sh_degree + 1) ** 2, 3)
    sh[:, 0] = (torch.from_numpy(points.rgb).float() / 255 - 0.5) / SH_C0
    logits = torch.full((count,), math.log(opacity / (1 - opacity)))
    return Gaussians(xyz, log_scale[:, None].repeat(1, 3), quats, logits, sh, antialiased)


def thinned(gaussians: Gaussians, drop: float, random: torch.Generator) -> Gaussians:
    """The same with a share `drop` of them invisible, by chance, and the others as much more opaque."""
    shown = torch.rand(len(gaussians), generator=random) >= drop
    opacity = (gaussians.logit_opacities.sigmoid() / (1 - drop)).clamp_max(OPAQUE)
    return replace(gaussians, logit_opacities=torch.where(shown, opacity.logit(), INVISIBLE))


def squared_spacing(xyz: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of each point [N, 3] the mean squared distance [N] to its three nearest neighbours; 1e-4 where it has none."""
    count = len(xyz)
    near = cKDTree(xyz).query(xyz, k=min(4, count), workers=-1)[0].reshape(count, -1)[:, 1:]
    return np.square(near).mean(1) if near.shape[1] else np.full(count, 1e-4)


def extent(scene: Scene) -> float:
    """1.1 times the largest distance of a training camera from their mean: the unit of the means' learning rate."""
    centres = torch.stack([scene.views[i].camera.centre for i in scene.train])
    return 1.1 * float((centres - centres.mean(0)).norm(dim=1).max())


def splat_model(fit: Fit) -> SplatModel:
    """The fit's model, which strategies change."""
    assert isinstance(fit.model, SplatModel)
    return fit.model


def keep_below(log_scales: Tensor, points: Tensor) -> None:
    """Cut `log_scales` [N, K] in place to a share of the distance of `points` [N, 3], at least of the cameras' ball."""
    limit = (LARGEST * points.norm(dim=1).clamp_min(1)).log()
    log_scales.copy_(torch.minimum(log_scales, limit[:, None]))


@torch.no_grad()
def limit_sizes(model: SplatModel, frozen: Tensor | None = None) -> None:
    """Keep Gaussians smaller than a share of their distance from the scene's centre, at least of the cameras' ball.

    A larger one is no surface: it is sorted by its centre and hides what lies before its far side. Rows of `frozen` [N]
    stay as they are.
    """
    if frozen is None:
        keep_below(model.log_scales.data, model.means)
        return
    limited = model.log_scales.detach().clone()
    keep_below(limited, model.means)
    model.log_scales.data[~frozen] = limited[~frozen]


def set_rows(fit: Fit, build: Mapping[str, Tensor], moments: Tensor) -> None:
    """Give every parameter new rows; `moments` names for each the old row whose moments it keeps, or -1 for none."""
    model, optimiser = fit.model, fit.optimiser
    for name, values in build.items():
        kept = []
        for moment in optimiser.moments[name]:
            rows = moment[moments.clamp_min(0)]
            rows[moments < 0] = 0
            kept.append(rows)
        setattr(model, name, optimiser.replace(name, values, *kept))


def rows_of(fit: Fit) -> dict[str, Tensor]:
    """The parameters' values by name."""
    return {name: getattr(fit.model, name).detach() for name in PARAMETERS}
