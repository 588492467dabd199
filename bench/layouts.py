"""Which pixels to put into one vector, and how large tiles should be: counted on a scene, whatever the kernels do.

    python -m bench.layouts [--state STATE --capture CAPTURE [--downscale K ...]] [--gaussians N --size WxH]

Counts in millions: vectors of 16 pixels that hold any pixel that blends, the share of their lanes that do; pairs of a
tile and a Gaussian, and the lanes of a kernel that evaluates whole tiles.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from anchorfield.renderer.splatting import flattened
from anchorfield.renderer.types import PARAMETERS, Gaussians
from anchorfield.scenes.load import load_scene
from bench import _lanes, _table
from bench._machine import one_torch_thread
from bench._scenes import Made, made

VIEWS = 7  # held-out views at most that are averaged


def counted(scenes: list[Made]) -> dict[str, float]:
    """Mean counts over scenes."""
    totals = [_lanes.counts(flattened(s.gaussians, s.camera), s.camera.width, s.camera.height) for s in scenes]
    return {name: sum(total[name] for total in totals) / len(totals) for name in totals[0]}


def lines(total: dict[str, float]) -> list[str]:
    """Two small tables: shapes of vectors, and sizes of tiles."""
    shares = _lanes.useful(total)
    rows = [f"blends {total['blends'] / 1e6:.2f} M, reached without the opaque stop {total['reached'] / 1e6:.2f} M"]
    for shape, share in shares.items():
        rows.append(
            f"vector {shape:>5}: {total[f'vectors {shape}'] / 1e6:6.3f} M vectors, {share:4.0%} of lanes useful"
        )
    for side in _lanes.TILES:
        pairs, whole, stopped = (total[f"{name} {side}"] / 1e6 for name in ("pairs", "evaluations", "stopped"))
        rows.append(f"tile {side:>2}: {pairs:7.3f} M pairs, {whole:7.2f} M evaluations, {stopped:7.2f} M with the stop")
    return rows


def _trained(state: Path, capture: Path, downscale: int) -> list[Made]:
    model = torch.load(state, weights_only=True)["model"]
    gaussians = Gaussians(**{name: model[name] for name in PARAMETERS})
    scene = load_scene(capture, downscale=downscale)
    return [Made(gaussians, scene.views[index].camera) for index in scene.test[:VIEWS]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--state", type=Path, help="a checkpoint's state written by torch.save")
    parser.add_argument("--capture", type=Path)
    parser.add_argument("--downscale", type=int, nargs="+", default=[4, 2])
    parser.add_argument("--gaussians", type=int, default=23_300)
    parser.add_argument("--size", type=_table.size, nargs="+", default=[(270, 480), (540, 960)])
    arguments = parser.parse_args()
    one_torch_thread()
    if arguments.state:
        scenes = [_trained(arguments.state, arguments.capture, downscale) for downscale in arguments.downscale]
    else:
        scenes = [[made(arguments.gaussians, *size)] for size in arguments.size]
    for group in scenes:
        camera = group[0].camera
        print(f"\n{camera.width}x{camera.height}, {len(group[0].gaussians):,} Gaussians, mean of {len(group)} views")
        print("\n".join(lines(counted(group))), flush=True)


if __name__ == "__main__":
    main()
