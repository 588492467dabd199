"""The most memory that training takes, in a process of its own, and what a Gaussian adds to it.

python -m bench.memory [--gaussians N ...] [--size WxH]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

from anchorfield.renderer.memory import available_bytes
from bench import _table
from bench._machine import one_torch_thread
from bench._operations import Stages
from bench._scenes import made

STEPS = 5
EXPECTED = 2600  # bytes of a Gaussian and 700 of a pixel, generously: what is thought of before anything is tried
EXPECTED_PIXEL = 700
BASE = 600e6  # bytes of the interpreter and its libraries


def fits(count: int, width: int, height: int, factor: float = 1.0) -> bool:
    """Whether a scene can be tried with the memory that is free."""
    return BASE + factor * (EXPECTED * count + EXPECTED_PIXEL * width * height) < available_bytes()


def peak(count: int, width: int, height: int) -> int:
    """Most resident bytes of a process that does a few training steps."""
    arguments = ["-m", "bench.memory", "--one", "--gaussians", str(count), "--size", f"{width}x{height}"]
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout)["peak"])


def per_gaussian(peaks: dict[int, int]) -> float:
    """Bytes that a Gaussian adds, from the peaks at the least and the greatest count."""
    least, most = min(peaks), max(peaks)
    return (peaks[most] - peaks[least]) / (most - least)


def _one(count: int, width: int, height: int) -> int:
    from bench.training_step import steps

    one_torch_thread()
    run = steps(Stages(made(count, width, height)))
    for _ in range(STEPS):
        next(run)
    return _peak_bytes()


def _peak_bytes() -> int:
    """The most this program held. Linux hands the other counter, of the process, on from the one that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        rows = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return 1024 * int(rows["VmHWM"].split()[0])
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else 1024 * used


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gaussians", type=int, nargs="+", default=[100_000, 500_000])
    parser.add_argument("--size", type=_table.size, default=(540, 960))
    parser.add_argument("--one", action="store_true", help="in this process, as JSON")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps({"peak": _one(arguments.gaussians[0], *arguments.size)}))
        return
    peaks = {count: peak(count, *arguments.size) for count in arguments.gaussians}
    for count, value in peaks.items():
        print(f"{count:>10,} Gaussians: {value / 1e6:,.0f} MB")
    if len(peaks) > 1:
        print(f"a Gaussian adds {per_gaussian(peaks):,.0f} bytes")


if __name__ == "__main__":
    main()
