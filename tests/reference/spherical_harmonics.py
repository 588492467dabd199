"""Colour that depends on the viewing direction."""

from __future__ import annotations

import torch
from torch import Tensor


def basis(directions: Tensor) -> Tensor:
    """The 16 real spherical harmonics to degree 3 of unit directions [N, 3]: [N, 16], order l = 0.., m = -l..l."""
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    return torch.stack(
        [
            torch.full_like(x, 0.28209479177387814),
            -0.4886025119029199 * y,
            0.4886025119029199 * z,
            -0.4886025119029199 * x,
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2 * zz - xx - yy),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (xx - yy),
            -0.5900435899266435 * y * (3 * xx - yy),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * zz - xx - yy),
            0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
            -0.4570457994644658 * x * (4 * zz - xx - yy),
            1.445305721320277 * z * (xx - yy),
            -0.5900435899266435 * x * (xx - 3 * yy),
        ],
        -1,
    )


def spherical_harmonics(sh: Tensor, means: Tensor, centre: Tensor, degree: int, visible: Tensor) -> Tensor:
    """Colours [N, 3] of coefficients [N, K, 3] seen from `centre` up to `degree`; 0 where not visible."""
    directions = means[visible] - centre
    directions = directions / directions.norm(dim=-1, keepdim=True)
    count = (degree + 1) ** 2
    values = basis(directions)[:, :count, None] * sh[visible, :count]
    colours = (values.sum(1) + 0.5).clamp(min=0)
    return sh.new_zeros(len(sh), 3).index_put((visible,), colours)
