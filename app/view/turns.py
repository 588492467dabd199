"""Training and drawing take turns at one model: nobody draws a half-made step, and drawing gets a share of the time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

SHARE = 0.6  # of all drawing together; who draws for people keeps to less where nothing moves
MOST_CREDIT = 0.5  # seconds of drawing that are saved up while nobody draws
MOST_SHARE = 0.95


class Turns:
    """The trainer holds the model during its steps; between two of them it lets those in who want to draw.

    Each second of steps earns drawing `share / (1 - share)` seconds; who draws longer leaves the next ones to wait.
    """

    def __init__(self, share: float = SHARE) -> None:
        self.share = share
        self._changed = threading.Condition()
        self._training = self._stepping = False
        self._waiting = self._drawing = 0
        self._credit = MOST_CREDIT
        self._began = 0.0  # the present steps
        self._mine = threading.local()

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """The model holds still in here. Several may draw at a time, and who draws may ask again."""
        if getattr(self._mine, "inside", False):
            yield
            return
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(self._may_draw)
            finally:
                self._waiting -= 1
            self._drawing += 1
        begin, self._mine.inside = time.perf_counter(), True
        try:
            yield
        finally:
            self._mine.inside = False
            with self._changed:
                self._drawing -= 1
                self._credit -= time.perf_counter() - begin if self._training else 0.0
                self._changed.notify_all()

    def begin(self) -> None:
        """The trainer's next step begins, once those have drawn who may."""
        with self._changed:
            self._training = True
            self._changed.wait_for(lambda: not self._drawing and not (self._waiting and self._credit > 0))
            self._stepping, self._began = True, time.perf_counter()

    def end(self) -> None:
        """The trainer's step has ended; until it begins another, anybody may draw."""
        with self._changed:
            if self._stepping:
                share = min(MOST_SHARE, max(0.01, self.share))
                earned = (time.perf_counter() - self._began) * share / (1 - share)
                self._credit = min(MOST_CREDIT, self._credit + earned)
            self._stepping = False
            self._changed.notify_all()

    def rest(self) -> None:
        """The trainer stops for long: drawing is free."""
        self.end()
        with self._changed:
            self._training, self._credit = False, MOST_CREDIT
            self._changed.notify_all()

    def _may_draw(self) -> bool:
        return not self._stepping and (not self._training or self._credit > 0)
