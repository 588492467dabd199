"""A step of training as `anchorfield train` runs it past the coarse phase: image, loss, gradients, statistics, Adam.

Run as a program it trains a capture first (the bundled one where none is given) and measures on the result:

    python -m bench.training_step [CAPTURE] [--gaussians N] [--steps N] [--downscale K ...]
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch

from anchorfield import methods
from anchorfield.methods import Method, State
from anchorfield.renderer.types import PARAMETERS, Gaussians
from anchorfield.scenes.load import load_scene
from anchorfield.scenes.scene import Scene
from anchorfield.scenes.triangulate import triangulated_points
from bench import _table, adam, binning, compositing, langevin, loss, projection, spherical_harmonics
from bench._machine import one_torch_thread
from bench._operations import Operation, Stages
from bench._scenes import Made, as_capture
from bench.image import image

SAMPLE = Path(__file__).parent.parent / "assets" / "sample"
GROUPS = (projection, spherical_harmonics, binning, compositing, loss, adam, langevin)
PROGRESS = 0.6  # of the budget: full size, all harmonics, the cap reached
STANDSTILL = 1e-12  # learning rate: the scene that is measured stays the same


def operations(stages: Stages) -> Iterator[Operation]:
    """One step of `gaussian_splatting` with its default strategy."""
    parts = tuple(part for group in GROUPS for part in group.operations(stages))
    generator = steps(stages)
    yield Operation("training step", lambda: next(generator), evaluations=stages.evaluations, parts=parts)


def alone(stages: Stages) -> Iterator[Operation]:
    """The step without its parts and their floors, whose own scenes would take more memory than the step."""
    generator = steps(stages)
    yield Operation("training step", lambda: next(generator))


def steps(stages: Stages) -> Iterator[object]:
    """Endless steps at one progress on one photograph that change nothing that matters."""
    gaussians = stages.made.gaussians
    with torch.no_grad():
        photo = image(stages)
    photo += 0.05 * torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))
    method = methods.load("gaussian_splatting")(cap=len(gaussians))  # type: ignore[call-arg]
    still = {field.name: STANDSTILL for field in dataclasses.fields(method.rates)}  # type: ignore[attr-defined]
    method = dataclasses.replace(method, rates=dataclasses.replace(method.rates, **still))  # type: ignore[type-var, attr-defined]
    for fit in method.fit(as_capture(stages.made, photo), _state(gaussians, len(gaussians))):
        fit.progress = PROGRESS
        yield fit


def _state(gaussians: Gaussians, cap: int) -> State:
    """A checkpoint with these Gaussians and moments of zero."""
    model = {name: getattr(gaussians, name).detach() for name in PARAMETERS}
    moments = {name: {"1": torch.zeros_like(value), "2": torch.zeros_like(value)} for name, value in model.items()}
    return {
        "model": {**model, "background": torch.zeros(3)},
        "optimiser": {"count": 1000, "moments": moments},
        "random": torch.Generator().manual_seed(0).get_state(),
        "step": 1,
        "progress": PROGRESS,
        "memory": {"cap": cap, "extent": 1.0},
    }


def with_points(scene: Scene) -> Scene:
    """The scene with triangulated points where the capture brings none."""
    if scene.points is not None:
        return scene
    with tempfile.TemporaryDirectory() as folder:
        return dataclasses.replace(scene, points=triangulated_points(scene, Path(folder) / "points.npz"))


def trained(method: Method, scene: Scene, steps: int) -> State:
    """The state after a whole run of `steps`."""
    for fit in islice(method.fit(scene), steps):
        fit.progress = fit.step / steps
    return fit.state()


def trained_scenes(capture: Path, gaussians: int, steps: int, downscales: list[int]) -> list[Made]:
    """A capture trained at the first of the sizes, seen by its first held-out camera at each."""
    method = methods.load("gaussian_splatting")(cap=gaussians)  # type: ignore[call-arg]
    scene = with_points(load_scene(capture, downscale=downscales[0]))
    model = trained(method, scene, steps)["model"]
    found = Gaussians(**{name: model[name].detach().clone() for name in PARAMETERS})
    captures = [load_scene(capture, downscale=downscale) for downscale in downscales]
    return [Made(found, c.views[(c.test or c.train)[0]].camera) for c in captures]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("capture", nargs="?", type=Path, default=SAMPLE)
    parser.add_argument("--gaussians", type=int, default=33000)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--downscale", type=int, nargs="+", default=[2, 1])
    arguments = parser.parse_args()
    one_torch_thread()
    scenes = trained_scenes(arguments.capture, arguments.gaussians, arguments.steps, arguments.downscale)
    _table.show([operations], [(f"trained {arguments.capture.name}", made) for made in scenes])


if __name__ == "__main__":
    main()
