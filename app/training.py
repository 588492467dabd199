"""Training: drives a method's generator, and between two steps watches, measures, saves, shows and stops.

Time is counted in training seconds: the steps themselves, over all resumes. Evaluation and saving are counted apart.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from anchorfield.app import checkpoint as checkpoints
from anchorfield.app import files, job, machine
from anchorfield.app.checkpoint import Checkpoint
from anchorfield.app.divergence import LossWatch
from anchorfield.app.evaluation import evaluate, gaussian_count, rendered, view_psnr
from anchorfield.app.guards import locked, stop_requests
from anchorfield.app.job import Job
from anchorfield.app.journal import Journal, Show, plain_lines
from anchorfield.app.run import CHECKPOINTS, CONFIG, STATUS, Run, check_belongs, open_scene
from anchorfield.app.wish import Wish
from anchorfield.methods import CanStart, Fit, HasPlan, IgnoresPoints, Method, load, names
from anchorfield.renderer import backends
from anchorfield.renderer.errors import AnchorfieldError, DataError, UsageError
from anchorfield.renderer.types import Gaussians
from anchorfield.scenes.scene import Scene

MILESTONES = (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)  # shares of the budget at which the held-out PSNR is measured
EVALUATION_SHARE = 0.005  # of the expected training time, for each of these measurements
EVALUATION_SECONDS = 0.3  # that each may take in any case

Steer = Callable[[Fit], Literal["go", "save", "stop"]]
"""Asked between two steps, outside of training time; it may wait (a pause). After "save" it is asked again; "stop"
saves and ends.
"""


def onward(fit: Fit) -> Literal["go"]:
    """The way of a run that nobody steers."""
    return "go"


class Diverged(AnchorfieldError):
    """The optimisation left the finite numbers or exploded; the last good checkpoint stays."""


class Cancelled(AnchorfieldError):
    """The user stopped the training; what was trained is saved."""

    exit_code = 130


def train(
    source: Scene | Path | str | None = None,
    method: str | None = None,
    *,
    settings: Method | Mapping[str, Any] | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    seed: int | None = None,
    downscale: int | None = None,
    split: str | None = None,
    background: tuple[float, float, float] | None = None,
    backend: str | None = None,
    out: Path | str | None = None,
    resume: bool = False,
    base: Job | None = None,
    save_every: float = 60.0,
    show: Show | None = None,
    steer: Steer = onward,
    start: Gaussians | None = None,
    frozen: Tensor | None = None,
) -> Run:
    """Train on a capture (a path or a loaded scene) and return the finished run.

    `settings` is a settings object of the method or a mapping from flags without dashes ("sh-degree") to values. What
    is None comes from the run in `out` with `resume`, else from `base`, else from the defaults. `save_every` is in
    seconds of wall time. Raises Cancelled after Ctrl-C, SIGTERM or `steer(fit)` saying "stop", with everything saved.
    `start` are Gaussians in the training frame to begin with, of which those of the bool mask `frozen` [N] stay as they
    are bit for bit.
    """
    scene = source if isinstance(source, Scene) else None
    previous = _previous(out, resume)
    wish = Wish(
        source=None if source is None else Path(source.path if isinstance(source, Scene) else source),
        method=method,
        settings=settings,
        seed=seed,
        steps=steps,
        minutes=minutes,
        downscale=scene.downscale if scene else downscale,
        split=split,
        background=_background(scene, previous) if scene else background,
        backend=backend,
    )
    machine.single_torch_thread()
    asked = wish.resumed(previous) if previous else wish.fresh(base)
    _check_start(asked, start, frozen, resume)
    folder = Path(out) if out is not None else default_folder(asked)
    _refuse_existing(folder, resume)
    files.output_folder(folder)
    with locked(folder), backends.using(asked.backend):
        loaded = scene or _loaded(asked, folder)
        journal = Journal(folder, show or plain_lines())
        try:
            _Training(asked, folder, journal, save_every, steer, start, frozen).run(loaded, bool(previous))
        except Exception as problem:
            if not isinstance(problem, AnchorfieldError):
                problem.add_note(f"The full traceback is in {journal.trace(problem)}")
            raise
        finally:
            journal.close()
    return Run.open(folder)


def default_folder(asked: Job) -> Path:
    """runs/<scene>/<method>-<time> below the working directory."""
    name = asked.source.name if asked.source.is_dir() else asked.source.parent.name
    return Path("runs") / (name or "scene") / f"{asked.method}-{time.strftime('%Y%m%d-%H%M%S')}"


@dataclass
class _Training:
    """A run in the making."""

    job: Job
    folder: Path
    journal: Journal
    save_every: float
    steer: Steer
    begin_from: Gaussians | None = None
    frozen: Tensor | None = None
    seconds: float = 0.0  # of training
    evaluation_seconds: float = 0.0
    saving_seconds: float = 0.0
    psnr: float | None = None  # the last measured
    count: int | None = None
    views: tuple[int, ...] = ()  # held-out views that are measured while training
    saved_step: int = -1
    losses: LossWatch = field(default_factory=LossWatch)

    def run(self, scene: Scene, resume: bool) -> None:
        """Train to the end of the budget, then evaluate and report."""
        start = self._start(scene, resume)
        for text in scene.warnings:
            self.journal.warn(text)
        if self.begin_from is not None:
            still = 0 if self.frozen is None else int(self.frozen.sum())
            self.journal.say(f"starting from {len(self.begin_from):,} Gaussians, {still:,} of them frozen")
        elif not isinstance(self.job.settings, IgnoresPoints):
            scene = self._with_points(scene)
        if self.begin_from is None and isinstance(self.job.settings, HasPlan):
            for line in self.job.settings.plan(scene):
                self.journal.say(line)
        step = int(start.facts["step"]) if start else 0
        if self.job.progress(step, self.seconds) >= 1:
            self.journal.say(f"the budget is spent at step {step}: raise --steps or --minutes to train on")
        else:
            step = self._optimise(scene, start)
        self._finish(scene, step)

    def _start(self, scene: Scene, resume: bool) -> Checkpoint | None:
        """Write what the run is; where it goes on, the checkpoint from which."""
        store = self.folder / CHECKPOINTS
        checkpoints.clear_leftovers(store)
        start = checkpoints.latest_valid(store, self.journal.warn) if resume else None
        if start:
            check_belongs(start, self.job)
            self._check_scene(scene)
            self.seconds, self.saved_step = float(start.facts["seconds"]), int(start.facts["step"])
            self.psnr = start.facts["psnr"]
            self.journal.event("resumed", step=self.saved_step, seconds=self.seconds)
        elif resume:
            self.journal.event("resumed", step=0, seconds=0.0)
        else:
            self.journal.event("start", source=str(self.job.source), method=self.job.method, seed=self.job.seed)
        files.write_atomically(self.folder / CONFIG, files.dump(self.job.to_json()))
        self._write_status(scene, "training", self.saved_step if start else 0)
        return start

    def _check_scene(self, scene: Scene) -> None:
        known = files.read_json(self.folder / STATUS)["scene"]
        if [known["train"], known["test"]] != [_names(scene, scene.train), _names(scene, scene.test)]:
            raise DataError(f"{scene.path} has other views than the run was trained on: train it anew with another -o")

    def _with_points(self, scene: Scene) -> Scene:
        """The scene, with points triangulated from its photographs where it has none."""
        if scene.points is not None:
            return scene
        from anchorfield.scenes.triangulate import triangulated_points

        text = "\n".join([str(scene.path.resolve()), str(scene.downscale), *_names(scene, range(len(scene.views)))])
        name = f"points-{hashlib.sha256(text.encode()).hexdigest()[:12]}.npz"
        points = triangulated_points(scene, self.folder.parent / name, self.journal.say)
        return dataclasses.replace(scene, points=points)

    def _optimise(self, scene: Scene, start: Checkpoint | None) -> int:
        """Step until the budget is spent; returns the number of steps."""
        state = {**start.state, "progress": self._progress(start)} if start else None
        if state is None and self.begin_from is not None and isinstance(self.job.settings, CanStart):
            generator = self.job.settings.fit_from(scene, self.begin_from, self.frozen)
        else:
            generator = self.job.settings.fit(scene, state)
        marks = [mark for mark in MILESTONES if state is None or mark > state["progress"]]
        saved, shown, shown_step = time.monotonic(), math.inf, 0
        with stop_requests() as stop:
            for fit in self._timed(generator):
                fit.progress = self.job.progress(fit.step, self.seconds)
                self._check(fit)
                now, done = time.monotonic(), fit.progress >= 1
                if shown == math.inf:  # the first step also prepares: it says nothing about the speed
                    shown, shown_step = now, fit.step
                if now - shown >= 1 or done or stop.asked:
                    self._show(fit, scene, (fit.step - shown_step) / max(now - shown, 1e-9))
                    shown, shown_step = now, fit.step
                measured = marks and fit.progress >= marks[0] and not stop.asked
                if measured:
                    self._measure(fit, scene)
                    marks = [mark for mark in marks if mark > fit.progress]
                if measured or done or time.monotonic() - saved >= self.save_every:
                    self._save(fit, scene, self.psnr if measured else None, last=done)
                    saved = time.monotonic()
                begin = time.monotonic()
                while (wish := self.steer(fit)) == "save":
                    self._save(fit, scene, None, last=False)
                    saved = time.monotonic()
                shown += time.monotonic() - begin  # a pause says nothing about the speed
                if stop.asked or (wish == "stop" and not done):
                    if shown_step != fit.step:
                        self._show(fit, scene, (fit.step - shown_step) / max(time.monotonic() - shown, 1e-9))
                    self._save(fit, scene, None, last=True)
                    self._cancel(fit, scene)
                if done:
                    break
            self._save(fit, scene, None, last=True)  # a method that ends before its budget
        return fit.step

    def _progress(self, start: Checkpoint) -> float:
        return self.job.progress(int(start.facts["step"]), self.seconds)

    def _timed(self, generator: Iterator[Fit]) -> Iterator[Fit]:
        """The generator's steps; what they take is training time."""
        while True:
            begin = time.perf_counter()
            try:
                fit = next(generator)
            except StopIteration:
                return
            self.seconds += time.perf_counter() - begin
            yield fit

    def _check(self, fit: Fit) -> None:
        problem = self.losses.problem(fit.losses)
        if problem:
            self._diverge(fit, problem)

    def _diverge(self, fit: Fit, problem: str) -> None:
        self.journal.event("end", status="diverged", step=fit.step, seconds=self.seconds)
        self._update_status(status="diverged")
        kept = f"the checkpoint of step {self.saved_step} is kept" if self.saved_step >= 0 else "nothing was saved yet"
        raise Diverged(f"training diverged at step {fit.step}: {problem}; {kept}. Lower the learning rates")

    def _show(self, fit: Fit, scene: Scene, speed: float) -> None:
        self.count = gaussian_count(fit.model, scene)
        remaining = (1 - fit.progress) * self.seconds / max(fit.progress, 1e-9)
        if self.job.steps is not None and speed > 0:  # steps grow slower: only the present speed tells
            remaining = (self.job.steps - fit.step) / speed
        self.journal.event(
            "step",
            step=fit.step,
            seconds=self.seconds,
            progress=fit.progress,
            eta=max(0.0, remaining),
            steps_per_second=speed or fit.step / max(self.seconds, 1e-9),
            loss=sum(fit.losses.values()),
            losses=fit.losses,
            psnr=self.psnr,
            count=self.count,
            memory=machine.resident_bytes(),
        )

    def _measure(self, fit: Fit, scene: Scene) -> None:
        """The held-out PSNR over as many views as the time allows; the same views all through the run."""
        if not scene.test:
            return
        begin = time.perf_counter()
        if not self.views:
            rendered(fit.model, scene, scene.test[0])  # the first render also prepares
            trial = time.perf_counter()
            view_psnr(scene, scene.test[0], rendered(fit.model, scene, scene.test[0]))
            self.views = self._affordable(scene, time.perf_counter() - trial, self.seconds / fit.progress)
        scores = [view_psnr(scene, i, rendered(fit.model, scene, i)) for i in self.views]
        self.psnr = sum(scores) / len(scores)
        self.evaluation_seconds += time.perf_counter() - begin
        self.journal.event("evaluated", step=fit.step, seconds=self.seconds, psnr=self.psnr, views=len(scores))

    def _affordable(self, scene: Scene, seconds: float, expected: float) -> tuple[int, ...]:
        allowed = max(EVALUATION_SECONDS, EVALUATION_SHARE * expected) / max(seconds, 1e-9)
        count = max(1, min(len(scene.test), int(allowed)))
        return tuple(scene.test[i * len(scene.test) // count] for i in range(count))

    def _save(self, fit: Fit, scene: Scene, psnr: float | None, last: bool) -> None:
        """Write a checkpoint. A full disk costs only this one, unless it is the last of the run."""
        if fit.step == self.saved_step:
            return
        begin = time.perf_counter()
        state = fit.state()
        broken = checkpoints.not_finite(state)
        if broken:
            self._diverge(fit, f"{broken} holds numbers that are not finite")
        store = self.folder / CHECKPOINTS
        try:
            path = checkpoints.save(store, state, self._facts(fit, psnr))
        except OSError as problem:
            self._lost(fit, problem, last)
            return
        checkpoints.prune(store)
        self.saved_step = fit.step
        self._write_status(scene, "training", fit.step)
        spent = time.perf_counter() - begin
        self.saving_seconds += spent
        self.journal.event("saved", step=fit.step, seconds=self.seconds, path=str(path), save_seconds=spent)

    def _facts(self, fit: Fit, psnr: float | None) -> dict[str, Any]:
        return {
            "method": self.job.method,
            "settings": self.job.to_json()["settings"],
            "step": fit.step,
            "seconds": self.seconds,
            "progress": fit.progress,
            "psnr": psnr,
            "anchorfield": machine.version(),
        }

    def _lost(self, fit: Fit, problem: OSError, last: bool) -> None:
        kept = f"the checkpoint of step {self.saved_step} is" if self.saved_step >= 0 else "no checkpoint is"
        reason = f"step {fit.step} could not be saved: {problem.strerror or problem}; {kept} on disk"
        if last:
            raise DataError(f"{reason}. Free some space and continue with --resume") from problem
        self.journal.warn(f"{reason}; training goes on")

    def _cancel(self, fit: Fit, scene: Scene) -> None:
        self._write_status(scene, "cancelled", fit.step)
        self.journal.event("end", status="cancelled", step=fit.step, seconds=self.seconds)
        raise Cancelled(f"cancelled at step {fit.step}; saved. Continue with --resume -o {self.folder}")

    def _finish(self, scene: Scene, step: int) -> None:
        """The final evaluation and the report; they are no training time."""
        from anchorfield.app.report import write_report

        run = Run.open(self.folder)
        run.__dict__["scene"] = scene  # as loaded: saves reading the capture again
        begin = time.perf_counter()
        result = evaluate(run) if scene.test else None
        self.psnr = result.summary["psnr"] if result else None
        self.evaluation_seconds += time.perf_counter() - begin
        self._write_status(scene, "finished", step)
        self.journal.event("end", status="finished", step=step, seconds=self.seconds, psnr=self.psnr)
        report = write_report(run, result)
        apart = f"evaluation {self.evaluation_seconds:.1f} s and saving {self.saving_seconds:.1f} s not counted"
        self.journal.say(f"training took {machine.human_time(self.seconds)} ({apart})")
        if result:
            low, high = result.summary["psnr_interval"]
            mean, structure = result.summary["psnr"], result.summary["ssim"]
            self.journal.say(f"held-out PSNR {mean:.2f} dB ({low:.2f} to {high:.2f}), SSIM {structure:.4f}")
        self.journal.say(f"run: {self.folder}")
        self.journal.say(f"report: {report}")

    def _write_status(self, scene: Scene, status: str, step: int) -> None:
        content = {
            "format": 1,
            "status": status,
            "step": step,
            "seconds": self.seconds,
            "evaluation_seconds": self.evaluation_seconds,
            "saving_seconds": self.saving_seconds,
            "psnr": self.psnr,
            "gaussians": self.count,
            "peak_memory": machine.peak_bytes(),
            "scene": _scene_facts(scene),
            "environment": machine.environment(),
        }
        try:
            files.write_atomically(self.folder / STATUS, files.dump(content))
        except DataError as problem:
            self.journal.warn(f"{problem}; going on")

    def _update_status(self, **changes: Any) -> None:
        path = self.folder / STATUS
        try:
            files.write_atomically(path, files.dump({**files.read_json(path), **changes}))
        except DataError as problem:
            self.journal.warn(f"{problem}; going on")


def _loaded(asked: Job, folder: Path) -> Scene:
    """The job's capture; where it cannot be used, no empty folder stays behind."""
    try:
        return open_scene(asked)
    except AnchorfieldError:
        with contextlib.suppress(OSError):  # it holds an earlier run
            folder.rmdir()
        raise


def _check_start(asked: Job, start: Gaussians | None, frozen: Tensor | None, resume: bool) -> None:
    """Raise UsageError where a run cannot begin from Gaussians."""
    if start is None:
        if frozen is not None:
            raise UsageError("frozen: needs start, the Gaussians that it speaks of")
        return
    if resume:
        raise UsageError("start: a resumed run goes on from its own checkpoint; give another -o")
    if not isinstance(asked.settings, CanStart):
        known = [name for name in names() if issubclass(load(name), CanStart)]
        raise UsageError(f"method '{asked.method}' cannot start from Gaussians. Those that can: {', '.join(known)}")


def _previous(out: Path | str | None, resume: bool) -> Job | None:
    """The job of the run that `resume` continues; None where nothing was started yet."""
    if not resume:
        return None
    if out is None:
        raise UsageError("--resume needs the folder of the run: pass -o RUN_DIR")
    path = Path(out) / CONFIG
    return job.read(path) if path.is_file() else None


def _background(scene: Scene, previous: Job | None) -> tuple[float, float, float] | None:
    """What a loaded scene asks for: a run that left the choice to the capture's reader goes on so."""
    return None if previous and previous.background is None else scene.background


def _refuse_existing(folder: Path, resume: bool) -> None:
    if resume or not folder.is_dir():
        return
    if any(folder.iterdir()):
        raise UsageError(f"{folder} exists and is not empty: pass --resume to continue it, or another -o")


def _scene_facts(scene: Scene) -> dict[str, Any]:
    camera = scene.views[scene.train[0]].camera
    return {
        "name": scene.name,
        "train": _names(scene, scene.train),
        "test": _names(scene, scene.test),
        "resolution": [camera.width, camera.height],
        "background": list(scene.background),
        "source_from_world": scene.source_from_world.tolist(),
        "warnings": list(scene.warnings),
    }


def _names(scene: Scene, indices: Any) -> list[str]:
    return [scene.views[index].name for index in indices]
