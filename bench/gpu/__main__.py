"""Every CUDA operation against the CPU's, its time, the card's floor for it, and gsplat's time where it is installed.

    python bench/gpu [--gaussians N] [--width W] [--height H] [--repeats R] [--output FILE]

On a made scene. "error" is the norm of the difference to the CPU's result over the norm of that, the worst of an
operation's results (of lists of pairs: the share that differs). "floor" is the larger of bytes that must move over the
bandwidth of a plain copy, and multiply-adds over their rate, both measured here. Times are medians in milliseconds.
Writes the same as JSON. Exits with 5 where there is no CUDA device or no CUDA build.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anchorfield.cuda_ext import native
from anchorfield.cuda_ext.adam import adam_step, adam_step_touched
from anchorfield.cuda_ext.anchors import Heads, decode_anchors
from anchorfield.cuda_ext.binning import Bins, bin_tiles
from anchorfield.cuda_ext.compositing import composite, contributions
from anchorfield.cuda_ext.cuda import launch
from anchorfield.cuda_ext.directions import spherical_harmonics_basis
from anchorfield.cuda_ext.hash_grid import HashGrid, hash_grid
from anchorfield.cuda_ext.langevin import perturb_means
from anchorfield.cuda_ext.marching import OccupancyLayout, march
from anchorfield.cuda_ext.mlp import MlpLayout, mlp
from anchorfield.cuda_ext.neighbours import Graph, aggregate_neighbours, graph_of
from anchorfield.cuda_ext.projection import Projected, project
from anchorfield.cuda_ext.rays import composite_rays, distortion
from anchorfield.cuda_ext.spherical_harmonics import spherical_harmonics
from anchorfield.cuda_ext.ssim import l1_and_ssim
from anchorfield.renderer.adam import Adam
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import MissingBackend
from anchorfield.renderer.losses import photometric
from anchorfield.renderer.neighbours import nearest_neighbours
from anchorfield.renderer.splatting import splat
from anchorfield.renderer.types import PARAMETERS, Gaussians

Arrays = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Work:
    """What an operation cannot do without."""

    numbers: float  # of four bytes, moved
    multiply_adds: float = 0.0

    def floor(self, bandwidth: float, rate: float) -> float:
        """Milliseconds at `bandwidth` numbers and `rate` multiply-adds per second."""
        return 1000 * max(self.numbers / bandwidth, self.multiply_adds / rate)


@dataclasses.dataclass(frozen=True)
class Case:
    """An operation with its inputs on the CPU."""

    name: str
    inputs: Arrays
    run: Callable[..., Sequence[Tensor]]  # inputs -> results
    forward: Work
    backward: Work | None = None
    gradients: tuple[str, ...] = ()


@dataclasses.dataclass
class Row:
    """A line of the table."""

    name: str
    error: float | None
    milliseconds: float
    floor: float | None = None
    gsplat: float | str | None = None


# -------------------------------------------------------------------------------------------------------- made scene
def made_scene(count: int, width: int, height: int) -> tuple[Gaussians, Camera]:
    """Gaussians of a few pixels all over the image, at depths of 2 to 10."""
    g = torch.Generator().manual_seed(0)
    focal = 0.8 * width
    camera = Camera(torch.eye(4), focal, focal, width / 2, height / 2, width, height)
    z = torch.rand(count, generator=g) * 8 + 2
    x = (torch.rand(count, generator=g) - 0.5) * 1.1 * width * z / focal
    y = (torch.rand(count, generator=g) - 0.5) * 1.1 * height * z / focal
    log_scales = (4 * z / focal).log()[:, None] + torch.randn(count, 3, generator=g) * 0.7 - 0.7
    opacities = torch.randn(count, generator=g) * 1.5 - 1
    sh = torch.randn(count, 16, 3, generator=g) * 0.2
    quats = torch.randn(count, 4, generator=g)
    return Gaussians(torch.stack([x, y, z], -1), log_scales, quats, opacities, sh), camera


def shape_of(camera: Camera) -> dict[str, Any]:
    """The camera's numbers as `project` takes them."""
    return {name: getattr(camera, name) for name in ("fx", "fy", "cx", "cy", "width", "height")}


