"""The CUDA sources against the references and the CPU kernels, without a device: compiled for the CPU with a stand-in.

They are the very files that nvcc compiles, with their binding and Python half. What this cannot show is speed, and
anything that depends on how a device really schedules or rounds.
"""

from __future__ import annotations

import dataclasses
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from cuda_on_cpu import compiled, on_the_cpu, stand_in
from test_ops import OPS, Outputs, cast, evaluate_kernel, references

from anchorfield.cuda_ext import cuda
from anchorfield.cuda_ext.binning import Bins, bin_tiles
from anchorfield.cuda_ext.compositing import contributions
from anchorfield.cuda_ext.cuda import launch, splats
from anchorfield.cuda_ext.projection import Projected, project
from anchorfield.cuda_ext.ssim import l1_and_ssim
from anchorfield.renderer.adam import Adam
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.losses import photometric
from anchorfield.renderer.splatting import splat
from anchorfield.renderer.types import PARAMETERS, Gaussians
from reference.made_scenes import generator, uniform
from reference.tolerance import assert_as_good_as_plain, relative_error

pytestmark = pytest.mark.usefixtures("one_torch_thread")
EACH_CASE = pytest.mark.parametrize(("name", "case"), [(name, case) for name, op in OPS.items() for case in op.cases])
ULP = torch.finfo(torch.float32).eps

# What lies behind a Gaussian is the total minus what came before, which cancels (see compositing.cu): a few of the
# ulp that the total carries come out of each opaque layer. Measured: up to 18.
COMPOSITE_GRADIENT_ULPS = 32


@EACH_CASE
def test_as_good_as_the_plain_reference(name: str, case: str) -> None:
    drawn, plain, exact = references(name, case)
    with on_the_cpu():
        results = [evaluate_kernel(OPS[name], cast(inputs, torch.float32)) for inputs in drawn]
    if name == "composite":
        for key in [key for key in exact[0] if key.startswith("v_")]:
            assert (
                relative_error([r.pop(key) for r in results], [e[key] for e in exact]) < COMPOSITE_GRADIENT_ULPS * ULP
            )
        exact = [{key: value for key, value in e.items() if not key.startswith("v_")} for e in exact]
    assert_as_good_as_plain(results, plain, exact)


@pytest.mark.parametrize("name", OPS)
def test_independent_of_the_order_of_threads(name: str) -> None:
    """Bit for bit: no barrier is missing and no sum is left to chance."""
    op = OPS[name]
    inputs = cast(op.draw(op.cases[0], 0, min(op.many, 700)), torch.float32)
    with on_the_cpu():
        expected = evaluate_kernel(op, inputs)
        compiled().turn_round(True)
        turned = evaluate_kernel(op, inputs)
    for key, value in turned.items():
        assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if op.rows])
def test_empty(name: str) -> None:
    op = OPS[name]
    inputs = cast(op.smooth(), torch.float32)
    empty = {key: inputs[key][:0] if key in op.rows else value for key, value in inputs.items()}
    with on_the_cpu():
        got = evaluate_kernel(op, empty)
    expected = evaluate_kernel(op, empty)
    assert {k: v.shape for k, v in got.items()} == {k: v.shape for k, v in expected.items()}
    for key, value in got.items():
        assert torch.equal(value, expected[key]), key


def test_float64_is_refused_with_words() -> None:
    inputs = OPS["project"].smooth()
    with on_the_cpu(), pytest.raises(TypeError, match="expected float32 tensors on a CUDA device, got float64"):
        evaluate_kernel(OPS["project"], inputs)


# ------------------------------------------------------------------------------------------------------ whole images
@dataclasses.dataclass(frozen=True)
class Made:
    """Gaussians in front of a camera at the origin, with what makes the scene special."""

    width: int
    height: int
    count: int
    pixels: float  # standard deviation
    opacity: tuple[float, float] = (0.05, 0.95)
    antialiased: bool = False
    behind: bool = False  # the camera, so that nothing is seen

    def camera(self) -> Camera:
        return Camera(torch.eye(4), 50.0, 48.0, self.width / 2 + 1.5, self.height / 2 - 0.75, self.width, self.height)

    def gaussians(self) -> Gaussians:
        g = generator(self.count)
        n, camera = self.count, self.camera()
        z = uniform(g, 1, 4, n)
        x = (uniform(g, 0, 1, n) * camera.width - camera.cx) * z / camera.fx
        y = (uniform(g, 0, 1, n) * camera.height - camera.cy) * z / camera.fy
        means = torch.stack([x, y, -z if self.behind else z], -1)
        log_scales = (self.pixels * z / camera.fx).log()[:, None] + uniform(g, -1, 0, n, 3)
        drawn = (
            means,
            log_scales,
            torch.randn(n, 4, generator=g, dtype=torch.float64),
            uniform(g, *self.opacity, n).logit(),
            torch.randn(n, 9, 3, generator=g, dtype=torch.float64) * 0.2,
        )
        return Gaussians(*[t.float() for t in drawn], antialiased=self.antialiased)


