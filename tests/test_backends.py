"""Backends of rendering: the choice, its errors, its record, and gsplat against our kernels.

gsplat renders on CUDA only. Its adapter is tested everywhere with a stand-in that has gsplat's functions and our
kernels inside, and against gsplat itself where there is a device.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_app_capture import SMALL, call, make_capture
from torch import Tensor

from anchorfield.app import job, train
from anchorfield.cuda_ext.binning import bin_tiles
from anchorfield.cuda_ext.compositing import composite
from anchorfield.cuda_ext.projection import Projected, project
from anchorfield.cuda_ext.spherical_harmonics import spherical_harmonics
from anchorfield.renderer import _gsplat, backends
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import DataError, MissingBackend, UsageError
from anchorfield.renderer.metrics import psnr
from anchorfield.renderer.splatting import Splats, splat
from anchorfield.renderer.types import PARAMETERS, Gaussians


class StandIn:
    """gsplat's functions as 1.5.3 has them, one camera, over our kernels."""

    def fully_fused_projection(
        self, means: Tensor, covars: None, quats: Tensor, scales: Tensor, viewmats: Tensor, Ks: Tensor,
        width: int, height: int, *, eps2d: float, near_plane: float, calc_compensations: bool, opacities: Tensor,
    ) -> tuple[Tensor | None, ...]:  # fmt: skip
        fx, fy, cx, cy = (float(Ks[0, i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
        lens = {"fx": fx, "fy": fy, "cx": cx, "cy": cy, "width": width, "height": height}
        flat = project(
            means, quats, scales, opacities, viewmats[0], **lens, near=near_plane, dilation=eps2d,
            antialiased=calc_compensations,
        )  # fmt: skip
        self.flat, self.size = flat, (width, height)
        seen = flat.visible[:, None]
        means2d = torch.where(seen, flat.means2d, torch.nan)[None]  # gsplat leaves what is not visible unwritten
        compensations = (flat.opacities / opacities)[None] if calc_compensations else None
        return flat.extents.ceil().int()[None], means2d, flat.depths[None], flat.conics[None], compensations

    def spherical_harmonics(self, degree: int, dirs: Tensor, coeffs: Tensor, masks: Tensor) -> Tensor:
        shifted = coeffs[0].clone()
        shifted[:, 0] += 10 / 0.28209479177387814  # away from the clamp, which gsplat leaves to its caller
        colours = spherical_harmonics(shifted, dirs[0], torch.zeros(3), degree, masks[0])
        return (colours - 10.5)[None]

    def isect_tiles(self, means2d: Tensor, radii: Tensor, depths: Tensor, *size: int) -> tuple[None, Tensor, Tensor]:
        assert size == (16, math.ceil(self.size[0] / 16), math.ceil(self.size[1] / 16))
        return None, depths, radii

    def isect_offset_encode(self, pairs: Tensor, images: int, columns: int, rows: int) -> Tensor:
        assert images == 1
        return pairs

    def rasterize_to_pixels(
        self, means2d: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor, width: int, height: int, tile: int,
        offsets: Tensor, ids: Tensor, *, backgrounds: Tensor, absgrad: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        probe = torch.zeros(means2d.shape[1:], requires_grad=True) if absgrad else None
        bins = bin_tiles(
            Projected(means2d[0], conics[0], self.flat.depths, opacities[0], self.flat.extents), width, height
        )
        if probe is not None:
            means2d.register_hook(lambda gradient: setattr(means2d, "absgrad", probe.grad[None]))  # type: ignore[index]
        image, alpha = composite(
            means2d[0], conics[0], opacities[0], colors[0], bins, width, height, backgrounds[0], probe
        )
        return image[None], alpha[None, ..., None]


def scene(antialiased: bool = False) -> tuple[Gaussians, Camera]:
    """Gaussians before, beside and behind a camera that looks at them from elsewhere."""
    random = torch.Generator().manual_seed(3)
    count = 80
    pose = torch.eye(4)
    pose[:3, :3] = torch.linalg.qr(torch.randn(3, 3, generator=random))[0]
    pose[:3, :3] *= pose[:3, :3].det().sign()
    pose[:3, 3] = torch.tensor([0.1, -0.2, 2.5])
    gaussians = Gaussians(
        means=torch.randn(count, 3, generator=random),
        log_scales=torch.randn(count, 3, generator=random) * 0.5 - 2.5,
        quats=torch.randn(count, 4, generator=random),
        logit_opacities=torch.randn(count, generator=random),
        sh=torch.randn(count, 16, 3, generator=random) * 0.2,
        antialiased=antialiased,
    )
    return gaussians, Camera(pose, 50.0, 55.0, 31.0, 22.0, 60, 45)


def outcome(monkeypatch: pytest.MonkeyPatch, backend: str, gaussians: Gaussians, camera: Camera) -> dict[str, Any]:
    """Image, alpha, depth, visibility and all gradients by a backend."""
    monkeypatch.setattr(backends, "_current", backend)
    leaves = {name: getattr(gaussians, name).clone().requires_grad_() for name in PARAMETERS}
    probe = torch.zeros(len(gaussians), 2, requires_grad=True)
    pose = camera.world_to_camera.clone().requires_grad_()
    background = torch.tensor([0.2, 0.4, 0.6])
    shown: Splats = splat(
        replace(gaussians, **leaves),
        replace(camera, world_to_camera=pose),
        background,
        sh_degree=2,
        absgrad_probe=probe,
    )
    assert shown.depth is not None
    shown.means2d.retain_grad()
    weights = torch.randn(shown.rgb.shape, generator=torch.Generator().manual_seed(0))
    ((weights * shown.rgb).sum() + shown.alpha.sum() + 0.1 * shown.depth.sum()).backward()
    values = {"rgb": shown.rgb, "alpha": shown.alpha, "depth": shown.depth, "visible": shown.visible}
    gradients = {f"v_{name}": leaf.grad for name, leaf in leaves.items()}
    rest = {"v_means2d": shown.means2d.grad, "probe": probe.grad, "v_pose": pose.grad}
    return {name: value.detach() for name, value in (values | gradients | rest).items()}


@pytest.mark.parametrize("antialiased", [False, True])
def test_the_adapter_gives_what_our_kernels_give(monkeypatch: pytest.MonkeyPatch, antialiased: bool) -> None:
    rendered = _gsplat.rendered
    monkeypatch.setattr(
        _gsplat, "rendered", lambda *a, **k: rendered(*a, **k, kernels=StandIn(), device="cpu")
    )  # fmt: skip
    gaussians, camera = scene(antialiased)
    ours = outcome(monkeypatch, backends.NATIVE, gaussians, camera)
    theirs = outcome(monkeypatch, backends.GSPLAT, gaussians, camera)
    assert 10 < ours["visible"].sum() < 80
    assert ours["probe"].abs().max() > 0
    for name, value in ours.items():  # the same kernels but for a few roundings on the way
        scale = value.double().abs().max() + 1e-12
        assert (theirs[name].double() - value.double()).abs().max() / scale < 1e-4, name


def test_gsplat_agrees_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = backends._gsplat_problem()
    if problem:
        pytest.skip(problem)
    gaussians, camera = scene()
    gaussians = replace(gaussians, logit_opacities=gaussians.logit_opacities.clamp_max(4))  # below both caps of alpha
    ours = outcome(monkeypatch, backends.NATIVE, gaussians, camera)
    theirs = outcome(monkeypatch, backends.GSPLAT, gaussians, camera)
    assert psnr(theirs["rgb"], ours["rgb"]) > 60
    assert (theirs["visible"] == ours["visible"]).float().mean() > 0.95
    for name in (name for name in ours if name.startswith("v_") or name == "probe"):
        assert (theirs[name] - ours[name]).norm() < 0.02 * ours[name].norm(), name


@pytest.mark.parametrize(
    ("version", "device", "words"),
    [(None, True, "pip install gsplat=="), ("1.5.3", False, "CUDA only"), ("1.5.3", True, "import fails")],
)
def test_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, version: str | None, device: bool, words: str
) -> None:
    def installed(name: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    broken = words == "import fails"
    monkeypatch.setattr(importlib.metadata, "version", installed)
    monkeypatch.setitem(sys.modules, "gsplat", None if broken else SimpleNamespace())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: device)
    with pytest.raises(MissingBackend, match=words):
        backends.resolved("gsplat")
    assert backends.resolved("auto") == "native"
    with pytest.raises(UsageError, match="auto, native, gsplat"):
        backends.resolved("cuda")


def test_a_choice_ends_with_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_gsplat_problem", lambda: None)
    with backends.using("gsplat") as name:
        assert (name, backends.current()) == ("gsplat", "gsplat")
    assert backends.current() == "native"
    with contextlib.suppress(ZeroDivisionError), backends.using("gsplat"):
        raise ZeroDivisionError
    assert backends.current() == "native"


def test_the_choice_is_recorded_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    capture, run = make_capture(tmp_path / "made"), tmp_path / "run"
    assert call(capsys, "train", capture, *SMALL, "--steps", 3, "--backend", "auto", "-o", run)[0] == 0
    assert json.loads((run / "config.json").read_text())["backend"] == "native"
    assert json.loads((run / "eval" / "metrics.json").read_text())["backend"] == "native"
    assert "backend" in (run / "eval" / "report.html").read_text()
    monkeypatch.setattr(backends, "_gsplat_problem", lambda: "gsplat is not installed")
    for verb in (
        ["train", str(capture), "-o", str(tmp_path / "other")],
        ["eval", str(run)],
        ["render", str(run), "--test"],
    ):
        code, _, err = call(capsys, *verb, "--backend", "gsplat")
        assert code == 5
        assert "gsplat is not installed" in err
    assert not (tmp_path / "other").exists()
    monkeypatch.setattr(backends, "_gsplat_problem", lambda: None)
    with pytest.raises(UsageError, match="keeps its backend"):
        train(out=run, resume=True, backend="gsplat")
    content = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**content, "backend": "metal"}))
    with pytest.raises(DataError, match="metal"):
        job.read(run / "config.json")
