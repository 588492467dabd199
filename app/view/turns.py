"""Training and drawing take turns at one model: nobody draws a half-made step, and drawing gets a share of the time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

STILL_SHARE, MOVING_SHARE = 0.25, 0.6
MOVING_SECONDS = 0.6  # after the last sign of motion
MOST_CREDIT = 0.5  # seconds of drawing that are saved up while nobody draws
MOST_SHARE = 0.95


class Turns:
    """The trainer holds the model during its steps; between two of them it lets those in who want to draw.

    Each second of steps earns drawing `share / (1 - share)` seconds; who draws longer leaves the next ones to wait.
    While somebody moves a camera, the share is at least MOVING_SHARE.
    """

    def __init__(self, share: float = STILL_SHARE) -> None:
        self.share = share
        self._changed = threading.Condition()
        self._training = self._stepping = False
        self._waiting = self._drawing = 0
        self._credit = MOST_CREDIT
        self._began = 0.0  # the present steps
        self._moving = 0.0  # until when
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

    def touch(self) -> None:
        """Somebody moves a camera now: pictures are wanted soon."""
        with self._changed:
            now = time.monotonic()
            if now > self._moving:
                self._credit = max(self._credit, 0.05)
            self._moving = now + MOVING_SECONDS
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
                share = max(self.share, MOVING_SHARE) if time.monotonic() < self._moving else self.share
                share = min(MOST_SHARE, max(0.01, share))
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
