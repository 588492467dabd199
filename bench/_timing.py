"""Timing on a machine that others use too: the ceiling is measured beside every operation, and both are repeated."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from bench._machine import Ceiling, Stream, ceiling
from bench._operations import Operation


@dataclass
class Timing:
    """What was measured of one operation."""

    operation: Operation
    seconds: list[float] = field(default_factory=list)  # of every run
    ratios: list[float] = field(default_factory=list)  # per round: lower quartile of its runs over the floor beside it

    @property
    def median(self) -> float:
        """Seconds of a run."""
        return float(np.median(self.seconds))

    @property
    def spread(self) -> tuple[float, float]:
        """10th and 90th percentile of the seconds."""
        low, high = np.percentile(self.seconds, [10, 90])
        return float(low), float(high)

    @property
    def ratio(self) -> float:
        """Time over floor, median of the rounds; nan where there is no floor."""
        return float(np.median(self.ratios)) if self.ratios else float("nan")

    @property
    def deviation(self) -> float:
        """Median absolute deviation of the ratios, as a share of their median."""
        return relative_deviation(self.ratios)


def seconds_of(call: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def relative_deviation(values: Sequence[float]) -> float:
    """Median absolute deviation over the median; 0 for fewer than two values."""
    if len(values) < 2:
        return 0.0
    middle = np.median(values)
    return float(np.median(np.abs(np.array(values) - middle)) / middle)


def timed(operations: Iterable[Operation], stream: Stream, rounds: int = 5, seconds: float = 0.2) -> list[Timing]:
    """Every operation in turn, `rounds` times, each time for about `seconds` and beside a fresh ceiling."""
    timings = [Timing(operation) for operation in operations]
    for timing in timings:
        timing.operation.run()  # the first run also prepares
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for timing in timings:
                _round(timing, stream, seconds)
    finally:
        gc.enable()
    return timings


def _round(timing: Timing, stream: Stream, seconds: float) -> None:
    before = ceiling(stream)
    times: list[float] = []
    begin = time.perf_counter()
    while not times or time.perf_counter() - begin < seconds:
        times.append(seconds_of(timing.operation.run))
    timing.seconds += times
    floor = timing.operation.floor(_better(before, ceiling(stream)))
    if floor > 0:
        timing.ratios.append(float(np.quantile(times, 0.25)) / floor)


def _better(first: Ceiling, second: Ceiling) -> Ceiling:
    """The higher of two measurements: what others take from the machine only ever lowers one."""
    return Ceiling(max(first.flops, second.flops), max(first.bandwidth, second.bandwidth))
