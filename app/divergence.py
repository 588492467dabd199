"""Tells when an optimisation goes astray."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

EXPLODED = 10.0  # times the lowest smoothed loss so far
SMOOTHING = 0.01  # weight of a new loss in the smoothed one


@dataclass
class LossWatch:
    """Follows the sum of the losses, smoothed: single views differ much from each other."""

    names: frozenset[str] = frozenset()
    smoothed: float = 0.0
    lowest: float = math.inf

    def problem(self, losses: Mapping[str, float]) -> str | None:
        """What is wrong with the losses of a step, in words; None where nothing is."""
        total = sum(losses.values())
        if not math.isfinite(total):
            return "the loss is not finite (" + ", ".join(f"{name} {value}" for name, value in losses.items()) + ")"
        if frozenset(losses) != self.names:  # another stage has other terms
            self.names, self.smoothed, self.lowest = frozenset(losses), total, math.inf
        self.smoothed += SMOOTHING * (total - self.smoothed)
        self.lowest = min(self.lowest, self.smoothed)
        if self.lowest > 0 and self.smoothed > EXPLODED * self.lowest:
            return f"the loss rose to {self.smoothed:.4g} from {self.lowest:.4g}"
        return None