def cases(scene: Gaussians, camera: Camera) -> list[Case]:
    """Every operation, each with inputs that the CPU's operations before it made."""
    n, w, h = len(scene), camera.width, camera.height
    g = torch.Generator().manual_seed(1)
    solid = {"means": scene.means, "quats": scene.quats, "scales": scene.log_scales.exp()}
    solid |= {"opacities": scene.logit_opacities.sigmoid(), "world_to_camera": camera.world_to_camera}
    whole: dict[str, Any] = {**solid, **shape_of(camera)}
    flat = project(**whole)
    colour = {"sh": scene.sh, "means": scene.means, "centre": camera.centre, "visible": flat.visible}
    bins = bin_tiles(flat, w, h)
    pairs, touched = len(bins.gaussians), pixels_touched(bins)
    flat_arrays = flat._asdict()
    splats = {name: flat_arrays[name] for name in ("means2d", "conics", "opacities")}
    blended = {**splats, "features": torch.rand(n, 3, generator=g), "background": torch.rand(3, generator=g)}
    blended |= bins._asdict()
    photo = {"image": torch.rand(h, w, 3, generator=g), "target": torch.rand(h, w, 3, generator=g)}
    moving = {name: torch.rand(n, 48, generator=g) for name in ("parameter", "gradient", "moment1", "moment2")}
    noise = {"means": scene.means, "quats": scene.quats, "log_scales": scene.log_scales}
    noise |= {"logit_opacities": scene.logit_opacities}
    all_solid, images = tuple(solid), 3 * w * h
    return [
        Case("project", solid, run_project(camera), Work(20 * n, 150 * n), Work(31 * n, 400 * n), all_solid),
        Case("spherical_harmonics", colour, run_colours, Work(54 * n, 80 * n), Work(105 * n, 200 * n), ("sh", "means")),
        # Half of ten Gaussians of an anchor are kept: 15 numbers each, and 22 backward.
        Case(
            "decode_anchors",
            made_anchors(n),
            run_decoding,
            Work(146 * n, 6976 * n),
            Work(249 * n, 13568 * n),
            ("features", "offsets", "log_scales", "hidden", "opacity", "covariance", "colour", "colour_bias"),
        ),
        # Two passes over the pairs' keys and numbers, and the lists that come out.
        Case("bin_tiles", flat_arrays, run_bins(camera), Work(9 * n + 10 * pairs, 100 * pairs)),
        Case(
            "composite",
            blended,
            run_composite(camera),
            Work(9 * pairs + images, 15 * touched),
            Work(18 * pairs + 2 * images, 40 * touched),
            ("means2d", "conics", "opacities", "features"),
        ),
        Case("contributions", {**splats, **bins._asdict()}, run_contributions(camera), Work(7 * pairs, 24 * touched)),
        Case("photometric", photo, run_photometric, Work(5 * images, 100 * images), Work(6 * images), ("image",)),
        Case("adam_step", moving, run_adam, Work(7 * 48 * n)),
        Case("perturb_means", noise, run_noise, Work(14 * n, 190 * n)),
        *neural_cases(scene.means),
        *ray_cases(n),
        *field_cases(n),
    ]


def neural_cases(points: Tensor) -> list[Case]:
    """Hash grid at random positions, its largest levels about as long as the list of points; their graph."""
    n, g = len(points), torch.Generator().manual_seed(4)
    layout = HashGrid.up_to(2048, log2_table_size=min(max(n.bit_length(), 8), 19))
    table = torch.randn(layout.rows, layout.features, generator=g)
    graph = graph_of(*nearest_neighbours(points, 10))
    features = {"features": torch.randn(n, 32, generator=g), **graph._asdict()}
    encoding, samples = n * (3 + layout.size), n * layout.levels
    return [
        Case(
            "hash_grid",
            {"positions": torch.rand(n, 3, generator=g), "table": table},
            lambda **inputs: [hash_grid(**inputs, layout=layout)],
            Work(encoding + table.numel(), 60 * samples),
            Work(encoding + 2 * table.numel() + 6 * n, 160 * samples),
            ("positions", "table"),
        ),
        Case(
            "aggregate_neighbours",
            features,
            lambda features, **graph: [aggregate_neighbours(features, Graph(**graph))],
            Work(3 * 32 * n + 30 * n, 2 * 320 * n),
            Work(3 * 32 * n + 30 * n, 2 * 320 * n),
            ("features",),
        ),
    ]


