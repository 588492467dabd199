"""Gaussians to images: projection, colour, tiles and compositing put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from anchorfield.cuda_ext.anchors import Decoded
from anchorfield.cuda_ext.binning import bin_tiles
from anchorfield.cuda_ext.compositing import composite
from anchorfield.cuda_ext.projection import Projected, project
from anchorfield.cuda_ext.spherical_harmonics import spherical_harmonics
from anchorfield.renderer import _gsplat, backends
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.types import SH_C0, Frame, Gaussians

MIP_DILATION = 0.1  # pixels^2, with compensation (Yu et al. 2024)
DILATION = 0.3  # pixels^2, as every 3DGS viewer has it


@dataclass(frozen=True)
class Splats:
    """A rendered image and what densification wants to know about it."""

    rgb: Tensor  # [H, W, 3]
    alpha: Tensor  # [H, W]
    depth: Tensor | None  # [H, W] expected z
    means2d: Tensor  # [N, 2] pixels, part of the graph
    visible: Tensor  # [N] bool

    def frame(self) -> Frame:
        """The image as the application knows it."""
        assert self.depth is not None
        return Frame(self.rgb, self.alpha, self.depth)


def splat(
    gaussians: Gaussians,
    camera: Camera,
    background: Tensor,  # [3]
    *,
    sh_degree: int | None = None,
    depth: bool = True,
    absgrad_probe: Tensor | None = None,  # [N, 2]
) -> Splats:
    """Render `gaussians` over `background`; differentiable in them, in the pose and in the background.

    `sh_degree` limits the harmonics; without `depth` a quarter of the blending is saved. The gradient of
    `absgrad_probe` is the sum over pixels of |dL/dmeans2d|. Who renders is chosen in `renderer.backends`.
    """
    if backends.current() == backends.GSPLAT:
        return _through_gsplat(gaussians, camera, background, sh_degree, depth, absgrad_probe)
    projected = flattened(gaussians, camera)
    degree = gaussians.sh_degree if sh_degree is None else sh_degree
    visible = projected.visible
    colours = spherical_harmonics(gaussians.sh, gaussians.means, camera.centre, degree, visible)
    return _blended(projected, visible, colours, camera, background, depth, absgrad_probe)


def splat_decoded(
    decoded: Decoded, camera: Camera, background: Tensor, *, depth: bool = True, antialiased: bool = False
) -> Splats:
    """Render Gaussians that were decoded for `camera`; differentiable like `splat`."""
    if backends.current() == backends.GSPLAT:
        return _through_gsplat(as_gaussians(decoded, antialiased), camera, background, 0, depth, None)
    projected = project(
        decoded.means,
        decoded.quats,
        decoded.scales,
        decoded.opacities,
        camera.world_to_camera,
        **_lens(camera),
        dilation=MIP_DILATION if antialiased else DILATION,
        antialiased=antialiased,
    )
    return _blended(projected, projected.visible, decoded.colours, camera, background, depth, None)


def as_gaussians(decoded: Decoded, antialiased: bool = False) -> Gaussians:
    """Decoded Gaussians in raw parameters; their colours become the constant harmonic."""
    return Gaussians(
        decoded.means,
        decoded.scales.log(),
        decoded.quats,
        torch.logit(decoded.opacities, 1e-6),
        ((decoded.colours - 0.5) / SH_C0)[:, None],
        antialiased,
    )


def _blended(
    projected: Projected,
    visible: Tensor,  # [N] bool
    colours: Tensor,  # [N, 3]
    camera: Camera,
    background: Tensor,
    depth: bool,
    absgrad_probe: Tensor | None,
) -> Splats:
    """Ellipses to an image."""
    features = colours
    if depth:
        features = torch.cat([colours, projected.depths[:, None]], 1)
        background = torch.cat([background, background.new_zeros(1)])
    bins = bin_tiles(projected, camera.width, camera.height)
    image, alpha = composite(
        projected.means2d,
        projected.conics,
        projected.opacities,
        features,
        bins,
        camera.width,
        camera.height,
        background,
        absgrad_probe,
    )
    expected = image[..., 3] / alpha.clamp_min(1e-6) if depth else None
    rgb = image[..., :3] if depth else image  # a slice's gradient costs a copy of the image
    return Splats(rgb, alpha, expected, projected.means2d, visible)


def flattened(gaussians: Gaussians, camera: Camera) -> Projected:
    """The Gaussians as ellipses on the camera's image."""
    return project(
        gaussians.means,
        gaussians.quats,
        gaussians.log_scales,
        gaussians.logit_opacities,
        camera.world_to_camera,
        **_lens(camera),
        dilation=MIP_DILATION if gaussians.antialiased else DILATION,
        antialiased=gaussians.antialiased,
        raw=True,
    )


class _Lens(TypedDict):
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    near: float


def _lens(camera: Camera) -> _Lens:
    """What a projection needs of a camera beside its pose."""
    return {
        "fx": camera.fx,
        "fy": camera.fy,
        "cx": camera.cx,
        "cy": camera.cy,
        "width": camera.width,
        "height": camera.height,
        "near": camera.near,
    }


def anchors_in_view(anchors: Tensor, log_scales: Tensor, camera: Camera) -> Tensor:
    """Which anchors [N, 3] could show something, bool [N]: as round Gaussians of their offsets' reach [N, 3]."""
    count = len(anchors)
    quats = anchors.new_tensor([1.0, 0, 0, 0]).expand(count, 4)
    opaque = anchors.new_ones(count)
    return project(
        anchors, quats, log_scales.exp(), opaque, camera.world_to_camera, **_lens(camera), dilation=DILATION
    ).visible


def _through_gsplat(
    gaussians: Gaussians,
    camera: Camera,
    background: Tensor,
    sh_degree: int | None,
    depth: bool,
    absgrad_probe: Tensor | None,
) -> Splats:
    """`splat` by gsplat's kernels."""
    image, alpha, means2d, visible = _gsplat.rendered(
        gaussians,
        camera,
        torch.cat([background, background.new_zeros(1)]) if depth else background,
        near=camera.near,
        dilation=MIP_DILATION if gaussians.antialiased else DILATION,
        degree=gaussians.sh_degree if sh_degree is None else sh_degree,
        depth=depth,
        absgrad_probe=absgrad_probe,
    )
    expected = image[..., 3] / alpha.clamp_min(1e-6) if depth else None
    return Splats(image[..., :3], alpha, expected, means2d, visible)
