"""The shared currency: Gaussians and rendered frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import normalize

SH_C0 = 0.28209479177387814
"""The constant spherical harmonic."""

PARAMETERS = ("means", "log_scales", "quats", "logit_opacities", "sh")
"""The tensors of `Gaussians`, by name."""


@dataclass(frozen=True)
class Gaussians:
    """Anisotropic 3D Gaussians in raw (unconstrained) parameters; every file format converts to and from this form.

    All tensors are float32 on one device. The colour seen along direction d is max(0, sum_k Y_k(d) sh_k + 0.5).
    """

    means: Tensor  # [N, 3] world
    log_scales: Tensor  # [N, 3] natural logarithm of the standard deviations
    quats: Tensor  # [N, 4] wxyz, any norm
    logit_opacities: Tensor  # [N]
    sh: Tensor  # [N, K, 3] K = (degree + 1)^2, order l = 0.., m = -l..l
    antialiased: bool = False  # trained with opacity compensation for the screen-space dilation

    def __len__(self) -> int:
        return int(self.means.shape[0])

    @property
    def sh_degree(self) -> int:
        """Degree of the spherical harmonics, 0 to 3."""
        return math.isqrt(self.sh.shape[1]) - 1

    def covariances(self) -> Tensor:
        """Covariance matrices, [N, 3, 3]: R S^2 R^T of the rotations R and the standard deviations S."""
        axes = quaternion_matrices(self.quats) * self.log_scales.exp()[:, None, :]
        return axes @ axes.transpose(1, 2)


def quaternion_matrices(quats: Tensor) -> Tensor:
    """Rotation matrices [N, 3, 3] of quaternions [N, 4] wxyz of any norm."""
    w, x, y, z = normalize(quats, dim=1).unbind(1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], 1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], 1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], 1),
    ]
    return torch.stack(rows, 1)


@dataclass(frozen=True)
class Frame:
    """What a model shows to one camera."""

    rgb: Tensor  # [H, W, 3] in [0, 1], background included
    alpha: Tensor  # [H, W] in [0, 1]
    depth: Tensor  # [H, W] expected distance along the camera's z, 0 where alpha is 0
    extras: dict[str, Tensor] = field(default_factory=dict)  # by name, e.g. normal [H, W, 3]


def stacked(strips: Sequence[Frame]) -> Frame:
    """One frame of strips from top to bottom."""
    if len(strips) == 1:
        return strips[0]
    extras = {name: _joined([strip.extras[name] for strip in strips]) for name in strips[0].extras}
    rgb, alpha, depth = (torch.cat([getattr(strip, name) for strip in strips]) for name in ("rgb", "alpha", "depth"))
    return Frame(rgb, alpha, depth, extras)


def _joined(parts: list[Tensor]) -> Tensor:
    """Parts of a picture put together; a number of the whole frame is the same in all."""
    return torch.cat(parts) if parts[0].dim() else parts[0]
