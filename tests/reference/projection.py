"""3D Gaussians to 2D Gaussians on the image (EWA splatting)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MIN_ALPHA = 1 / 255
MIN_COMPENSATION_SQUARED = 2.5e-5  # keeps the square root's slope finite where det C vanishes


class Projected(NamedTuple):
    """2D Gaussians; all zeros where culled."""

    means2d: Tensor  # [N, 2] pixels
    conics: Tensor  # [N, 3] (a, b, c) of the inverse dilated covariance
    depths: Tensor  # [N] along z
    opacities: Tensor  # [N] after antialiasing
    extents: Tensor  # [N, 2] half-sizes in pixels of the box of {alpha >= 1/255}; carries no gradient


class Pinhole(NamedTuple):
    """The settings of a projection."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    near: float = 0.01
    far: float = 1e10
    dilation: float = 0.3
    antialiased: bool = False


def rotations(quats: Tensor) -> Tensor:
    """Rotation matrices [N, 3, 3] of quaternions [N, 4], wxyz, any norm."""
    w, x, y, z = (quats / quats.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    ]
    return torch.stack(rows, -2)


def covariances(quats: Tensor, scales: Tensor) -> Tensor:
    """R S S^T R^T, [N, 3, 3]."""
    half = rotations(quats) * scales[:, None, :]
    return half @ half.transpose(1, 2)


def project(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    world_to_camera: Tensor,
    raw: bool = False,
    **settings: float,
) -> Projected:
    """The 2D Gaussians of [N] 3D Gaussians; `settings` are the fields of Pinhole.

    `raw` scales are logarithms and opacities logits.
    """
    if raw:
        scales, opacities = scales.exp(), opacities.sigmoid()
    pinhole = Pinhole(**settings)
    arguments = (means, quats, scales, opacities)
    with torch.no_grad():
        visible = _visible(*arguments, world_to_camera, pinhole)
    # Only what is seen is differentiated: a culled row may hold infinities, and 0 * inf would poison every gradient.
    rows = _project_all(*(a[visible] for a in arguments), world_to_camera, pinhole)[0]
    full = [value.new_zeros((len(means), *value.shape[1:])) for value in rows]
    return Projected(*(zeros.index_put((visible,), value) for zeros, value in zip(full, rows, strict=True)))


def _visible(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, world_to_camera: Tensor, pinhole: Pinhole
) -> Tensor:
    """Which Gaussians are drawn, [N] bool."""
    p, determinant = _project_all(means, quats, scales, opacities, world_to_camera, pinhole)
    seen = (p.depths >= pinhole.near) & (p.depths <= pinhole.far) & (determinant > 0)
    seen &= (p.opacities >= MIN_ALPHA) & ((quats * quats).sum(-1) >= 1e-8)
    size = p.means2d.new_tensor([pinhole.width, pinhole.height])
    return seen & (p.means2d + p.extents > 0).all(-1) & (p.means2d - p.extents < size).all(-1)


def _project_all(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, world_to_camera: Tensor, pinhole: Pinhole
) -> tuple[Projected, Tensor]:
    """Projection without culling, and the determinants of the dilated covariances."""
    rotation, translation = world_to_camera[:3, :3], world_to_camera[:3, 3]
    points = means @ rotation.T + translation
    x, y, z = points.unbind(-1)
    means2d = torch.stack([pinhole.fx * x / z + pinhole.cx, pinhole.fy * y / z + pinhole.cy], -1)

    jacobian = _jacobian(points, pinhole)
    in_camera = rotation @ covariances(quats, scales) @ rotation.T
    flat = jacobian @ in_camera @ jacobian.transpose(1, 2)
    xx, xy, yy = flat[:, 0, 0], flat[:, 0, 1], flat[:, 1, 1]
    a, c = xx + pinhole.dilation, yy + pinhole.dilation
    determinant = a * c - xy * xy
    conics = torch.stack([c, -xy, a], -1) / determinant[:, None]

    if pinhole.antialiased:
        ratio = (xx * yy - xy * xy) / determinant
        opacities = opacities * ratio.clamp(min=MIN_COMPENSATION_SQUARED).sqrt()
    level = 2 * (255 * opacities).log()
    extents = torch.stack([level * a, level * c], -1).clamp(min=0).sqrt().detach()
    return Projected(means2d, conics, z, opacities, extents), determinant


def _jacobian(points: Tensor, pinhole: Pinhole) -> Tensor:
    """Derivative of the pixel by the camera point, [N, 2, 3], taken at a direction held within 1.3 fields of view.

    The linear approximation is useless far outside the image; without the limit a Gaussian beside the camera explodes.
    """
    x, y, z = points.unbind(-1)
    margin_x = 0.3 * pinhole.width / (2 * pinhole.fx)
    margin_y = 0.3 * pinhole.height / (2 * pinhole.fy)
    left, right = -pinhole.cx / pinhole.fx - margin_x, (pinhole.width - pinhole.cx) / pinhole.fx + margin_x
    top, bottom = -pinhole.cy / pinhole.fy - margin_y, (pinhole.height - pinhole.cy) / pinhole.fy + margin_y
    tx, ty = z * (x / z).clamp(left, right), z * (y / z).clamp(top, bottom)
    zero = torch.zeros_like(z)
    row_x = torch.stack([pinhole.fx / z, zero, -pinhole.fx * tx / (z * z)], -1)
    row_y = torch.stack([zero, pinhole.fy / z, -pinhole.fy * ty / (z * z)], -1)
    return torch.stack([row_x, row_y], -2)
