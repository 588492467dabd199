"""Stop requests from the system, and one process per run."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from anchorfield.renderer.errors import UsageError


@dataclass
class Stop:
    """Whether the user asked to stop."""

    asked: bool = False


@contextmanager
def stop_requests() -> Iterator[Stop]:
    """Ctrl-C and SIGTERM ask to stop after the present step; a second Ctrl-C interrupts at once."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.asked = True

    with _handled(ask, signal.SIGINT, signal.SIGTERM):
        yield stop


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, as Ctrl-C does: what a system ends in order saves first."""
    with _handled(signal.default_int_handler, signal.SIGTERM):
        yield


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], Any], *numbers: int) -> Iterator[None]:
    """These signals go to `handler`; only the main thread may say so, elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps a second process from training into the same folder; the system frees the lock when a process dies."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as problem:
        os.close(handle)
        raise UsageError(f"another process is training into {folder}; choose another -o") from problem
    except OSError:  # a file system without locks
        warnings.warn(f"{folder} cannot be locked; do not train into it twice at a time", stacklevel=2)
    try:
        yield
    finally:
        os.close(handle)
