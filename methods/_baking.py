"""Gaussians that no longer depend on the camera, from those that anchors are decoded into view by view.

Opacity, scales and rotation become means over the cameras that see an anchor, and colours spherical harmonics fitted to
what those cameras see. The result is then fitted to what the model shows those cameras.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anchorfield.cuda_ext.anchors import Decoded
from anchorfield.renderer.adam import Adam
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.losses import photometric
from anchorfield.renderer.splatting import splat
from anchorfield.renderer.types import PARAMETERS, Gaussians
from anchorfield.scenes.similarity import harmonics_basis

BANDS = 16  # coefficients of a colour
STIFFNESS = 0.02  # by how much harmonics beyond the constant are held back, in opacities of a view
FAINT = 1 / 255  # opacity below which nothing can be seen
STEPS = 400  # of the fit to what the model shows
RATES = {"means": 2e-4, "log_scales": 1e-2, "quats": 2e-3, "logit_opacities": 5e-2, "sh": 2.5e-3}  # fall to a tenth
AT_ONCE = 8192  # anchors, whose systems of equations are held in memory together

Decode = Callable[[Camera, Tensor], Decoded]  # of the anchors in rows [V] int32


@dataclass
class _Sums:
    """Over the cameras, of each Gaussian of some anchors."""

    seen: Tensor  # [n] cameras that saw the anchor
    opacity: Tensor  # [n]
    log_scales: Tensor  # [n, 3] times opacity, as all below
    quats: Tensor  # [n, 4]
    means: Tensor  # [n, 3]
    normal: Tensor  # [n, BANDS, BANDS] of the least squares for the harmonics
    right: Tensor  # [n, BANDS, 3]

    @classmethod
    def of(cls, n: int) -> _Sums:
        shapes = [(n,), (n,), (n, 3), (n, 4), (n, 3), (n, BANDS, BANDS), (n, BANDS, 3)]
        return cls(*(torch.zeros(shape) for shape in shapes))

    def add(self, decoded: Decoded, at: Tensor, centre: Tensor) -> None:
        """What one camera at `centre` sees of the Gaussians at rows `at`."""
        weight = decoded.opacities[:, None]
        self.opacity[at] += decoded.opacities
        self.log_scales[at] += weight * decoded.scales.log()
        self.means[at] += weight * decoded.means
        quats = torch.nn.functional.normalize(decoded.quats, dim=1)
        same = (quats * self.quats[at]).sum(1, keepdim=True) >= 0  # q and -q are one rotation
        self.quats[at] += weight * torch.where(same, quats, -quats)
        directions = torch.nn.functional.normalize(decoded.means - centre, dim=1)
        basis = torch.from_numpy(harmonics_basis(directions.double().numpy())).float()
        self.normal[at] += weight[..., None] * basis[:, :, None] * basis[:, None]
        self.right[at] += weight[..., None] * basis[:, :, None] * (decoded.colours - 0.5)[:, None]

    def gaussians(self) -> Gaussians:
        """The means, of the Gaussians that are not faint."""
        mean = self.opacity / self.seen.clamp_min(1)
        keep = mean > FAINT
        weight = self.opacity[keep, None]
        stiff = torch.full((BANDS,), STIFFNESS)
        stiff[0] = 1e-6
        normal = self.normal[keep] + torch.diag(stiff)
        sh = torch.linalg.solve(normal.double(), self.right[keep].double()).float()
        opacities = torch.logit(mean[keep].clamp(max=0.999))
        return Gaussians(
            self.means[keep] / weight, self.log_scales[keep] / weight, self.quats[keep], opacities, sh.contiguous()
        )


@torch.no_grad()
def baked(
    count: int,
    offsets: int,
    cameras: Sequence[Camera],
    in_view: Callable[[Camera], Tensor],  # bool [count]
    decode: Decode,
) -> Gaussians:
    """The Gaussians of `count` anchors with `offsets` each, as the cameras see them together."""
    views = [(camera, in_view(camera)) for camera in cameras]
    parts = []
    for first in range(0, count, AT_ONCE):
        last = min(first + AT_ONCE, count)
        sums = _Sums.of((last - first) * offsets)
        for camera, seen in views:
            rows = first + torch.nonzero(seen[first:last]).squeeze(1)
            sums.seen += seen[first:last].repeat_interleave(offsets)
            decoded = decode(camera, rows.int())
            sums.add(decoded, decoded.origin.long() - first * offsets, camera.centre)
        parts.append(sums.gaussians())
    return _gathered({name: torch.cat([getattr(part, name) for part in parts]) for name in PARAMETERS})


@torch.enable_grad()
def refined(
    gaussians: Gaussians, cameras: Sequence[Camera], render: Callable[[Camera], Tensor], background: Tensor
) -> Gaussians:
    """The Gaussians, moved to look like `render` to the cameras in turn."""
    if len(gaussians) == 0 or not cameras:
        return gaussians
    random = torch.Generator().manual_seed(0)
    parameters = {name: nn.Parameter(getattr(gaussians, name)) for name in PARAMETERS}
    optimiser = Adam(parameters, {})
    order = torch.cat([torch.randperm(len(cameras), generator=random) for _ in range(-(-STEPS // len(cameras)))])[
        :STEPS
    ]
    images: dict[int, Tensor] = {}
    for step, index in enumerate(order.tolist()):
        camera = cameras[index]
        if index not in images:
            images[index] = render(camera).detach()
        left = 0.1 ** (step / STEPS)
        optimiser.rates = {name: rate * left for name, rate in RATES.items()}
        splats = splat(_gathered(parameters), camera, background, depth=False)
        optimiser.zero_grad()
        torch.stack(list(photometric(splats.rgb, images[index]).values())).sum().backward()
        optimiser.rows = splats.visible
        optimiser.step()
    return _gathered({name: parameter.detach() for name, parameter in parameters.items()})


def _gathered(tensors: Mapping[str, Tensor]) -> Gaussians:
    means, log_scales, quats, logit_opacities, sh = (tensors[name] for name in PARAMETERS)
    return Gaussians(means, log_scales, quats, logit_opacities, sh)
