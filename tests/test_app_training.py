"""Training: resume equals uninterrupted, kills lose little, stops are clean, bad runs are refused."""

from __future__ import annotations

import json
import math
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from test_app_capture import SMALL, call, command, make_capture

from anchorfield.app import Run, checkpoint, load_scene, train
from anchorfield.app.divergence import LossWatch
from anchorfield.app.journal import Journal, read_events, silent
from anchorfield.app.training import Cancelled
from anchorfield.methods import Fit
from anchorfield.renderer.errors import DataError, UsageError

SETTINGS = {"cap": 200, "sh-degree": 1}
KILLS = 30


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_capture(tmp_path_factory.mktemp("captures") / "made")


@pytest.fixture(scope="module")
def finished(capture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 30 steps; copy it before changing it."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    train(capture, settings=SETTINGS, steps=30, out=folder, show=silent)
    return folder


@pytest.fixture
def run_folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def last(run: Path) -> checkpoint.Checkpoint:
    found = checkpoint.latest_valid(run / "checkpoints", print)
    assert found is not None
    return found


def equal_states(first: Any, second: Any) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal_states(first[name], second[name]) for name in first)
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    return bool(first == second)


def stop_at(step: int) -> Any:
    def reached(fit: Fit) -> str:
        return "stop" if fit.step >= step else "go"

    return reached


@pytest.mark.parametrize("strategy", ["mcmc", "adc", "absgrad"])
def test_resume_equals_uninterrupted_bit_for_bit(capture: Path, tmp_path: Path, strategy: str) -> None:
    settings = {**SETTINGS, "strategy": strategy}
    train(capture, settings=settings, steps=30, out=tmp_path / "whole", show=silent)
    with pytest.raises(Cancelled, match="step 15"):
        train(capture, settings=settings, steps=30, out=tmp_path / "parts", show=silent, steer=stop_at(15))
    assert last(tmp_path / "parts").facts["step"] == 15
    run = train(out=tmp_path / "parts", resume=True, show=silent)
    assert run.step == 30
    assert equal_states(last(tmp_path / "whole").state, last(tmp_path / "parts").state)


def test_a_longer_budget_continues(run_folder: Path, capture: Path) -> None:
    seconds = Run.open(run_folder).seconds
    assert train(out=run_folder, resume=True, show=silent).step == 30
    run = train(capture, steps=40, out=run_folder, resume=True, show=silent)
    assert run.step == 40
    assert run.seconds > seconds
    assert run.job.steps == 40
    assert train(minutes=run.seconds / 60 + 0.001, out=run_folder, resume=True, show=silent).step > 40


def test_what_must_not_change_on_resume_is_refused(run_folder: Path, capture: Path) -> None:
    before = (run_folder / "config.json").read_bytes()
    for wish in ({"seed": 1}, {"downscale": 2}, {"settings": {"cap": 300}}, {"source": capture.parent}):
        with pytest.raises(UsageError, match="a resumed run keeps its"):
            train(out=run_folder, resume=True, show=silent, **wish)
    with pytest.raises(DataError, match="cannot go on as 'another'"):
        train(out=run_folder, resume=True, show=silent, method="another")
    with pytest.raises(UsageError, match="--resume"):
        train(capture, steps=3, out=run_folder, show=silent)
    assert (run_folder / "config.json").read_bytes() == before


def test_a_checkpoint_of_another_method_or_settings_is_refused(run_folder: Path) -> None:
    found = last(run_folder)
    for changes, words in (({"method": "other"}, "is of method 'other'"), ({"settings": {}}, "other settings")):
        shutil.rmtree(run_folder / "checkpoints")
        checkpoint.save(run_folder / "checkpoints", found.state, {**found.facts, **changes})
        with pytest.raises(DataError, match=words):
            Run.open(run_folder)
        with pytest.raises(DataError, match=words):
            train(steps=40, out=run_folder, resume=True, show=silent)


def test_a_state_that_does_not_fit_is_told(run_folder: Path) -> None:
    found = last(run_folder)
    shutil.rmtree(run_folder / "checkpoints")
    checkpoint.save(run_folder / "checkpoints", {**found.state, "model": {}}, found.facts)
    with pytest.raises(DataError, match="checkpoint"):
        Run.open(run_folder).model  # noqa: B018


