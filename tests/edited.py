"""What tests of the editor edit: a cloud of Gaussians, a camera, and ten edits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anchorfield.app.edit import Editor, operation_from_json, selecting
from anchorfield.app.edit import operations as ops
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.types import PARAMETERS, Gaussians
from anchorfield.scenes.splat_ply import write_ply

COUNT = 400
BOX = {"operation": "select_box", "centre": [0, 0, 3], "half_extents": [0.5, 0.7, 0.6], "wxyz": [0.9, 0.1, 0.3, 0.2]}


def cloud(count: int = COUNT, seed: int = 0, degree: int = 2) -> Gaussians:
    """Gaussians around (0, 0, 3)."""
    g = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=torch.randn(count, 3, generator=g) * 0.6 + torch.tensor([0, 0, 3.0]),
        log_scales=torch.randn(count, 3, generator=g) * 0.4 - 3,
        quats=torch.randn(count, 4, generator=g),
        logit_opacities=torch.randn(count, generator=g),
        sh=torch.randn(count, (degree + 1) ** 2, 3, generator=g) * 0.3,
    )


def camera(x: float = 0.1) -> Camera:
    pose = torch.eye(4)
    pose[0, 3] = x
    return Camera(pose, 90.0, 80.0, 50.5, 41.0, 100, 80)


def same(a: Gaussians, b: Gaussians) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in PARAMETERS)


def snapshot(editor: Editor) -> list[Tensor]:
    masks = [editor.selection, editor.hidden, editor.locked]
    return [getattr(editor.gaussians, name).clone() for name in PARAMETERS] + [mask.clone() for mask in masks]


def similarity(scale: float) -> Any:
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = scale * selecting.rotation((0.8, 0.3, 0.1, 0.5))
    matrix[:3, 3] = torch.tensor([0.1, 0.2, 0.3])
    return matrix


def ten_edits(path: Path) -> list[ops.Operation]:
    write_ply(path, cloud(30, seed=5))
    return [
        operation_from_json(BOX),
        ops.Transform(matrix=similarity(1.3)),
        ops.Adjust(brightness=0.1, contrast=1.2, saturation=0.7, temperature=-0.4, opacity=0.8),
        ops.Duplicate(),
        ops.Separate(layer="copy"),
        operation_from_json({**BOX, "centre": [0.4, 0, 3]}),
        ops.Delete(),
        ops.Merge(file=str(path)),
        ops.CleanUp(kind="dust", strength=0.9),
        ops.Merge(layer="copy"),
        ops.Lock(),
    ]
