"""All operations on all sizes in one table, with the peers that are installed: `make bench`.

    python -m bench [--size WxH ...] [--gaussians N ...] [--no-trained] [--json FILE]

Every scene is measured in a process of its own. What does not fit into the free memory is left out, and named.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench import (
    _machine,
    _peers,
    _table,
    adam,
    anchors,
    binning,
    compositing,
    hash_grid,
    image,
    langevin,
    loss,
    memory,
    mlp,
    neighbours,
    projection,
    rays,
    spherical_harmonics,
    training_step,
)
from bench._operations import Stages
from bench._scenes import Made, made

GROUPS = (
    projection,
    spherical_harmonics,
    anchors,
    binning,
    compositing,
    loss,
    adam,
    langevin,
    image,
    training_step,
    hash_grid,
    neighbours,
    rays,
    mlp,
)
SIZES = [(270, 480), (540, 960), (1080, 1920)]
COUNTS = [10_000, 100_000, 500_000, 1_000_000]
PEER_GAUSSIANS, PEER_PIXELS = 100_000, 540 * 960  # at most: peers take minutes beyond
TRAINED_STEPS, TRAINED_GAUSSIANS = 1000, 33_000


def main() -> None:
    arguments = _arguments()
    _machine.one_torch_thread()
    if arguments.scene:
        count, width, height = map(int, arguments.scene.split(","))
        print(json.dumps(_scene(f"made {count:,} {width}x{height}", made(count, width, height), arguments.rounds)))
        return
    begin, results = time.perf_counter(), []
    print(_table.machine_line(), *_peers.missing(), sep="\n", flush=True)
    for width, height in arguments.size:
        for count in arguments.gaussians:
            results += _apart(count, width, height, arguments.rounds)
    if not arguments.no_trained:
        results += _trained(arguments.rounds)
    print(f"\n{_table.machine_line()}\n{(time.perf_counter() - begin) / 60:.1f} minutes")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=_table.size, nargs="+", default=SIZES)
    parser.add_argument("--gaussians", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-trained", action="store_true", help="leave out the scene that is trained first")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--scene", help=argparse.SUPPRESS)
    return parser.parse_args()


def _apart(count: int, width: int, height: int, rounds: int) -> list[dict[str, Any]]:
    """Measure one made scene in a process of its own, and print it."""
    if not memory.fits(count, width, height, factor=1.5):
        print(f"\nmade {count:,} {width}x{height}: left out, it may not fit into the free memory", flush=True)
        return []
    line = [sys.executable, "-m", "bench", "--scene", f"{count},{width},{height}", "--rounds", str(rounds)]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        print(f"\nmade {count:,} {width}x{height}: failed\n{done.stderr[-2000:]}", flush=True)
        return []
    result = json.loads(done.stdout)
    result["peak"] = memory.peak(count, width, height)
    _print(result)
    return [result]


def _trained(rounds: int) -> list[dict[str, Any]]:
    """A scene trained on the bundled capture, seen by a held-out camera at two sizes."""
    results = []
    for scene in training_step.trained_scenes(training_step.SAMPLE, TRAINED_GAUSSIANS, TRAINED_STEPS, [2, 1]):
        results.append(_scene("trained sample", scene, rounds))
        _print(results[-1])
    return results


def _scene(title: str, scene: Made, rounds: int) -> dict[str, Any]:
    """Rows of all operations and peers."""
    stages = Stages(scene)
    rows = _table.measured([group.operations for group in GROUPS], scene, rounds, 0.2)
    fits = len(scene.gaussians) <= PEER_GAUSSIANS and stages.pixels <= PEER_PIXELS
    peers = [found if isinstance(found, str) else vars(found) for found in _peers.measured(stages)] if fits else []
    return {"title": _table.described(title, stages), "rows": _table.to_json(rows), "peers": peers}


def _print(result: dict[str, Any]) -> None:
    print(f"\n{result['title']}\n{_table.HEAD}")
    rows = [_table.Row(**row) for row in result["rows"]]
    for row in rows:
        print(row.text())
    ours = {row.name: row.ms for row in rows}
    for peer in result["peers"]:
        print(peer if isinstance(peer, str) else _peer_text(peer, ours))
    if "peak" in result:
        print(f"peak memory of a training step, the whole process: {result['peak'] / 1e6:,.0f} MB")
    sys.stdout.flush()


def _peer_text(peer: dict[str, Any], ours: dict[str, float]) -> str:
    pairs = [("image", peer["image_ms"]), ("image with gradients", peer["gradients_ms"])]
    text = ", ".join(f"{name} {ms:,.0f} ms ({ms / ours[name]:.0f} times ours)" for name, ms in pairs)
    return f"{peer['name']}: {text}; {peer['psnr']:.0f} dB between the images"


if __name__ == "__main__":
    main()
