"""The one table: a row for each operation on each scene."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from bench import _machine
from bench._operations import Operation, Stages
from bench._scenes import Made, made
from bench._timing import Timing, timed

Group = Callable[[Stages], Iterator[Operation]]

HEAD = f"{'operation':<26}{'ms':>10}{'10 to 90 %':>20}{'x floor':>9}{'of ceiling':>12}{'G eval/s':>10}"


@dataclass(frozen=True)
class Row:
    """What is shown and stored of a measurement."""

    name: str
    ms: float
    low: float
    high: float
    ratio: float
    deviation: float
    evaluations_per_second: float

    def text(self) -> str:
        """A line of the table."""
        known = self.ratio == self.ratio and self.ratio > 0
        share = f"{100 / self.ratio:.0f} %" if known else ""
        ratio = f"{self.ratio:.1f}" if known else ""
        rate = f"{self.evaluations_per_second / 1e9:.2f}" if self.evaluations_per_second else ""
        spread = f"{self.low:.2f} to {self.high:.2f}"
        return f"{self.name:<26}{self.ms:>10.2f}{spread:>20}{ratio:>9}{share:>12}{rate:>10}"


def row(timing: Timing) -> Row:
    """The row of a timing."""
    low, high = timing.spread
    return Row(
        name=timing.operation.name,
        ms=1e3 * timing.median,
        low=1e3 * low,
        high=1e3 * high,
        ratio=timing.ratio,
        deviation=timing.deviation,
        evaluations_per_second=timing.operation.evaluations / timing.median,
    )


def measured(groups: Iterable[Group], scene: Made, rounds: int, seconds: float) -> list[Row]:
    """Rows of every operation of the groups on a scene."""
    stages = Stages(scene)
    operations = [operation for group in groups for operation in group(stages)]
    return [row(timing) for timing in timed(operations, _machine.Stream(), rounds, seconds)]


def described(title: str, stages: Stages) -> str:
    """A line about a scene."""
    camera = stages.camera
    return (
        f"{title}: {stages.count:,} Gaussians, {stages.visible:,} in view, {camera.width}x{camera.height}, "
        f"{stages.evaluations / stages.pixels:.0f} evaluations a pixel"
    )


def machine_line() -> str:
    """What the machine reaches now."""
    stream = _machine.Stream()
    rates = _machine.ceiling(stream)
    return (
        f"{_machine.key()}, load {_machine.load():.1f}: {rates.flops / 1e9:.0f} GFLOP/s of multiply-adds, "
        f"{rates.bandwidth / 1e9:.0f} GB/s triad, {stream.read() / 1e9:.0f} GB/s reading"
    )


def show(groups: Iterable[Group], scenes: Iterable[tuple[str, Made]], rounds: int = 5, seconds: float = 0.3) -> None:
    """Measure and print, scene by scene."""
    print(machine_line())
    for title, scene in scenes:
        print(f"\n{described(title, Stages(scene))}\n{HEAD}")
        for line in measured(groups, scene, rounds, seconds):
            print(line.text(), flush=True)


def size(text: str) -> tuple[int, int]:
    """Width and height from WxH."""
    width, height = text.split("x")
    return int(width), int(height)


def main(*groups: Group) -> None:
    """One group of operations on one made scene: `python -m bench.compositing --gaussians 100000 --size 540x960`."""
    parser = argparse.ArgumentParser(description=(sys.modules[groups[0].__module__].__doc__ or "").splitlines()[0])
    parser.add_argument("--gaussians", type=int, default=100_000)
    parser.add_argument("--size", type=size, default=(540, 960))
    arguments = parser.parse_args()
    _machine.one_torch_thread()
    show(groups, [("made", made(arguments.gaussians, *arguments.size))])


def to_json(rows: Iterable[Row]) -> list[dict[str, object]]:
    """Rows as plain data."""
    return [dataclasses.asdict(line) for line in rows]
