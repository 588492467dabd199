"""gsplat's CUDA kernels behind the signature of our own stages.

Its building blocks are called one by one, as its `rasterization` does, instead of `rasterization` itself: then the
projected means are a tensor of ours in the middle of the graph, whose gradient densification reads, wherever the
parameters lie. What differs from our kernels is listed in docs/backends.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.types import Gaussians

TILE = 16


def rendered(
    gaussians: Gaussians,
    camera: Camera,
    background: Tensor,  # [C] one for each channel, depth included
    *,
    near: float,
    dilation: float,
    degree: int,
    depth: bool,
    absgrad_probe: Tensor | None,  # [N, 2]
    kernels: Any = None,  # gsplat, or what has its functions
    device: str = "cuda",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Image [H, W, C], alpha [H, W], projected means [N, 2] as part of the graph, and who is visible [N].

    All are on the parameters' device; rendering happens on `device`.
    """
    if kernels is None:
        import gsplat as kernels  # type: ignore[import-not-found, no-redef, unused-ignore]
    home = gaussians.means.device
    moved = {name: getattr(gaussians, name).to(device) for name in ("means", "quats", "log_scales", "sh")}
    opacities = gaussians.logit_opacities.to(device).sigmoid()
    pose = camera.world_to_camera.to(device)
    radii, means2d, depths, conics, compensations = kernels.fully_fused_projection(
        moved["means"],
        None,
        moved["quats"],
        moved["log_scales"].exp(),
        pose[None],
        camera.K.to(device)[None],
        camera.width,
        camera.height,
        eps2d=dilation,
        near_plane=near,
        calc_compensations=gaussians.antialiased,
        opacities=opacities,
    )
    visible = (radii > 0).all(-1)  # [1, N]
    opacities = opacities[None] if compensations is None else opacities[None] * compensations
    features = _colours(kernels, moved, camera.to(device).centre, degree, visible)
    if depth:
        features = torch.cat([features, depths[..., None]], -1)
    # What is not visible is left unwritten by the kernel, and may hold anything.
    handle = torch.where(visible[0, :, None], means2d[0], 0).to(home)
    image, alpha = _blended(
        kernels, handle, radii, depths, conics, features, opacities, background, camera, absgrad_probe, device
    )
    return image.to(home), alpha.to(home), handle, visible[0].to(home)


def _colours(kernels: Any, moved: dict[str, Tensor], centre: Tensor, degree: int, visible: Tensor) -> Tensor:
    """Colours [1, N, 3] along the directions from the camera."""
    directions = (moved["means"] - centre)[None]
    bands: Tensor = kernels.spherical_harmonics(degree, directions, moved["sh"][None], masks=visible)
    return (bands + 0.5).clamp_min(0)


def _blended(
    kernels: Any,
    handle: Tensor,
    radii: Tensor,
    depths: Tensor,
    conics: Tensor,
    features: Tensor,
    opacities: Tensor,
    background: Tensor,
    camera: Camera,
    absgrad_probe: Tensor | None,
    device: str,
) -> tuple[Tensor, Tensor]:
    """Image [H, W, C] and alpha [H, W] from projected Gaussians."""
    columns, rows = -(-camera.width // TILE), -(-camera.height // TILE)
    means2d = handle.to(device)[None]
    if absgrad_probe is not None:
        means2d = _Probe.apply(means2d, absgrad_probe, box := [])  # type: ignore[no-untyped-call]
        box.append(means2d)
    with torch.no_grad():
        _, pairs, order = kernels.isect_tiles(means2d, radii, depths, TILE, columns, rows)
        offsets = kernels.isect_offset_encode(pairs, 1, columns, rows)
    image, alpha = kernels.rasterize_to_pixels(
        means2d,
        conics,
        features,
        opacities,
        camera.width,
        camera.height,
        TILE,
        offsets,
        order,
        backgrounds=background.to(device)[None],
        absgrad=absgrad_probe is not None,
    )
    return image[0], alpha[0, ..., 0]


class _Probe(torch.autograd.Function):
    """The identity; hands the attribute `absgrad`, which gsplat leaves on the means, to the probe as its gradient."""

    @staticmethod
    def forward(ctx: Any, means2d: Tensor, probe: Tensor, box: list[Tensor]) -> Tensor:
        ctx.box, ctx.home = box, probe.device
        return means2d.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        means2d = ctx.box.pop()  # also ends the circle of references
        return gradients[0], means2d.absgrad[0].to(ctx.home), None
