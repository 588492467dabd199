"""Training inside the viewer: steered between steps, seen only between steps, and independent of who looks."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_app_capture import make_capture
from test_app_training import SETTINGS, equal_states, last

from anchorfield.app import train
from anchorfield.app.journal import silent
from anchorfield.app.view.document import Document, open_document
from anchorfield.app.view.live import Live, _thinned
from anchorfield.app.view.turns import Turns
from anchorfield.renderer.errors import UsageError
from anchorfield.scenes.scene import Scene

LONG = 100_000  # steps: such a training ends only when it is told to


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_capture(tmp_path_factory.mktemp("captures") / "made")


@pytest.fixture(scope="module")
def whole(capture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of 30 steps."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(capture, settings=SETTINGS, steps=30, out=folder, show=silent)
    return folder


@pytest.fixture
def live(capture: Path) -> Iterator[Live]:
    made = Live(open_document(capture))
    yield made
    made.stop()


def eventually(true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def camera(scene: Scene | None) -> Any:
    assert scene is not None
    return scene.views[0].camera


def test_a_training_that_was_paused_and_drawn_equals_an_uninterrupted_one(
    live: Live, whole: Path, tmp_path: Path
) -> None:
    live.start(settings=SETTINGS, steps=30, out=tmp_path / "run")
    for _ in range(3):
        eventually(lambda: live.document.training or not live.busy)
        live.pause()
        if live.state == "paused":
            live.document.draw(camera(live.document.scene))
            live.resume()
    assert live.wait(120) == "finished", live.problem
    assert equal_states(last(whole).state, last(tmp_path / "run").state)
    assert live.document.run is not None
    assert live.document.run.step == 30
    assert next(event["event"] for event in live.history()) == "start"


def test_a_pause_holds_and_has_saved(live: Live, tmp_path: Path) -> None:
    live.start(settings=SETTINGS, steps=LONG, out=tmp_path / "run")
    eventually(lambda: live.document.training)
    live.pause()
    assert live.state == "paused"
    kept = last(tmp_path / "run").facts["step"]
    before = live.document.draw(camera(live.document.scene)).rgb
    time.sleep(0.2)
    assert torch.equal(before, live.document.draw(camera(live.document.scene)).rgb)
    assert last(tmp_path / "run").facts["step"] == kept
    live.resume()
    eventually(lambda: live.state == "training")


def test_stop_saves_and_the_run_can_go_on(live: Live, whole: Path, tmp_path: Path) -> None:
    live.start(settings=SETTINGS, steps=30, out=tmp_path / "run")
    eventually(lambda: live.document.training)
    live.stop()
    assert live.state == "ready"
    assert live.problem is None
    run = live.document.run
    assert run is not None
    assert 1 <= run.step < 30
    assert run.step == last(tmp_path / "run").facts["step"]
    live.train_on()
    assert live.wait(120) == "finished", live.problem
    assert equal_states(last(whole).state, last(tmp_path / "run").state)
    live.train_on(steps=5)
    assert live.wait(120) == "finished", live.problem
    assert live.document.run is not None
    assert live.document.run.step == 35


def test_a_run_that_the_command_line_made_goes_on_in_the_viewer(whole: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    live = Live(open_document(folder))
    assert any(event["event"] == "end" for event in live.history())
    live.train_on(steps=3)
    assert live.wait(120) == "finished", live.problem
    assert last(folder).facts["step"] == 33


def test_saving_does_not_end_the_training(live: Live, tmp_path: Path) -> None:
    live.start(settings=SETTINGS, steps=LONG, out=tmp_path / "run")
    for _ in range(2):
        count = sum(event["event"] == "saved" for event in live.history())
        live.save()
        eventually(lambda count=count: sum(e["event"] == "saved" for e in live.history()) > count)  # type: ignore[misc]
        eventually(lambda: live.state == "training")


def test_stopping_before_the_first_step_leaves_what_was_open(live: Live, tmp_path: Path) -> None:
    live.start(settings=SETTINGS, steps=LONG, out=tmp_path / "run")
    live.stop()
    assert live.state == "ready"
    assert live.problem is None
    assert live.document.drawable == (live.document.run is not None)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"method": "gausian_splatting"}, "Did you mean 'gaussian_splatting'"),
        ({"settings": {"capp": 3}}, "Did you mean cap"),
        ({"minutes": -1.0, "steps": None}, "--minutes must be a positive number"),
    ],
)
def test_what_goes_wrong_is_said_in_words(live: Live, tmp_path: Path, wish: dict[str, Any], words: str) -> None:
    live.start(**{"settings": SETTINGS, "steps": 5, "out": tmp_path / "run", **wish})
    assert live.wait(60) == "error"
    assert live.problem is not None
    assert words in live.problem
    assert not live.document.drawable
    live.start(settings=SETTINGS, steps=2, out=tmp_path / "other")
    assert live.wait(60) == "finished"
    assert live.problem is None


def test_a_method_that_breaks_does_not_break_the_viewer(
    live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    events: list[str] = []

    def broken(event: Any) -> None:
        events.append(event["event"])
        raise ZeroDivisionError("of a listener")

    def breaking(*arguments: Any, **more: Any) -> None:
        raise RuntimeError("of the method")

    live.on_event(broken)
    live.start(settings=SETTINGS, steps=LONG, out=tmp_path / "run")
    eventually(lambda: live.document.training)
    live.save()
    eventually(lambda: any(event["event"] == "saved" for event in live.history()))
    monkeypatch.setattr("anchorfield.methods.Fit.descend", breaking)
    assert live.wait(60) == "error"
    assert live.problem == "unexpected error: RuntimeError: of the method"
    assert events[-1] == "error"
    assert live.document.run is not None  # the checkpoint before the error
    assert "of a listener" in capsys.readouterr().err


def test_one_training_at_a_time_and_only_with_photographs(live: Live, tmp_path: Path) -> None:
    live.start(settings=SETTINGS, steps=LONG, out=tmp_path / "run")
    with pytest.raises(UsageError, match="under way"):
        live.start(settings=SETTINGS, steps=5, out=tmp_path / "other")
    with pytest.raises(UsageError, match="photographs"):
        Live(Document()).start(steps=5)
    with pytest.raises(UsageError, match="only a run"):
        Live(Document()).train_on(1)


def test_nobody_sees_a_half_made_step(live: Live, tmp_path: Path) -> None:
    """All parameters are those of one step while a drawer holds its turn."""
    live.share = 0.9
    live.start(settings=SETTINGS, steps=LONG, out=tmp_path / "run")
    eventually(lambda: live.document.training)
    model = live.document.model
    assert model is not None
    seen: set[int] = set()
    end = time.monotonic() + 30
    while len(seen) < 6:
        assert time.monotonic() < end, "the training stood still"
        with live.turn():
            first = {name: value.detach().clone() for name, value in model.state_dict().items()}
            time.sleep(0.002)
            after = model.state_dict()
            assert all(torch.equal(value, after[name]) for name, value in first.items())
            seen.add(hash(first["means"].numpy().tobytes()))


def test_pictures_follow_the_training(live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anchorfield.app.view.live.PICTURE_SECONDS", 0.0)
    versions: list[int] = []
    live.document.on_change(lambda: versions.append(live.document.version))
    live.start(settings=SETTINGS, steps=LONG, out=tmp_path / "run")
    eventually(lambda: len(versions) > 10)
    assert versions == sorted(versions)


def test_turns_keep_to_the_share() -> None:
    turns = Turns(0.25)
    stop = threading.Event()
    drawn = 0.0

    def draw() -> None:
        nonlocal drawn
        while not stop.is_set():
            with turns.drawing():
                begin = time.perf_counter()
                time.sleep(0.003)
                drawn += time.perf_counter() - begin

    drawer = threading.Thread(target=draw)
    drawer.start()
    stepped = 0.0
    end = time.monotonic() + 3
    while time.monotonic() < end:
        turns.begin()
        begin = time.perf_counter()
        time.sleep(0.002)
        stepped += time.perf_counter() - begin
        turns.end()
    stop.set()
    turns.rest()
    drawer.join(5)
    # Beside its share, drawing had what was saved up before.
    assert 0.1 < (drawn - 0.5) / (drawn - 0.5 + stepped) < 0.35


def test_who_draws_may_ask_for_another_turn_inside() -> None:
    turns = Turns(0.01)
    turns.begin()
    done = threading.Event()

    def draw() -> None:
        with turns.drawing():
            time.sleep(0.6)  # more than was saved up
            with turns.drawing():
                done.set()

    drawer = threading.Thread(target=draw)
    drawer.start()
    turns.end()
    time.sleep(0.05)
    turns.begin()
    assert done.is_set()
    turns.rest()
    drawer.join()


def test_long_histories_are_thinned() -> None:
    events = [{"event": "step", "step": n} for n in range(10)] + [{"event": "saved"}]
    assert [event.get("step") for event in _thinned(events)] == [0, 2, 4, 6, 8, None]


def test_a_kill_loses_no_more_than_what_came_after_the_last_checkpoint(capture: Path, tmp_path: Path) -> None:
    code = f"""
import json, sys, time
from pathlib import Path
from anchorfield.app.view.document import open_document
from anchorfield.app.view.live import Live
live = Live(open_document(Path({str(capture)!r})))
live.on_event(lambda event: print(json.dumps(event), flush=True) if event["event"] == "saved" else None)
live.start(settings={SETTINGS!r}, steps={LONG}, out=Path({str(tmp_path / "run")!r}), save_every=0.05)
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    saved = [json.loads(process.stdout.readline())["step"] for _ in range(3)]
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    document = open_document(tmp_path / "run")
    assert document.run is not None
    assert document.run.step >= saved[-1]
    live = Live(document)
    live.train_on(steps=2)
    assert live.wait(120) == "finished", live.problem
