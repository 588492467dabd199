"""What levels of detail save on a walk away from the scene, and what they change: `python -m bench.levels RUN`.

From each held-out view the camera walks backwards; the picture keeps its size. `all` is the same model with all levels
shown. `pop` is the most that any channel of a pixel changes where only the levels are those of two percent further
away, as from one frame of a walk to the next; `abrupt` is that without fading.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from anchorfield.app.run import Run
from anchorfield.methods._anchors import AnchorModel
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.metrics import psnr

DISTANCES = (1, 1.4, 2, 2.8, 4, 5.6, 8, 11.3, 16)  # from what the view shows, in those of the photograph
STEP = 1.02  # by how much further away the next frame is


def main() -> None:
    """Print a line for each distance: least and median over the views."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = Run.open(parser.parse_args().run)
    model, scene = run.model, run.scene
    if not isinstance(model, AnchorModel) or model.detail is None:
        parser.error(f"{run.path} has no levels of detail; train with --detail octree")
    cameras = [scene.views[index].camera for index in scene.test]
    depths = [depth_of(model, camera) for camera in cameras]
    print(f"{len(cameras)} views of {cameras[0].width}x{cameras[0].height}; PSNR: median (least)")
    print("distance   decoded       of all   least share   PSNR to all        pop   abrupt")
    for distance in DISTANCES:
        walked = [c.moved_back((distance - 1) * depth) for c, depth in zip(cameras, depths, strict=True)]
        print(line(model, distance, walked), flush=True)


@torch.no_grad()
def line(model: AnchorModel, distance: float, cameras: list[Camera]) -> str:
    """What is shown from these places."""
    counts, everything, scores, pops, abrupt = [], [], [], [], []
    for camera in cameras:
        near = model.render(camera).rgb
        counts.append(len(model.decoded(camera)[1].means))
        with shown_as_from(model, 0):
            everything.append(len(model.decoded(camera)[1].means))
            scores.append(psnr(near, model.render(camera).rgb))
        pops.append(change(model, camera))
        model.fading = False
        abrupt.append(change(model, camera))
        model.fading = True
    shares = [count / most for count, most in zip(counts, everything, strict=True) if most]
    return (
        f"{distance:8.1f} {statistics.median(counts):9,.0f} {statistics.median(everything):12,.0f}"
        f" {min(shares):13.2f} {statistics.median(scores):9.1f} ({min(scores):.1f}) {max(pops):8.3f} {max(abrupt):8.3f}"
    )


def change(model: AnchorModel, camera: Camera) -> float:
    """The most that any channel changes with the levels of the next frame."""
    before = model.render(camera).rgb
    with shown_as_from(model, STEP):
        return float((model.render(camera).rgb - before).abs().max())


@contextmanager
def shown_as_from(model: AnchorModel, factor: float) -> Iterator[None]:
    """Levels as if everything were `factor` times as far away; 0 shows all of them."""
    detail = model.detail
    assert detail is not None
    model.detail = torch.stack([detail[0] / factor, detail[1]])
    try:
        yield
    finally:
        model.detail = detail


@torch.no_grad()
def depth_of(model: AnchorModel, camera: Camera) -> float:
    """The median depth of what the view shows."""
    frame = model.render(camera)
    return float(frame.depth[frame.alpha > 0.5].median())


if __name__ == "__main__":
    main()