MADE = {
    "one pixel": Made(1, 1, 5, 2),
    "a tile": Made(16, 16, 40, 2),
    "ragged": Made(37, 19, 60, 3, antialiased=True),
    "narrow": Made(5, 50, 60, 1),
    "full tiles": Made(20, 17, 1300, 4, opacity=(0.01, 0.03)),  # more than 1000 in a tile, all of which count
    "opaque": Made(33, 31, 200, 3, opacity=(0.97, 0.9999)),
    "huge": Made(90, 70, 6, 60, opacity=(0.1, 0.5)),  # boxes of more tiles than one thread tests
    "one": Made(30, 20, 1, 3),
    "none": Made(30, 20, 0, 3),
    "all culled": Made(30, 20, 25, 3, behind=True),
}
EACH_MADE = pytest.mark.parametrize("made", MADE.values(), ids=MADE)


def flattened(made: Made) -> Projected:
    """The scene's Gaussians on the image, by the CPU kernels."""
    g, c = made.gaussians(), made.camera()
    shape: dict[str, Any] = {"fx": c.fx, "fy": c.fy, "cx": c.cx, "cy": c.cy, "width": c.width, "height": c.height}
    opacities, scales = g.logit_opacities.sigmoid(), g.log_scales.exp()
    return project(g.means, g.quats, scales, opacities, c.world_to_camera, **shape, antialiased=made.antialiased)


def assert_same_bins(got: Bins, expected: Bins) -> None:
    for name, value in got._asdict().items():
        assert value.dtype == getattr(expected, name).dtype
        assert torch.equal(value.to(torch.int64), getattr(expected, name).to(torch.int64)), name


@EACH_MADE
def test_bins(made: Made) -> None:
    flat = flattened(made)
    with on_the_cpu():
        got = bin_tiles(flat, made.width, made.height)
    assert_same_bins(got, bin_tiles(flat, made.width, made.height))


def test_bins_of_more_tiles_than_16_bits_count() -> None:
    made = Made(4 * 4112, 1040, 30, 100)
    flat = flattened(made)
    with on_the_cpu():
        got = bin_tiles(flat, made.width, made.height)
    assert len(got.tile_offsets) > 2**16
    assert_same_bins(got, bin_tiles(flat, made.width, made.height))


@pytest.mark.parametrize("room", [(1, 1), (1, 10**6), (10**6, 1), (10**6, 10**6)])
def test_bins_with_any_room(room: tuple[int, int]) -> None:
    made = MADE["ragged"]
    flat = flattened(made)
    with on_the_cpu():
        splats._rooms[flat.means2d.device] = room
        got = bin_tiles(flat, made.width, made.height)
    assert_same_bins(got, bin_tiles(flat, made.width, made.height))


def test_room_grows_at_once_and_shrinks_slowly() -> None:
    assert splats._room(100, 0) == 126
    assert splats._room(100, 1000) == 950
    assert splats._room(2**31 - 1, 0) == 2**31 - 1  # CUB counts in 32 bits


def rendered(made: Made) -> Outputs:
    """Image, loss, the gradients of a training step, and the parameters after it."""
    raw = made.gaussians()
    leaves = {name: torch.nn.Parameter(getattr(raw, name).clone()) for name in PARAMETERS}
    pose = torch.nn.Parameter(torch.eye(4))
    background = torch.nn.Parameter(torch.tensor([0.2, 0.5, 0.9]))
    probe = torch.zeros(made.count, 2, requires_grad=True)
    camera = dataclasses.replace(made.camera(), world_to_camera=pose)
    image = splat(Gaussians(**leaves, antialiased=made.antialiased), camera, background, absgrad_probe=probe)
    photo = uniform(generator(1), 0, 1, made.height, made.width, 3).float()
    losses = photometric(image.rgb, photo)
    optimiser = Adam(leaves, dict.fromkeys(leaves, 1e-3))
    assert image.depth is not None
    (losses["l1"] + losses["ssim"] + 0.1 * image.depth.mean() + 0.1 * image.alpha.mean()).backward()
    outputs = {"rgb": image.rgb, "alpha": image.alpha, "depth": image.depth, **losses}
    tensors = {**leaves, "pose": pose, "background": background, "probe": probe}
    outputs |= {f"v_{name}": tensor.grad for name, tensor in tensors.items() if tensor.grad is not None}
    optimiser.rows = image.visible
    optimiser.step()
    moments = {f"{name} moment": optimiser.moments[name][1] for name in leaves}
    return {name: value.detach() for name, value in (outputs | moments).items()}


