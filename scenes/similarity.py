"""Gaussians in another frame: rotation, uniform scale and translation, spherical harmonics included."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from anchorfield.renderer.types import Gaussians

Array = NDArray[np.float64]


def transformed(gaussians: Gaussians, similarity: Array) -> Gaussians:
    """The Gaussians under a [4, 4] similarity, e.g. `scene.source_from_world`; computed in double precision.

    A colour seen along direction d before is seen along the turned direction R d after.
    """
    scale, rotation, translation = decomposed(similarity)
    means = gaussians.means.detach().cpu().double().numpy() @ (scale * rotation).T + translation
    x, y, z, w = Rotation.from_matrix(rotation).as_quat()
    quats = gaussians.quats.detach().cpu().double().numpy() @ _left_product(w, x, y, z).T
    log_scales = gaussians.log_scales.detach().cpu().double() + np.log(scale)
    like = gaussians.means
    return Gaussians(
        means=torch.from_numpy(means).to(like),
        log_scales=log_scales.to(like),
        quats=torch.from_numpy(quats).to(like),
        logit_opacities=gaussians.logit_opacities,
        sh=torch.from_numpy(_turned_harmonics(gaussians.sh.detach().cpu().double().numpy(), rotation)).to(like),
        antialiased=gaussians.antialiased,
    )


def decomposed(similarity: Array) -> tuple[float, Array, Array]:
    """Scale, rotation [3, 3] and translation [3] of a [4, 4] similarity."""
    matrix = np.asarray(similarity, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ValueError(f"expected a finite 4x4 similarity, got {matrix}")
    linear = matrix[:3, :3]
    determinant = np.linalg.det(linear)
    scale = float(np.cbrt(determinant))
    if determinant <= 0 or not np.allclose(linear @ linear.T, scale**2 * np.eye(3), rtol=0, atol=1e-5 * scale**2):
        raise ValueError(f"expected a rotation with one scale, without mirror or shear, got {linear.tolist()}")
    return scale, linear / scale, matrix[:3, 3]


def _left_product(w: float, x: float, y: float, z: float) -> Array:
    """The matrix of q -> (w, x, y, z) * q."""
    return np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])


def _turned_harmonics(sh: Array, rotation: Array) -> Array:
    """Coefficients [N, K, 3] of the colour function turned by `rotation`; each band l turns within itself."""
    bands = round(sh.shape[1] ** 0.5)
    directions = np.random.default_rng(0).normal(size=(64, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    before, after = harmonics_basis(directions), harmonics_basis(directions @ rotation.T)
    turned = sh.copy()
    for band in range(1, bands):
        part = slice(band * band, (band + 1) * (band + 1))
        # Y(R d) M = Y(d) for all d: an exact solution exists, least squares finds it.
        matrix = np.linalg.lstsq(after[:, part], before[:, part], rcond=None)[0]
        turned[:, part] = np.einsum("ij,njc->nic", matrix, sh[:, part])
    return turned


def harmonics_basis(directions: Array) -> Array:
    """Real spherical harmonics up to degree 3 of unit directions [N, 3], with the signs that splats use; [N, 16]."""
    x, y, z = directions.T
    xx, yy, zz = x * x, y * y, z * z
    values = (
        np.full_like(x, 0.28209479177387814),
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
    )
    return np.stack(values, axis=-1)


def turn_between(a: Array, b: Array) -> Array:
    """The smallest rotation [3, 3] from one unit vector [3] to another; of opposite ones, some half turn."""
    cosine = float(a @ b)
    if cosine < -1 + 1e-9:
        axis = np.eye(3)[int(np.argmin(np.abs(a)))]
        across = axis - (axis @ a) * a
        across = across / np.linalg.norm(across)
        return np.asarray(2 * np.outer(across, across) - np.eye(3))
    x, y, z = np.cross(a, b)
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + skew + skew @ skew / (1 + cosine))
