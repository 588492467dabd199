"""Projection as the renderer calls it: the one place to change when the operation does."""

from __future__ import annotations

from anchorfield.cuda_ext.projection import Projected, project
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.splatting import DILATION, NEAR
from anchorfield.renderer.types import Gaussians


def projected(gaussians: Gaussians, camera: Camera) -> Projected:
    """Gaussians on the image, as `splat` projects them."""
    return project(
        gaussians.means,
        gaussians.quats,
        gaussians.log_scales.exp(),
        gaussians.logit_opacities.sigmoid(),
        camera.world_to_camera,
        fx=camera.fx,
        fy=camera.fy,
        cx=camera.cx,
        cy=camera.cy,
        width=camera.width,
        height=camera.height,
        near=NEAR,
        dilation=DILATION,
    )