def test_a_damaged_newest_checkpoint_falls_back(run_folder: Path) -> None:
    with open(last(run_folder).path / "tensors.safetensors", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    told: list[Any] = []
    run = train(out=run_folder, resume=True, show=told.append)
    assert run.step == 30
    assert any("is damaged" in event.get("text", "") for event in told)
    assert next(event for event in told if event["event"] == "resumed")["step"] < 30


def test_a_capture_that_changed_is_refused(capture: Path, tmp_path: Path) -> None:
    changing = Path(shutil.copytree(capture, tmp_path / "made"))
    train(changing, settings=SETTINGS, steps=3, out=tmp_path / "run", show=silent)
    content = json.loads((changing / "transforms.json").read_text())
    (changing / "transforms.json").write_text(json.dumps({**content, "frames": content["frames"][:-1]}))
    with pytest.raises(DataError, match="other views"):
        train(steps=6, out=tmp_path / "run", resume=True, show=silent)


def test_config_replays(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "train", "--config", finished / "config.json", "-o", tmp_path / "again")
    assert (code, err) == (0, "")
    assert equal_states(last(finished).state, last(tmp_path / "again").state)
    assert (tmp_path / "again" / "config.json").read_bytes() == (finished / "config.json").read_bytes()
    content = json.loads((finished / "config.json").read_text())
    content["settings"]["capp"] = 3
    (tmp_path / "config.json").write_text(json.dumps(content))
    code, _, err = call(capsys, "train", "--config", tmp_path / "config.json", "-o", tmp_path / "third")
    assert code == 3
    assert "unknown setting 'capp'. Did you mean cap?" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_saves_and_exits_130(number: signal.Signals, capture: Path, tmp_path: Path) -> None:
    line = ["-m", "anchorfield.app.cli", "train", capture, *SMALL, "--steps", 10**6, "--json", "-o", tmp_path / "run"]
    with subprocess.Popen([sys.executable, *map(str, line)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for text in process.stdout:
            if json.loads(text)["event"] == "step":
                process.send_signal(number)
                break
        process.stdout.read()
        words = process.stderr.read().decode()
        assert process.wait(30) == 130
    status = json.loads((tmp_path / "run" / "state.json").read_text())
    assert status["status"] == "cancelled"
    assert status["step"] == last(tmp_path / "run").facts["step"] > 0
    assert "Continue with --resume" in words


KILLER = """
import os, random, signal, sys, time
from pathlib import Path
import torch._dynamo  # torch loads it at the first custom operation: once here instead of in every child
import anchorfield.app.report, anchorfield.methods.gaussian_splatting
from anchorfield.app import checkpoint, train
from anchorfield.app.journal import read_events, silent

capture, run, kills, steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
draw, store, newest, starts = random.Random(0), run / "checkpoints", 0, 0
for kill in range(kills):
    child = os.fork()
    if child == 0:
        options = {"out": run, "resume": True, "save_every": 0.02, "show": silent}
        train(capture, settings={"cap": 200, "sh-degree": 1}, steps=steps, **options)
        os._exit(0)
    time.sleep(0.05 + draw.random() * 0.5)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    broken = [(path, reason) for path in checkpoint.steps(store) if (reason := checkpoint.problem(path))]
    assert not broken, broken
    found = checkpoint.latest_valid(store, print)
    reached = int(found.facts["step"]) if found else 0
    resumed = [event["step"] for event in read_events(run) if event["event"] == "resumed"]
    if len(resumed) > starts:  # it came so far as to say where it went on
        assert resumed[-1] == newest, f"kill {kill}: went on at {resumed[-1]} though {newest} was saved"
    assert reached >= newest, f"kill {kill}: step {newest} was saved and is lost"
    newest, starts = reached, len(resumed)
    print(newest)
train(out=run, resume=True, show=silent)
"""


def test_kills_at_random_moments_lose_nothing_saved(capture: Path, tmp_path: Path) -> None:
    """Every checkpoint on disk stays whole, and the run that was killed 30 times ends like one that was not."""
    steps = 1000
    arguments = [capture, tmp_path / "killed", KILLS, steps]
    done = subprocess.run(
        [sys.executable, "-c", KILLER, *map(str, arguments)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    reached = [int(line) for line in done.stdout.splitlines()]
    assert len(set(reached)) > KILLS / 4, f"most kills came outside of the training: {reached}"
    train(capture, settings=SETTINGS, steps=steps, out=tmp_path / "whole", show=silent)
    assert equal_states(last(tmp_path / "whole").state, last(tmp_path / "killed").state)
    assert not list((tmp_path / "killed" / "checkpoints").glob(f"{checkpoint.HIDDEN}*"))


def test_divergence_stops_with_words_and_keeps_the_last_good_checkpoint(capture: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = [*SMALL, "--scales", "1e30", "--steps", "300", "--save-every", "0.01", "-o", run]
    done = command("train", capture, *arguments)
    assert done.returncode == 1
    assert "training diverged at step" in done.stderr
    assert json.loads((run / "state.json").read_text())["status"] == "diverged"
    for path in checkpoint.steps(run / "checkpoints"):
        assert checkpoint.not_finite(checkpoint.load(path).state) is None


def test_a_loss_that_explodes_or_is_not_finite_is_noticed() -> None:
    watch = LossWatch()
    assert all(watch.problem({"l1": 0.1 + 0.05 * (step % 2)}) is None for step in range(500))
    assert "not finite" in (watch.problem({"l1": math.nan}) or "")
    assert watch.problem({"l1": 0.1, "other": 50.0}) is None  # another stage
    rising = [watch.problem({"l1": 0.1 + step, "other": 0.0}) for step in range(3000)]
    assert any(problem and "the loss rose to" in problem for problem in rising)


def test_a_full_disk_loses_nothing_that_was_saved(run_folder: Path) -> None:
    """The limit of file size stands for a full disk: writing fails half-way in the same place."""
    kept = last(run_folder)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    done = command("train", "--resume", "-o", run_folder, "--steps", "60", "--save-every", "0.1", preexec_fn=limit)
    assert done.returncode == 3
    assert "could not be saved" in done.stderr
    assert "the checkpoint of step 30 is on disk" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path for path in (run_folder / "checkpoints").iterdir() if path.name.startswith(".")] == []
    assert last(run_folder).path == kept.path
    assert train(steps=60, out=run_folder, resume=True, show=silent).step == 60


def test_an_unexpected_error_leaves_its_traceback_in_the_run(capture: Path, tmp_path: Path) -> None:
    def broken(event: Any) -> None:
        if event["event"] == "saved":
            raise ZeroDivisionError("nobody expects this")

    with pytest.raises(ZeroDivisionError) as caught:
        train(capture, settings=SETTINGS, steps=5, out=tmp_path / "run", show=broken)
    assert str(tmp_path / "run" / "log.txt") in caught.value.__notes__[-1]
    assert "Traceback" in (tmp_path / "run" / "log.txt").read_text()
    assert train(out=tmp_path / "run", resume=True, show=silent).step == 5


def test_two_processes_do_not_train_into_one_folder(capture: Path, tmp_path: Path) -> None:
    scene = load_scene(capture)

    def second(fit: Fit) -> Literal["stop"]:
        with pytest.raises(UsageError, match="another process"):
            train(scene, out=tmp_path / "run", resume=True, show=silent)
        return "stop"

    with pytest.raises(Cancelled):
        train(scene, settings=SETTINGS, steps=5, out=tmp_path / "run", show=silent, steer=second)


def test_events_forget_what_a_resume_made_undone_and_torn_lines(tmp_path: Path) -> None:
    journal = Journal(tmp_path, silent)
    for step in (1, 2, 3):
        journal.event("step", step=step, loss=math.inf)
    journal.close()
    with open(tmp_path / "events.jsonl", "a") as file:
        file.write('{"event": "st')
    journal = Journal(tmp_path, silent)
    journal.event("resumed", step=2, seconds=1.0)
    journal.close()
    assert [(event["event"], event["step"]) for event in read_events(tmp_path)] == [
        ("step", 1),
        ("step", 2),
        ("resumed", 2),
    ]
