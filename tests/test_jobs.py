"""Jobs: one after another, with progress, results, errors in words, and clean cancelling."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from anchorfield.app.jobs import KEPT, Job, Queue
from anchorfield.app.problems import in_words
from anchorfield.renderer.errors import DataError, UsageError

Steps = Iterator[tuple[float, str]]


@pytest.fixture
def queue() -> Iterator[Queue]:
    made = Queue()
    yield made
    made.close()


def counting(number: int) -> Steps:
    for index in range(number):
        yield (index + 1) / number, f"{index + 1} of {number}"
    return number  # type: ignore[return-value]


def held(gate: threading.Event, began: threading.Event, cleaned: list[str]) -> Steps:
    try:
        while True:
            began.set()
            yield 0.5, "waiting"
            gate.wait(0.01)
    finally:
        cleaned.append("cleaned")


def failing(problem: BaseException) -> Steps:
    yield 0.1, "soon"
    raise problem


def test_jobs_run_in_order_and_give_results(queue: Queue) -> None:
    seen: list[tuple[str, str]] = []
    queue.on_change(lambda job: seen.append((job.name, job.state)))
    jobs = [queue.add(name, counting(3)) for name in ("a", "b")]
    assert [job.wait(10) for job in jobs] == [3, 3]
    assert [(job.state, job.share, job.sentence) for job in jobs] == [("done", 1.0, "3 of 3")] * 2
    assert queue.jobs == jobs
    assert queue.running is None
    assert seen.index(("a", "done")) < seen.index(("b", "running"))
    assert jobs[0].seconds >= 0


def test_a_job_is_cancelled_between_two_steps_and_cleans_up(queue: Queue) -> None:
    began, cleaned = threading.Event(), list[str]()
    job = queue.add("long", held(threading.Event(), began, cleaned))
    waiting = queue.add("next", counting(1))
    assert began.wait(10)
    assert queue.running is job
    queue.cancel(waiting)
    assert waiting.state == "cancelled"
    queue.cancel(job)
    with pytest.raises(UsageError, match="long: cancelled"):
        job.wait(10)
    assert cleaned == ["cleaned"]
    assert queue.add("after", counting(2)).wait(10) == 2


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (DataError("the file is torn"), "the file is torn"),
        (ZeroDivisionError("by nothing"), "unexpected error: ZeroDivisionError: by nothing"),
        (MemoryError(), "out of memory"),
        (OSError(28, "No space left on device"), "no space left"),
    ],
)
@pytest.mark.usefixtures("capsys")
def test_a_job_that_fails_says_so_and_the_next_runs(queue: Queue, problem: BaseException, words: str) -> None:
    job = queue.add("bad", failing(problem))
    with pytest.raises(UsageError, match=words):
        job.wait(10)
    assert job.state == "failed"
    assert job.problem == in_words(problem)
    assert queue.add("good", counting(1)).wait(10) == 1


@pytest.mark.usefixtures("capsys")
def test_a_listener_that_fails_hurts_nobody(queue: Queue) -> None:
    def broken(job: Job) -> None:
        raise RuntimeError("of a listener")

    queue.on_change(broken)
    assert queue.add("good", counting(1)).wait(10) == 1


def test_only_the_latest_ended_jobs_are_kept(queue: Queue) -> None:
    for index in range(KEPT + 5):
        queue.add(str(index), counting(1)).wait(10)
    assert len(queue.jobs) <= KEPT + 1


def test_closing_cancels_everything() -> None:
    queue = Queue()
    began, cleaned = threading.Event(), list[str]()
    job = queue.add("long", held(threading.Event(), began, cleaned))
    began.wait(10)
    waiting = queue.add("next", counting(1))
    queue.close()
    assert (job.state, waiting.state, cleaned) == ("cancelled", "cancelled", ["cleaned"])
    with pytest.raises(UsageError, match="closing"):
        queue.add("late", counting(1))


def test_a_job_still_at_work_is_not_waited_for_for_ever(queue: Queue) -> None:
    began = threading.Event()
    job = queue.add("long", held(threading.Event(), began, []))
    with pytest.raises(UsageError, match="still at work"):
        job.wait(0.05)
