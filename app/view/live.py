"""Training in a thread of the viewer: started, paused, stopped and watched by who looks; it needs nobody to look."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from anchorfield.app.journal import Event, read_events
from anchorfield.app.problems import in_words
from anchorfield.app.run import CHECKPOINTS, Run, open_scene
from anchorfield.app.training import Cancelled, train
from anchorfield.app.view.document import Document
from anchorfield.app.view.turns import Turns
from anchorfield.methods import Fit
from anchorfield.renderer.errors import AnchorfieldError, UsageError
from anchorfield.renderer.types import Gaussians
from anchorfield.scenes.load import load_scene
from anchorfield.scenes.scene import Scene

State = Literal["ready", "training", "paused", "saving", "finished", "error"]
BUSY = ("training", "paused", "saving")
PICTURE_SECONDS = 1.0  # between two pictures of a training that nobody moves in
MOST_EVENTS = 8192  # kept in memory: beyond, every second step is forgotten
PATIENCE = 30.0  # seconds that an action waits for the training to do what it was told


class Live:
    """The training of what a document shows; at most one at a time. All methods may be called from any thread."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.state: State = "ready"
        self.problem: str | None = None  # what went wrong, in words
        self.folder: Path | None = None  # of the run that is or was trained here
        self.method: str | None = None
        self._turns = Turns()
        self._changed = threading.Condition(threading.RLock())
        self._wish: Literal["go", "pause", "stop"] = "go"
        self._save = False
        self._thread: threading.Thread | None = None
        self._shown = 0.0  # when the document was last told of a new picture
        self._events: list[Event] = []
        self._listeners: list[Callable[[Event], None]] = []
        if document.run and document.run.folder:
            self._events = read_events(document.run.folder)

    @property
    def busy(self) -> bool:
        """Whether something is trained, paused or saved now."""
        return self.state in BUSY

    @property
    def share(self) -> float:
        """The most that all drawing together may take of the time while training."""
        return self._turns.share

    @share.setter
    def share(self, value: float) -> None:
        """Allow drawing another share."""
        self._turns.share = min(0.95, max(0.01, value))

    def turn(self) -> AbstractContextManager[None]:
        """The model holds still in here, between two steps; waits until drawing has earned its share."""
        return self._turns.drawing()

    def history(self) -> list[Event]:
        """The events of the run so far, the oldest first."""
        with self._changed:
            return list(self._events)

    def on_event(self, callback: Callable[[Event], None]) -> None:
        """Call `callback(event)` for every event of the training, in its thread."""
        self._listeners.append(callback)

    # What people ask for.

    def start(
        self,
        method: str | None = None,
        settings: Mapping[str, Any] | None = None,
        *,
        minutes: float | None = None,
        steps: int | None = None,
        out: Path | None = None,
        downscale: int | None = None,
        seed: int | None = None,
        split: str | None = None,
        backend: str | None = None,
        start: Gaussians | None = None,
        frozen: Tensor | None = None,
        save_every: float = 60.0,
    ) -> None:
        """Begin to train on the document's capture; raises UsageError in words where that cannot be.

        `settings` is by flag ("sh-degree"). `start` are Gaussians to begin with, of which the `frozen` [N] rows stay.
        """
        scene = self.document.scene
        if scene is None:
            raise UsageError(f"training needs photographs: {self.document.no_scene_reason}")
        extra = {name: value for name, value in (("start", start), ("frozen", frozen)) if value is not None}
        wish: dict[str, Any] = {"method": method, "settings": settings, "minutes": minutes, "steps": steps, "out": out}
        wish |= {"seed": seed, "split": split, "backend": backend, "save_every": save_every, **extra}
        as_loaded = (downscale is None or downscale == scene.downscale) and split is None
        reduction = scene.downscale if downscale is None else downscale

        def source() -> Scene:
            return scene if as_loaded else load_scene(scene.path, downscale=reduction, split=split or "auto")

        with self._changed:
            self._refuse_busy()
            self._events, self.method, self.folder = [], method, None
            self._begin(source, wish)

    def train_on(self, minutes: float | None = None, *, steps: int | None = None) -> None:
        """Continue the document's run for so many minutes (or steps) more; None: to the end of its budget."""
        with self._changed:
            self._refuse_busy()
            run = self.document.run
            if run is None or run.folder is None:
                raise UsageError("only a run that was trained here can go on: a file holds no state of the training")
            for name, more in (("minutes", minutes), ("steps", steps)):
                if more is not None and not 0 < more < float("inf"):
                    raise UsageError(f"{name} must be a positive number, got {more}")
            wish: dict[str, Any] = {"out": run.folder, "resume": True}
            if minutes is not None:
                wish["minutes"] = run.seconds / 60 + minutes
            if steps is not None:
                wish["steps"] = run.step + steps
            scene = self.document.scene
            as_trained = scene is not None and scene.downscale == run.job.downscale
            self.method, self.folder = run.job.method, run.folder
            self._begin(lambda: scene if scene is not None and as_trained else open_scene(run.job), wish)

    def pause(self, seconds: float = 10.0) -> None:
        """Save and hold after the present step; waits so long for it."""
        with self._changed:
            if self.busy and self._wish == "go":
                self._wish, self._save = "pause", True
                self._changed.notify_all()
            self._changed.wait_for(lambda: self.state == "paused" or not self.busy, seconds)

    def resume(self) -> None:
        """Go on after a pause."""
        with self._changed:
            if self._wish == "pause":
                self._wish = "go"
                if self.state == "paused":
                    self.state = "training"
                self._changed.notify_all()

    def save(self) -> None:
        """Write a checkpoint after the present step."""
        with self._changed:
            if self.busy:
                self._save = True
                self._changed.notify_all()

    def stop(self, seconds: float = PATIENCE) -> None:
        """End after the present step with everything saved; waits so long for it."""
        with self._changed:
            thread = self._thread if self.busy else None
            if thread:
                self._wish = "stop"
                self._changed.notify_all()
        if thread and thread is not threading.current_thread():
            thread.join(seconds)

    def wait(self, seconds: float | None = None) -> State:
        """Wait until the training has ended, at most so long; returns the state."""
        thread = self._thread
        if thread:
            thread.join(seconds)
        return self.state

    # How it works.

    def _refuse_busy(self) -> None:
        if self.busy or (self._thread and self._thread.is_alive()):
            raise UsageError("a training is under way: stop it first")

    def _begin(self, source: Callable[[], Scene], wish: dict[str, Any]) -> None:
        self.state, self.problem = "training", None
        self._wish, self._save, self._shown = "go", False, 0.0
        self._thread = threading.Thread(target=self._work, args=(source, wish), name="training", daemon=True)
        self._thread.start()

    def _work(self, source: Callable[[], Scene], wish: dict[str, Any]) -> None:
        end: State = "error"
        run: Run | None = None
        try:
            scene = source()
            self.document.show_scene(scene)
            run = train(scene, show=self._show, steer=self._steer, **wish)
            end = "finished"
        except Cancelled:
            end = "ready"
        except Exception as problem:  # the viewer lives on, whatever a method does
            if not isinstance(problem, AnchorfieldError):
                traceback.print_exc()
            self.problem = in_words(problem)
        finally:
            self._turns.rest()
            self._leave(run, end)

    def _leave(self, run: Run | None, end: State) -> None:
        """Show what was kept of the training, then say that it has ended."""
        try:
            if run is None and self.folder and any((self.folder / CHECKPOINTS).glob("step_*")):
                run = Run.open(self.folder)
            if run is None:
                self.document.follow(None)
            else:
                run.model  # noqa: B018 - restored here, not by the thread that draws
                self.document.adopt(run)
        except Exception as problem:
            end, self.problem = "error", self.problem or in_words(problem)
            self.document.follow(None)
        with self._changed:
            self.state = end
            self._changed.notify_all()
        if self.problem:
            self._tell({"event": "error", "text": self.problem})

    def _steer(self, fit: Fit) -> Literal["go", "save", "stop"]:
        """Between two steps: let others draw, save, hold or stop as was asked for."""
        self._turns.end()
        self._picture(fit)
        with self._changed:
            if self._wish == "pause" and not self._save and fit.progress < 1:
                self._turns.rest()
                self._enter("paused")
                self._changed.wait_for(lambda: self._wish != "pause" or self._save)
            if self._wish == "stop" or fit.progress >= 1:
                self._turns.rest()
                self._enter("saving")
                return "stop"
            if self._save:
                self._save = False
                self._enter("saving")
                return "save"
            self._enter("training")
        self._turns.begin()
        return "go"

    def _enter(self, state: State) -> None:
        self.state = state
        self._changed.notify_all()

    def _picture(self, fit: Fit) -> None:
        """The document shows this model from now on; who looks is told now and then that it has changed."""
        first = self.document.model is not fit.model or not self.document.training
        if first or time.monotonic() - self._shown >= PICTURE_SECONDS:
            self._shown = time.monotonic()
            if first:
                self.document.follow(fit.model, self.turn)
            else:
                self.document.changed()

    def _show(self, event: Event) -> None:
        """What the training tells."""
        if event["event"] == "saved":
            self.folder = Path(event["path"]).parent.parent
        with self._changed:
            if event["event"] == "resumed":
                self._events = [earlier for earlier in self._events if earlier.get("step", 0) <= event["step"]]
            self._events.append(event)
            if len(self._events) > MOST_EVENTS:
                self._events = _thinned(self._events)
            early = self._wish == "stop" and not self.document.training and event["event"] != "end"
        self._tell(event)
        if early and self.state == "training":
            raise Cancelled("stopped before the first step: nothing is saved")

    def _tell(self, event: Event) -> None:
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception:  # a listener's trouble is not the training's
                traceback.print_exc()


def _thinned(events: list[Event]) -> list[Event]:
    """Without every second step."""
    kept, odd = [], False
    for event in events:
        odd = not odd if event["event"] == "step" else odd
        if odd or event["event"] != "step":
            kept.append(event)
    return kept
