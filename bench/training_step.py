"""Time of a training step on a trained scene, beside the multiply-add rate that the machine reaches in the same run.

    python bench/training_step.py CAPTURE [--gaussians N] [--steps N] [--downscale K ...]

Trains `gaussian_splatting` on CAPTURE at the first of the sizes, then times steps of that scene at every size: image,
forward, loss, backward, statistics and Adam, as `anchorfield train` runs them past the coarse phase. Milliseconds are
medians with the 10th and 90th percentile; "scaled" is the median times R / 515, R the measured rate in GFLOP/s, which
makes machines comparable. Without CAPTURE the sample capture is used.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from anchorfield import methods
from anchorfield.cuda_ext import native
from anchorfield.methods import Method, State
from anchorfield.scenes.load import load_scene
from anchorfield.scenes.scene import Scene
from anchorfield.scenes.triangulate import triangulated_points

REFERENCE_RATE = 515  # GFLOP/s of the machine that the scaled figures speak of
SAMPLE = Path(__file__).parent.parent / "assets" / "sample"


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


def step_times(method: Method, scene: Scene, state: State, count: int = 100) -> np.ndarray:
    """Milliseconds of `count` steps at 60 % of the budget, after every photograph has been decoded once."""
    for index in scene.train:
        scene.photo(index)
    times = []
    generator = method.fit(scene, {**state, "progress": 0.6})
    for _ in range(count + 5):
        begin = time.perf_counter()
        next(generator).progress = 0.6
        times.append(1000 * (time.perf_counter() - begin))
    return np.array(times[5:])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("capture", nargs="?", type=Path, default=SAMPLE)
    parser.add_argument("--gaussians", type=int, default=33000)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--downscale", type=int, nargs="+", default=[2, 1])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    native.keep_freed_memory()
    method = methods.load("gaussian_splatting")(cap=arguments.gaussians)  # type: ignore[call-arg]
    scene = with_points(load_scene(arguments.capture, downscale=arguments.downscale[0]))
    state = trained(method, scene, arguments.steps)
    print(f"{native.instruction_set()}, {native.threads()} threads, load {os.getloadavg()[0]:.1f}")
    for downscale in arguments.downscale:
        scene = load_scene(arguments.capture, downscale=downscale)
        before = native.fma_rate() / 1e9
        times = step_times(method, scene, state)
        rate = (before + native.fma_rate() / 1e9) / 2
        camera = scene.views[0].camera
        low, median, high = np.percentile(times, [10, 50, 90])
        print(
            f"{camera.width}x{camera.height}, {len(state['model']['means']):,} Gaussians: {median:.1f} ms "
            f"({low:.1f} to {high:.1f}), scaled {median * rate / REFERENCE_RATE:.1f} ms, R = {rate:.0f} GFLOP/s"
        )


if __name__ == "__main__":
    main()
