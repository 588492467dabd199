"""What is open in the viewer: one thing that renders, its capture, its edits and its place, shared by all browsers."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from anchorfield.app import placement as placements
from anchorfield.app.placement import Placement
from anchorfield.app.run import CONFIG, Run
from anchorfield.methods import HasGaussians, Model
from anchorfield.renderer.cameras import NEAR, Camera
from anchorfield.renderer.errors import AnchorfieldError, DataError, UsageError
from anchorfield.renderer.splatting import splat
from anchorfield.renderer.types import Frame, Gaussians
from anchorfield.scenes.scene import Scene

if TYPE_CHECKING:
    from anchorfield.app.edit import Editor

Array = NDArray[np.float64]
Turn = Callable[[], AbstractContextManager[None]]
NOTHING = "nothing is open: open a run, a model or a capture first"
UNTRAINED = "nothing is trained yet: press Start training first"


class Document:
    """A run, a model of a file, or a capture of which nothing is trained yet; empty where `path` is None."""

    def __init__(
        self,
        name: str = "",
        path: Path | None = None,
        run: Run | None = None,
        load: Callable[[], Scene] | None = None,
    ) -> None:
        self.name = name
        self.path = path
        self.run = run
        self.version = 0  # grows whenever the picture may look different
        self.no_scene_reason: str | None = None if load else NOTHING
        self._load = load
        self._scene: Scene | None = None
        self._live: tuple[Model, Turn] | None = None  # the model in training
        self._editor: Editor | None = None
        self._seen_edits = 0
        self._placement: Placement | None = None
        self._making = threading.RLock()  # held while a scene, an editor or a placement is made: drawing does not wait
        self._lock = threading.RLock()  # held for a moment
        self._listeners: list[Callable[[], None]] = []

    # What it holds.

    @property
    def scene(self) -> Scene | None:
        """The photographs with their cameras, read when first asked for; None with a `no_scene_reason`."""
        with self._making:
            if self._scene is None and self._load is not None:
                try:
                    self._scene = self._load()
                except (AnchorfieldError, OSError) as problem:
                    self.no_scene_reason, self._load = str(problem), None
            return self._scene

    @property
    def model(self) -> Model | None:
        """The model in training, else that of the run; None where nothing is trained."""
        with self._lock:
            if self._live:
                return self._live[0]
            return self.run.model if self.run else None

    @property
    def drawable(self) -> bool:
        """Whether there is anything to draw."""
        with self._lock:
            return self._live is not None or self.run is not None

    @property
    def training(self) -> bool:
        """Whether the model is being trained now: it draws, but cannot be edited."""
        return self._live is not None

    @property
    def no_editor_reason(self) -> str | None:
        """Why nothing can be edited; None where `editor` is there."""
        with self._lock:
            if self._live:
                return "the model is in training: stop the training to edit"
            if self.run is None:
                return UNTRAINED if self.path else NOTHING
            if not isinstance(self.run.model, HasGaussians):
                return f"method '{self.run.job.method}' does not represent its scene by Gaussians"
            return None

    @property
    def editor(self) -> Editor | None:
        """The editor of the Gaussians, made when first asked for; None with a `no_editor_reason`."""
        with self._making:
            if self.no_editor_reason is not None or self.run is None:
                return None
            if self._editor is None:
                from anchorfield.app.edit import Editor

                scene = self.scene  # clean-up judges by what was learned from, as `anchorfield edit` does
                cameras = [scene.views[index].camera for index in scene.train] if scene else []
                made = Editor(self.run.gaussians(), cameras, source_from_world=self.source_from_world)
                with self._lock:
                    self._editor, self._seen_edits = made, made.version
            return self._editor

    @property
    def edited(self) -> bool:
        """Whether what is shown differs from what was trained."""
        with self._lock:
            return self._live is None and self._editor is not None and self._editor.version != self._seen_edits

    @property
    def source_from_world(self) -> Array:
        """The similarity from the training frame to the capture's own, [4, 4]."""
        with self._making:
            if self.run is not None:
                return self.run.source_from_world
            return self.scene.source_from_world if self.scene else np.eye(4)

    @property
    def background(self) -> torch.Tensor:
        """The colour behind the Gaussians, [3]."""
        with self._lock:
            if self._scene is not None:
                return torch.tensor(self._scene.background)
            if self.run is not None and self.run.job.background is not None:
                return torch.tensor(self.run.job.background)
            if self.run is not None and self.run.folder is not None:
                return torch.tensor(self.run.status["scene"]["background"], dtype=torch.float32)
            return torch.zeros(3)

    @property
    def near(self) -> float:
        """How near to a camera something shows, in units of the training frame."""
        with self._lock:
            return self._scene.views[0].camera.near if self._scene is not None else NEAR

    @property
    def placement(self) -> Placement:
        """Up, origin and scale in the training frame; as the capture stands until somebody places it."""
        with self._making:
            if self._placement is None:
                folder = self.run.folder if self.run else None
                kept = placements.read(folder, self.source_from_world) if folder else None
                cameras = [view.camera for view in self.scene.views] if self.scene and kept is None else []
                self._placement = kept or placements.default(self.source_from_world, cameras)
            return self._placement

    @placement.setter
    def placement(self, value: Placement) -> None:
        """Place the scene; a run keeps it."""
        with self._making:
            self._placement = value
            folder = self.run.folder if self.run else None
            if folder:
                placements.write(folder, value, self.source_from_world)
        self.changed()

    # What it shows.

    @torch.no_grad()
    def draw(self, camera: Camera) -> Frame:
        """The view from `camera` (of the training frame): the edits, else the model between two of its steps."""
        with self._lock:
            live, run, edits = self._live, self.run, self._editor if self.edited else None
            background = self.background if edits else None
        if live:
            with live[1]():
                return live[0].render(camera)
        if run is None:
            raise UsageError(UNTRAINED if self.path else NOTHING)
        if edits is not None and background is not None:
            return splat(edits.shown(), camera, background).frame()
        return run.render(camera)

    @torch.no_grad()
    def gaussians(self) -> Gaussians:
        """The Gaussians as edited, in the training frame; raises an error in words where there are none."""
        with self._lock:
            live, run, edits = self._live, self.run, self._editor if self.edited else None
        if live:
            if not isinstance(live[0], HasGaussians):
                raise DataError("the method in training does not represent its scene by Gaussians")
            with live[1]():
                return _copied(live[0].gaussians())
        if run is None:
            raise UsageError(UNTRAINED if self.path else NOTHING)
        return edits.gaussians if edits is not None else run.gaussians()

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback()` after every growth of `version`, in the thread that caused it."""
        self._listeners.append(callback)

    def changed(self) -> None:
        """The picture may look different now: after an edit, a step of training, another placement."""
        with self._lock:
            self.version += 1
        for listener in list(self._listeners):
            try:
                listener()
            except Exception:  # a listener's trouble is not the document's
                traceback.print_exc()

    # What training tells it.

    def follow(self, model: Model | None, turn: Turn = nullcontext) -> None:
        """Show a model in training, inside `turn()`; None: the run again."""
        with self._lock:
            self._live = None if model is None else (model, turn)
        self.changed()

    def adopt(self, run: Run) -> None:
        """Show a run that was trained here instead of what was open; edits of that are gone."""
        with self._making, self._lock:
            placed = self._placement
            self.path, self.run, self._live, self._editor = run.path, run, None, None
            if self._scene is not None:
                run.__dict__["scene"] = self._scene  # as loaded: saves reading the capture again
            elif self._load is None:
                self._load, self.no_scene_reason = lambda: run.scene, None
            if placed is not None and run.folder and not (run.folder / placements.FILE).is_file():
                placements.write(run.folder, placed, run.source_from_world)
        self.changed()

    def show_scene(self, scene: Scene) -> None:
        """Take a capture as it was loaded elsewhere, e.g. smaller for training."""
        with self._making:
            self._scene, self.no_scene_reason = scene, None
        self.changed()


def open_document(path: Path | None, scene: Path | None = None) -> Document:
    """What lies at `path`: a run, a model's file, or a capture; empty for None. `scene`: where the photographs lie.

    Raises DataError in words where it is none of these.
    """
    if path is None:
        return Document()
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    from anchorfield.app import model_files

    if (path / CONFIG).is_file() or model_files.recognises(path):
        run = Run.open(path, capture=scene)
        run.model  # noqa: B018 - whether it can be read shows now, not at the first picture
        return Document(_name(run), path, run, lambda: run.scene)
    from anchorfield.scenes.load import load_scene

    loaded = load_scene(path)
    document = Document(loaded.name, path, None, lambda: loaded)
    return document


def _name(run: Run) -> str:
    """What people call it: the scene of a run, the name of a file."""
    if run.folder is None:
        return run.path.name
    try:
        return str(run.status["scene"]["name"])
    except (AnchorfieldError, KeyError, TypeError):
        return run.path.name


def _copied(gaussians: Gaussians) -> Gaussians:
    """The Gaussians apart from the model that goes on changing."""
    from dataclasses import replace

    from anchorfield.renderer.types import PARAMETERS

    return replace(gaussians, **{name: getattr(gaussians, name).detach().clone() for name in PARAMETERS})
