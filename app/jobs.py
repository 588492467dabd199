"""Long work beside viewing and training: jobs one after another in a thread, with progress, cancelling and results.

A job is a generator of (share done in [0, 1], sentence); what it returns is its result. It is cancelled between two
steps by closing it, so that its `finally` blocks clean up.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from anchorfield.app.problems import in_words
from anchorfield.renderer.errors import AnchorfieldError, UsageError

Steps: TypeAlias = Iterator[tuple[float, str]]
State = Literal["waiting", "running", "done", "cancelled", "failed"]
ENDED = ("done", "cancelled", "failed")
KEPT = 50  # jobs that ended and are still listed
SECONDS = 0.2  # at least, between two reports of progress


@dataclass(eq=False)
class Job:
    """One piece of work; other threads only read it, and `cancel` it."""

    name: str
    steps: Steps
    state: State = "waiting"
    share: float = 0.0  # done, in [0, 1]
    sentence: str = ""  # what it does now, or how it ended
    result: Any = None  # what the generator returned
    problem: str | None = None  # what went wrong, in words
    began: float | None = None  # by time.monotonic
    ended: float | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def over(self) -> bool:
        """Whether it is done, cancelled or failed."""
        return self.state in ENDED

    @property
    def seconds(self) -> float:
        """How long it has run."""
        if self.began is None:
            return 0.0
        return (time.monotonic() if self.ended is None else self.ended) - self.began

    def cancel(self) -> None:
        """Ask it to end after its present step."""
        self._stop.set()

    def wait(self, seconds: float | None = None) -> Any:
        """Wait for the end and return the result; raises UsageError in words where there is none."""
        if not self._over.wait(seconds):
            raise UsageError(f"{self.name} is still at work after {seconds} s")
        if self.state != "done":
            raise UsageError(f"{self.name}: {self.problem or self.state}")
        return self.result


class Queue:
    """Jobs in the order in which they were added, one at a time; one that fails does not keep the next from running."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []
        self._listeners: list[Callable[[Job], None]] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
        self._thread.start()

    @property
    def jobs(self) -> list[Job]:
        """All that wait, run, or ended lately; the oldest first."""
        with self._changed:
            return list(self._jobs)

    @property
    def running(self) -> Job | None:
        """The job at work now."""
        return next((job for job in self.jobs if job.state == "running"), None)

    def add(self, name: str, steps: Steps) -> Job:
        """Put work at the end of the queue."""
        job = Job(name, steps)
        with self._changed:
            if self._closed:
                raise UsageError("the program is closing: no new job is taken")
            self._jobs.append(job)
            for old in [job for job in self._jobs if job.over][:-KEPT]:
                self._jobs.remove(old)
            self._changed.notify_all()
        self._tell(job)
        return job

    def cancel(self, job: Job) -> None:
        """End a job: at once where it waits, else after its present step."""
        job.cancel()
        with self._changed:
            waited = job.state == "waiting"
            if waited:
                job.state, job.sentence = "cancelled", "cancelled before it began"
        if waited:
            _close(job)
            job._over.set()
            self._tell(job)

    def on_change(self, callback: Callable[[Job], None]) -> None:
        """Call `callback(job)`, in the jobs' thread, when a job was added, moved on or ended."""
        self._listeners.append(callback)

    def close(self, seconds: float = 10.0) -> None:
        """Cancel everything and wait for the present step to end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for job in self.jobs:
            if not job.over:
                self.cancel(job)
        self._thread.join(seconds)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            self._run(job)

    def _next(self) -> Job | None:
        with self._changed:
            while True:
                for job in self._jobs:
                    if job.state == "waiting":
                        job.state, job.began = "running", time.monotonic()
                        return job
                if self._closed:
                    return None
                self._changed.wait()

    def _run(self, job: Job) -> None:
        self._tell(job)
        state: State = "done"
        told = 0.0
        try:
            while not job._stop.is_set():
                try:
                    share, job.sentence = next(job.steps)
                except StopIteration as end:
                    job.result, job.share = end.value, 1.0
                    break
                job.share = min(1.0, max(0.0, float(share)))
                if time.monotonic() - told >= SECONDS:
                    told = time.monotonic()
                    self._tell(job)
            else:
                state, job.sentence = "cancelled", "cancelled"
        except Exception as problem:  # whatever a job does, the next one runs
            if not isinstance(problem, AnchorfieldError):
                traceback.print_exc()
            state, job.problem = "failed", in_words(problem)
            job.sentence = job.problem
        _close(job)
        job.ended = time.monotonic()
        job.state = state
        job._over.set()
        self._tell(job)

    def _tell(self, job: Job) -> None:
        for listener in list(self._listeners):
            try:
                listener(job)
            except Exception:  # a listener's trouble is not the job's
                traceback.print_exc()


def _close(job: Job) -> None:
    """Let the generator clean up."""
    if not isinstance(job.steps, Generator):
        return
    try:
        job.steps.close()
    except Exception:
        traceback.print_exc()
