"""What decoding costs of a frame, and a round of growth, as anchors get more: `python -m bench.anchor_frames RUN`.

The anchors of a trained run of scaffold_gs are repeated nearby with Gaussians as much smaller as cover the same
surface, until a held-out view shows about as many as asked for.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from anchorfield.app.run import Run
from anchorfield.methods._anchors import ROWS, AnchorModel, anchor_model
from anchorfield.methods._growth import Growth
from anchorfield.methods._method import Fit
from anchorfield.methods.scaffold_gs import ScaffoldGs
from anchorfield.renderer.adam import Adam
from anchorfield.renderer.cameras import Camera
from bench._timing import seconds_of

IN_VIEW = (10_000, 30_000, 100_000)
GROWING = (10_000, 100_000, 1_000_000)
WANTED = 0.02  # of the Gaussians want an anchor beside them, as in a round of a usual run
RUNS = 5


def main() -> None:
    """Two tables: frames of the first held-out view, and rounds of growth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = Run.open(parser.parse_args().run)
    method, model = run.job.settings, run.model
    if not isinstance(method, ScaffoldGs) or not isinstance(model, AnchorModel):
        parser.error(f"{run.path} is not a run of scaffold_gs")
    camera = run.scene.views[run.scene.test[0]].camera
    share = int(model.decoded(camera)[0].sum()) / len(model.anchors)
    print(f"{camera.width}x{camera.height}, {torch.get_num_threads()} threads, median of {RUNS}")
    print("  in view  Gaussians   decoding      frame   share")
    for count in IN_VIEW:
        print(frame(repeated(method, model, round(count / share)), camera), flush=True)
    print("  anchors      added      round   of an anchor")
    for count in GROWING:
        print(grown(method, model, count), flush=True)


def frame(model: AnchorModel, camera: Camera) -> str:
    """Decoding, and the whole frame it is part of."""
    seen, decoded = model.eval().decoded(camera)
    part = median_of(lambda: model.decoded(camera))
    whole = median_of(lambda: model.render(camera))
    count, gaussians = int(seen.sum()), len(decoded.means)
    return f"{count:9,} {gaussians:10,} {1000 * part:7.1f} ms {1000 * whole:7.1f} ms {part / whole:7.2f}"


def grown(method: ScaffoldGs, model: AnchorModel, count: int) -> str:
    """A round in which a fiftieth of the Gaussians wants an anchor."""
    seconds, added = [], 0
    for _ in range(RUNS):
        fit = before_a_round(repeated(method, model, count), method.growth)
        seconds.append(seconds_of(partial(method.growth.round, fit, 2 * count)))
        added = len(anchor_model(fit).anchors) - count
    middle = statistics.median(seconds)
    return f"{count:9,} {added:10,} {1000 * middle:7.1f} ms {1e6 * middle / count:9.2f} us"


def before_a_round(model: AnchorModel, growth: Growth) -> Fit:
    """A run with statistics that want anchors here and there."""
    random = torch.Generator().manual_seed(0)
    count, offsets = model.offsets.shape[:2]
    steps = torch.full((count * offsets,), float(growth.every))
    wants = torch.rand(count * offsets, generator=random) < WANTED
    memory = {
        "voxel": float(model.log_scales[:, :3].detach().exp().median()) / 4,
        "gradient_sum": 4 * growth.threshold * steps * wants,
        "gradient_count": steps,
        "opacity_sum": torch.ones(count),
        "seen_count": torch.full((count,), float(growth.every)),
    }
    return Fit(model, Adam(dict(model.named_parameters()), {}, by_row=ROWS), random, memory=memory)


@torch.no_grad()
def repeated(method: ScaffoldGs, model: AnchorModel, count: int) -> AnchorModel:
    """A model of `count` anchors that shows about the same."""
    random = torch.Generator().manual_seed(0)
    rows = torch.arange(count) * len(model.anchors) // count
    if count < len(model.anchors):
        rows = torch.randperm(len(model.anchors), generator=random)[:count].sort().values
    smaller = 0.5 * math.log(len(model.anchors) / count)  # as many as share a surface
    around = model.log_scales[rows, :3].exp() * torch.randn(count, 3, generator=random)
    tensors = {**model.state_dict(), "anchors": model.anchors[rows] + around}
    tensors |= {"features": model.features[rows], "offsets": model.offsets[rows]}
    tensors |= {"log_scales": model.log_scales[rows] + smaller}
    return method.restore({"model": tensors})


def median_of(call: Callable[[], object]) -> float:
    """Seconds of a call."""
    call()  # the first prepares
    return statistics.median(seconds_of(call) for _ in range(RUNS))


if __name__ == "__main__":
    main()