def ray_cases(n: int) -> list[Case]:
    """Rays through a grid of which blocks of 2x2x2 voxels, 5 % in all, are occupied."""
    g = torch.Generator().manual_seed(5)
    layout = OccupancyLayout()
    origins = 0.5 + 1.5 * torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=1)
    directions = torch.nn.functional.normalize(torch.rand(n, 3, generator=g) - origins, dim=1)
    rays: dict[str, Any] = {"origins": origins, "directions": directions, "jitter": torch.rand(n, generator=g)}
    rays |= {"near": torch.zeros(n), "far": torch.full((n,), torch.inf)}
    rays |= {"bits": (torch.rand(1, layout.cells // 8, generator=g) < 0.05).byte() * 255}
    samples = march(**rays, layout=layout)
    s = len(samples.t0)
    packed = {"optical": torch.rand(s, generator=g) * 0.1, "values": torch.rand(s, 4, generator=g)}
    apart = {"weights": torch.rand(s, generator=g) * 0.1, "t0": samples.t0, "t1": samples.t1}

    def run_march(**inputs: Any) -> Sequence[Tensor]:
        # sums, because a step on the border of two voxels may be here and not there
        found = march(**inputs, layout=layout)
        return [found.t0.sum(), found.t1.sum()]

    return [
        Case("march", rays, run_march, Work(3 * s + 10 * n, 30 * s)),
        Case(
            "composite_rays",
            {**packed, "starts": samples.starts},
            lambda **inputs: list(composite_rays(**inputs)),
            Work(6 * s + 6 * n, 24 * s),
            Work(12 * s + 7 * n, 16 * s),
            ("optical", "values"),
        ),
        Case(
            "distortion",
            {**apart, "starts": samples.starts},
            lambda **inputs: [distortion(**inputs)],
            Work(3 * s + 2 * n, 8 * s),
            Work(4 * s + 2 * n, 16 * s),
            ("weights",),
        ),
    ]


def field_cases(count: int) -> list[Case]:
    """Perceptrons of density and colour, the basis of directions, and a table of which a tenth is touched."""
    g = torch.Generator().manual_seed(5)
    cases = []
    for name, layout in {"density": MlpLayout(32, 16), "colour": MlpLayout(32, 3, hidden=2)}.items():
        arrays = {"inputs": torch.randn(count, 32, generator=g), "weights": layout.initial(g)}
        passing, products = (32 + layout.outputs) * count, layout.size * count
        works = Work(passing, products), Work(passing + 32 * count, 2 * products)

        def run(at: MlpLayout = layout, **inputs: Tensor) -> Sequence[Tensor]:
            return [mlp(**inputs, layout=at)]

        cases.append(Case(f"mlp, {name}", arrays, run, *works, ("inputs", "weights")))
    axes = {"directions": torch.nn.functional.normalize(torch.randn(count, 3, generator=g))}
    works = Work(19 * count, 40 * count), Work(22 * count, 110 * count)
    cases.append(Case("harmonics_basis", axes, run_basis, *works, ("directions",)))
    table = {name: torch.rand(8 * count, 2, generator=g) for name in ("parameter", "gradient", "moment1", "moment2")}
    table["gradient"] *= torch.rand(8 * count, 2, generator=g) < 0.1
    table["counts"] = torch.randint(0, 100, (8 * count, 2), generator=g, dtype=torch.int16)
    cases.append(Case("adam_step_touched", table, run_adam_touched, Work(16 * count * (1 + 0.1 * 7))))
    return cases


def made_anchors(count: int) -> Arrays:
    """Anchors and heads as Scaffold-GS has them, all in view; logits of opacity stay off zero, where a sign decides."""
    g = torch.Generator().manual_seed(4)

    def normal(scale: float, *shape: int) -> Tensor:
        return scale * torch.randn(*shape, generator=g)

    arrays = {"anchors": normal(1, count, 3), "features": normal(1, count, 32), "offsets": normal(1, count, 10, 3)}
    arrays |= {"log_scales": normal(1, count, 6), "hidden": normal(0.2, 96, 36), "hidden_bias": normal(0.1, 96)}
    arrays |= {"opacity": normal(0.02, 10, 32), "opacity_bias": 3 * (-1.0) ** torch.arange(10)}
    arrays |= {"covariance": normal(0.2, 70, 32), "covariance_bias": normal(0.1, 70)}
    arrays |= {"colour": normal(0.2, 30, 32), "colour_bias": normal(0.1, 30)}
    return {**arrays, "centre": torch.zeros(3), "rows": torch.arange(count, dtype=torch.int32)}


def pixels_touched(bins: Bins) -> int:
    """Pixels in the blocks that all pairs name: what compositing has to look at unless it stops early."""
    masks = bins.blocks.to(torch.int32)
    return 16 * sum(int(((masks >> bit) & 1).sum()) for bit in range(16))


# -------------------------------------------------------------------------------------------------------- operations
def run_project(camera: Camera) -> Callable[..., Sequence[Tensor]]:
    """Projection; extents last, they carry no gradient."""
    return lambda **inputs: project(**inputs, **shape_of(camera))


def run_colours(**inputs: Tensor) -> Sequence[Tensor]:
    """Colours of degree 3."""
    return [spherical_harmonics(**inputs, degree=3)]


def run_decoding(**inputs: Tensor) -> Sequence[Tensor]:
    """Decoded Gaussians."""
    weights = {name: inputs.pop(name) for name in Heads._fields if name in inputs}
    return list(decode_anchors(**inputs, heads=Heads(**weights, middle=None, middle_bias=None)))


def run_bins(camera: Camera) -> Callable[..., Sequence[Tensor]]:
    """The lists of pairs, blocks as int32, which more of torch knows."""

    def run(**inputs: Tensor) -> Sequence[Tensor]:
        bins = bin_tiles(Projected(**inputs), camera.width, camera.height)
        return [t.view(torch.int16) if t.dtype == torch.uint16 else t for t in bins]

    return run


def run_composite(camera: Camera) -> Callable[..., Sequence[Tensor]]:
    """Image and alpha."""
    size: Any = {"width": camera.width, "height": camera.height}

    def run(features: Tensor, background: Tensor, **inputs: Any) -> Sequence[Tensor]:
        bins = Bins(*[inputs.pop(name) for name in Bins._fields])
        return composite(**inputs, features=features, bins=bins, background=background, **size)

    return run


def run_contributions(camera: Camera) -> Callable[..., Sequence[Tensor]]:
    """Blend weights."""

    def run(means2d: Tensor, conics: Tensor, opacities: Tensor, **bins: Tensor) -> Sequence[Tensor]:
        return [contributions(means2d, conics, opacities, Bins(**bins), camera.width, camera.height)]

    return run


def run_photometric(**inputs: Tensor) -> Sequence[Tensor]:
    """Mean absolute difference and mean SSIM."""
    return list(l1_and_ssim(**inputs))


def run_adam(parameter: Tensor, gradient: Tensor, moment1: Tensor, moment2: Tensor) -> Sequence[Tensor]:
    """A step on copies, which is why the caller takes their time off."""
    changed = [t.clone() for t in (parameter, moment1, moment2)]
    adam_step([changed[0]], [gradient], [changed[1]], [changed[2]], lr=[1e-3], step=10)
    return changed


def run_adam_touched(counts: Tensor, **inputs: Tensor) -> Sequence[Tensor]:
    """As `run_adam`, of what the gradient touches."""
    gradient = inputs.pop("gradient")
    parameter, moment1, moment2, after = (t.clone() for t in (*inputs.values(), counts))
    adam_step_touched([parameter], [gradient], [moment1], [moment2], [after], lr=[1e-3])
    return [parameter, moment1, moment2, after]


def run_basis(directions: Tensor) -> Sequence[Tensor]:
    """The basis of degree 3."""
    return [spherical_harmonics_basis(directions, 3)]


def run_noise(means: Tensor, **inputs: Tensor) -> Sequence[Tensor]:
    """Means moved by the exploration noise."""
    changed = means.clone()
    perturb_means(changed, **inputs, strength=1.0, seed=1)
    return [changed]


# ----------------------------------------------------------------------------------------------------------- measures
def median_time(function: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Milliseconds of one call, the median of `repeats` after three to warm up."""
    times = []
    for _ in range(repeats + 3):
        if device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            function()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end))
        else:
            start = time.perf_counter()
            function()
            times.append(1000 * (time.perf_counter() - start))
    return float(sorted(times[3:])[repeats // 2])


def error(got: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The worst relative difference of the results."""
    worst = 0.0
    for value, truth in zip(got, expected, strict=True):
        if value.shape != truth.shape:
            return float("inf")
        if truth.dtype.is_floating_point:
            difference = (value.cpu().double() - truth.double()).norm() / truth.double().norm().clamp_min(1e-30)
        else:
            difference = (value.cpu() != truth).double().mean() if truth.numel() else torch.zeros(())
        worst = max(worst, float(difference))
    return worst


def floors(device: torch.device, repeats: int, numbers: int = 1 << 26) -> tuple[float, float]:
    """Numbers of four bytes moved and multiply-adds done by the card in a second."""
    source = torch.zeros(numbers, device=device)
    target, sink = torch.empty_like(source), torch.empty(numbers // 16, device=device)
    rounds = 64
    copying = median_time(lambda: launch.run("copy_numbers", source, target), device, repeats)
    adding = median_time(lambda: launch.run("multiply_add", sink, rounds), device, repeats)
    return 2 * numbers / copying * 1000, len(sink) * 32 * rounds / adding * 1000


def start(case: Case, device: torch.device) -> tuple[Arrays, Sequence[Tensor], list[Tensor]]:
    """Inputs on the device with gradients asked for, the results, and a gradient to each that has one."""
    inputs = {name: value.detach().to(device) for name, value in case.inputs.items()}
    for name in case.gradients:
        inputs[name].requires_grad_()
    results = case.run(**inputs)
    g = torch.Generator().manual_seed(2)
    return inputs, results, [torch.randn(t.shape, generator=g).to(device) for t in results if t.requires_grad]


def gradients_of(case: Case, inputs: Arrays, results: Sequence[Tensor], starts: list[Tensor]) -> tuple[Tensor, ...]:
    """Gradients to the case's inputs; can be asked for again."""
    ends = [t for t in results if t.requires_grad]
    return torch.autograd.grad(ends, [inputs[name] for name in case.gradients], starts, retain_graph=True)


def measured(case: Case, device: torch.device, repeats: int, rates: tuple[float, float]) -> list[Row]:
    """Rows of the case: forward, and backward where there is one."""
    expected, got = start(case, torch.device("cpu")), start(case, device)
    outputs = [t.detach() for t in got[1]]
    forward = median_time(lambda: case.run(**got[0]), device, repeats)
    rows = [Row(case.name, error(outputs, [t.detach() for t in expected[1]]), forward, case.forward.floor(*rates))]
    if case.backward:
        wrong = error(gradients_of(case, *got), gradients_of(case, *expected))
        backward = median_time(lambda: gradients_of(case, *got), device, repeats)
        rows.append(Row(f"{case.name}, backward", wrong, backward, case.backward.floor(*rates)))
    return rows


class Training:
    """The training step that is timed: forward, loss, backward, sparse Adam."""

    def __init__(self, scene: Gaussians, camera: Camera, device: torch.device):
        self.leaves: dict[str, Any] = {name: torch.nn.Parameter(getattr(scene, name).to(device)) for name in PARAMETERS}
        self.camera, self.background = camera.to(device), torch.zeros(3, device=device)
        photo = torch.rand(camera.height, camera.width, 3, generator=torch.Generator().manual_seed(3))
        self.photo = photo.to(device)
        self.adam = Adam(self.leaves, dict.fromkeys(self.leaves, 0.0))  # nothing moves: every step is the same

    def loss(self) -> Tensor:
        """Of a fresh image; remembers who was seen."""
        image = splat(Gaussians(**self.leaves), self.camera, self.background, depth=False)
        self.adam.rows = image.visible
        terms = photometric(image.rgb, self.photo)
        return terms["l1"] + terms["ssim"]

    def step(self) -> None:
        """One whole step."""
        self.adam.zero_grad()
        self.loss().backward()
        self.adam.step()

    def gradients(self) -> list[Tensor]:
        """Of a step from the parameters as they are."""
        return list(torch.autograd.grad(self.loss(), list(self.leaves.values())))


def training_rows(scene: Gaussians, camera: Camera, device: torch.device, repeats: int) -> list[Row]:
    """Image alone and the whole step, both also with gsplat."""
    ours, reference = Training(scene, camera, device), Training(scene, camera, torch.device("cpu"))
    wrong = error(ours.gradients(), reference.gradients())

    @torch.no_grad()
    def image() -> None:
        splat(Gaussians(**ours.leaves), ours.camera, ours.background, depth=False)

    rows = [
        Row("render", None, median_time(image, device, repeats)),
        Row("training step", wrong, median_time(ours.step, device, repeats)),
    ]
    peers = gsplat_times(ours, device, repeats)
    for row in rows:
        row.gsplat = peers.get(row.name)
    return rows


# -------------------------------------------------------------------------------------------------------------- gsplat
def gsplat_times(ours: Training, device: torch.device, repeats: int) -> Mapping[str, float | str]:
    """Milliseconds of gsplat for the same image and step, with our loss and Adam; or why it failed."""
    try:
        from gsplat import rasterization
    except ImportError:
        return {}

    def image() -> tuple[Tensor, Any]:
        p, c = ours.leaves, ours.camera
        rendered, _, info = rasterization(
            p["means"],
            p["quats"],
            p["log_scales"].exp(),
            p["logit_opacities"].sigmoid(),
            p["sh"],
            c.world_to_camera[None],
            c.K.to(device)[None],
            c.width,
            c.height,
            sh_degree=3,
            packed=False,
            backgrounds=ours.background[None],
        )
        return rendered[0], info

    def step() -> None:
        ours.adam.zero_grad()
        rendered, info = image()
        terms = photometric(rendered, ours.photo)
        (terms["l1"] + terms["ssim"]).backward()
        ours.adam.rows = (info["radii"].reshape(1, len(ours.leaves["means"]), -1) > 0).all(-1)[0]
        ours.adam.step()

    try:
        with torch.no_grad():
            render = median_time(image, device, repeats)
        return {"render": render, "training step": median_time(step, device, repeats)}
    except Exception as reason:  # another version's interface: the other figures still stand
        return dict.fromkeys(("render", "training step"), f"failed: {type(reason).__name__}: {reason}")


# --------------------------------------------------------------------------------------------------------------- report
def report(
    device: torch.device, count: int, width: int, height: int, repeats: int, floor_numbers: int
) -> dict[str, Any]:
    """Everything that is measured, ready for JSON."""
    scene, camera = made_scene(count, width, height)
    rates = floors(device, repeats, floor_numbers)
    rows = [row for case in cases(scene, camera) for row in measured(case, device, repeats, rates)]
    rows += training_rows(scene, camera, device, repeats)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "stand-in",
        "torch": torch.__version__,
        "gaussians": count,
        "size": [width, height],
        "copy_gigabytes_per_second": 4 * rates[0] / 1e9,
        "multiply_add_gigaflops": 2 * rates[1] / 1e9,
        "rows": [dataclasses.asdict(row) for row in rows],
    }


def table(found: Mapping[str, Any]) -> str:
    """The report as text."""
    lines = [
        f"{found['device']}: {found['copy_gigabytes_per_second']:.0f} GB/s copying, "
        f"{found['multiply_add_gigaflops']:.0f} GFLOP/s, {found['gaussians']:,} Gaussians, "
        f"{found['size'][0]}x{found['size'][1]}",
        f"{'operation':<32}{'error':>10}{'ms':>10}{'floor':>10}{'of floor':>10}{'gsplat':>10}",
    ]
    for row in found["rows"]:
        wrong = "" if row["error"] is None else f"{row['error']:.1e}"
        floor = "" if row["floor"] is None else f"{row['floor']:.3f}"
        share = "" if not row["floor"] else f"{row['milliseconds'] / row['floor']:.1f}x"
        peer = f"{row['gsplat']:.3f}" if isinstance(row["gsplat"], float) else row["gsplat"] or ""
        lines.append(f"{row['name']:<32}{wrong:>10}{row['milliseconds']:>10.3f}{floor:>10}{share:>10}{peer:>10}")
    return "\n".join(lines)


def the_device() -> torch.device:
    """The current CUDA device; raises MissingBackend where nothing can be measured."""
    if not native.cuda_built():
        raise MissingBackend(
            "this build holds no CUDA kernels: with nvcc at hand, "
            'CMAKE_ARGS="-DANCHORFIELD_CUDA=ON -DANCHORFIELD_CUDA_ARCHITECTURES=native" make --always-make setup'
        )
    if not torch.cuda.is_available():
        raise MissingBackend("torch finds no CUDA device: a card, its driver and a CUDA build of torch are needed")
    return torch.device("cuda", torch.cuda.current_device())


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gaussians", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=1920)
    parser.add_argument("--height", type=int, default=1080)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--output", type=Path, default=Path("bench-gpu.json"))
    arguments = parser.parse_args()
    try:
        device = the_device()
    except MissingBackend as reason:
        print(f"bench/gpu: {reason}", file=sys.stderr)
        return reason.exit_code
    found = report(device, arguments.gaussians, arguments.width, arguments.height, arguments.repeats, 1 << 26)
    print(table(found))
    arguments.output.write_text(json.dumps(found, indent=1) + "\n")
    print(f"written to {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