@EACH_MADE
def test_a_training_step(made: Made) -> None:
    """The whole chain as the renderer calls it, against the CPU kernels in the same precision."""
    with on_the_cpu() as mode:
        got = rendered(made)
    assert {"project_backward", "composite_backward", "bin_tiles", "spherical_harmonics_backward"} <= mode.called
    for name, value in rendered(made).items():
        assert value.shape == got[name].shape
        assert relative_error([got[name]], [value.double()]) < 1e-4, name


@EACH_MADE
def test_contributions(made: Made) -> None:
    flat = flattened(made)
    splats = flat.means2d, flat.conics, flat.opacities
    shape = made.width, made.height
    expected = contributions(*splats, bin_tiles(flat, *shape), *shape)
    with on_the_cpu():
        got = contributions(*splats, bin_tiles(flat, *shape), *shape)
    torch.testing.assert_close(got, expected, rtol=2e-5, atol=1e-5)


def test_anchors_of_several_chunks() -> None:
    """More rows than one block sums the weights' gradients of, against the CPU kernels."""
    op = OPS["decode_anchors"]
    inputs = cast(op.draw("5 1 16", 0, 1500), torch.float32)
    assert len(inputs["rows"]) > 1024
    with on_the_cpu():
        got = evaluate_kernel(op, inputs)
    for name, value in evaluate_kernel(op, inputs).items():
        assert relative_error([got[name]], [value.double()]) < 1e-5, name


def test_culled_gaussians_have_no_gradient() -> None:
    """Zero, not what was in memory."""
    with on_the_cpu():
        got = rendered(MADE["all culled"])
    assert not any(got[f"v_{name}"].any() for name in ("means", "quats", "log_scales", "logit_opacities", "sh"))


@pytest.mark.parametrize("shape", [(45, 70, 3), (16, 16, 1), (17, 15, 2), (1, 2, 3)])
def test_photometric_gradient_weighs_both_terms(shape: tuple[int, int, int]) -> None:
    """Each with its own weight, with a mask; equal pixels have no L1 gradient."""
    g = generator(4)
    image, target = (uniform(g, 0, 1, *shape).float() for _ in range(2))
    mask = torch.rand(shape[:2], generator=g) < 0.8
    image[0, 0] = target[0, 0]
    mask[-1, -1], target[-1, -1] = False, torch.nan

    def gradient() -> torch.Tensor:
        leaf = image.clone().requires_grad_()
        l1, similarity = l1_and_ssim(leaf, target, mask)
        (0.7 * similarity - 1.3 * l1).backward()
        assert leaf.grad is not None
        return leaf.grad

    with on_the_cpu():
        got = gradient()
    assert relative_error([got], [gradient().double()]) < 1e-5


def test_the_ceilings_do_what_they_time() -> None:
    numbers = torch.arange(1000.0)
    with stand_in():
        copy, sink = torch.empty(1000), torch.empty(300)
        launch.run("copy_numbers", numbers, copy)
        launch.run("multiply_add", sink, 3)
    assert torch.equal(copy, numbers)
    assert torch.isfinite(sink).all()


def test_every_operation_has_a_cuda_implementation() -> None:
    defined = {
        name.split("::")[1].split(".")[0] for name in torch._C._dispatch_get_all_op_names() if "anchorfield" in name
    }
    assert {op._opoverload._schema.name.removeprefix("anchorfield::") for op in cuda.IMPLEMENTATIONS} == defined


# --------------------------------------------------------------------------------------------------------- bench/gpu
GPU_BENCHMARK = Path(__file__).parent.parent / "bench" / "gpu"


def test_the_benchmark_says_why_it_cannot_run() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    done = subprocess.run([sys.executable, str(GPU_BENCHMARK)], capture_output=True, text=True)
    assert done.returncode == 5
    assert re.search(r"no CUDA (kernels|device)", done.stderr)


def test_the_benchmark_runs() -> None:
    """On the stand-in, where its times mean nothing but its errors do."""
    benchmark = runpy.run_path(str(GPU_BENCHMARK / "__main__.py"))
    with on_the_cpu():
        found = benchmark["report"](torch.device("cpu"), 150, 40, 36, 1, 4096)
    assert len(benchmark["table"](json.loads(json.dumps(found))).splitlines()) == 2 + len(found["rows"])
    names = {row["name"] for row in found["rows"]}
    assert {"composite", "composite, backward", "bin_tiles", "training step"} <= names
    assert all(row["error"] is None or row["error"] < 1e-4 for row in found["rows"])
