"""Projection of 3D Gaussians to the image plane."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from anchorfield.cuda_ext import _kernels
from anchorfield.cuda_ext._checks import check, check_size


class Projected(NamedTuple):
    """Gaussians on the image; all zero where one cannot be seen."""

    means2d: Tensor  # [N, 2] pixels
    conics: Tensor  # [N, 3] inverse covariance (a, b, c) of a dx^2 + 2 b dx dy + c dy^2
    depths: Tensor  # [N] along the camera's z
    opacities: Tensor  # [N] with the antialiasing compensation
    extents: Tensor  # [N, 2] half the box in which alpha reaches 1/255, pixels; no gradient

    @property
    def visible(self) -> Tensor:
        """Which Gaussians can be seen, bool [N]."""
        return self.extents[:, 0] > 0


def project(
    means: Tensor,  # [N, 3] world
    quats: Tensor,  # [N, 4] wxyz, any norm
    scales: Tensor,  # [N, 3] standard deviations, or their logarithms where `raw`
    opacities: Tensor,  # [N] in (0, 1), or their logits where `raw`
    world_to_camera: Tensor,  # [4, 4]
    *,
    fx: float,
    fy: float,
    cx: float,
    cy: float,
    width: int,
    height: int,
    near: float = 0.01,
    far: float = 1e10,
    dilation: float = 0.3,
    antialiased: bool = False,
    raw: bool = False,
) -> Projected:
    """Gaussians as ellipses on the image plane (EWA splatting, Zwicker et al. 2001; Kerbl et al. 2023).

    Differentiable in all tensors. `dilation` (pixels^2) widens every image covariance; `antialiased` scales opacities
    by the area that it adds. Unseen are Gaussians outside [near, far], off the image, or nowhere above 1/255.
    """
    check(
        means=(means, ("N", 3)),
        quats=(quats, ("N", 4)),
        scales=(scales, ("N", 3)),
        opacities=(opacities, ("N",)),
        world_to_camera=(world_to_camera, (4, 4)),
    )
    check_size(width, height)
    numbers = [fx, fy, cx, cy, float(width), float(height), near, far, dilation]
    return Projected(*_project(means, quats, scales, opacities, world_to_camera, numbers, antialiased, raw))


@torch.library.custom_op("anchorfield::project", mutates_args=(), device_types="cpu")
def _project(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    world_to_camera: Tensor,
    numbers: list[float],
    antialiased: bool,
    raw: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    inputs = [t.detach().contiguous() for t in (means, quats, scales, opacities, world_to_camera)]
    outputs = empty_outputs(means)
    _kernels.project(*inputs, numbers, antialiased, raw, *outputs)
    return outputs


@_project.register_fake
def _(means: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return empty_outputs(means)


def empty_outputs(means: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Room for what `Projected` holds, on the means' device."""
    n = means.shape[0]
    means2d, conics, depths, opacities, extents = (
        means.new_empty(shape) for shape in [(n, 2), (n, 3), (n,), (n,), (n, 2)]
    )
    return means2d, conics, depths, opacities, extents


@torch.library.custom_op("anchorfield::project_backward", mutates_args=(), device_types="cpu")
def _project_backward(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    world_to_camera: Tensor,
    numbers: list[float],
    antialiased: bool,
    raw: bool,
    gradients: list[Tensor],
    extents: Tensor,
    needs_pose: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    inputs = [t.contiguous() for t in (means, quats, scales, opacities, world_to_camera)]
    outputs = [torch.empty_like(t) for t in inputs[:4]]
    pose = torch.zeros_like(inputs[4])
    _kernels.project_backward(
        *inputs,
        numbers,
        antialiased,
        raw,
        *[g.contiguous() for g in gradients],
        extents.contiguous(),
        *outputs,
        pose if needs_pose else None,
    )
    return outputs[0], outputs[1], outputs[2], outputs[3], pose


@_project_backward.register_fake
def _(*inputs: Any) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(t) for t in inputs[:5])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.numbers, ctx.antialiased, ctx.raw = inputs
    ctx.save_for_backward(*tensors, output[4])
    ctx.mark_non_differentiable(output[4])
    ctx.set_materialize_grads(True)


def _backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, extents = ctx.saved_tensors
    needs_pose = ctx.needs_input_grad[4]
    *results, pose = _project_backward(
        *[t.detach() for t in tensors], ctx.numbers, ctx.antialiased, ctx.raw, list(gradients[:4]), extents, needs_pose
    )
    return (*results, pose if needs_pose else None, None, None, None)


_project.register_autograd(_backward, setup_context=_setup)
