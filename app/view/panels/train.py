"""The Train tab: what to train and for how long, its controls, and curves of how it goes."""

from __future__ import annotations

import json
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from viser import uplot

from anchorfield import methods
from anchorfield.app import job, machine
from anchorfield.app import settings as flat
from anchorfield.app.journal import Event
from anchorfield.app.settings import Setting
from anchorfield.app.view.panels.widgets import put
from anchorfield.renderer.errors import UsageError

if TYPE_CHECKING:
    from anchorfield.app.view.app import Viewer

PRESETS = {"First look (1 min)": 1.0, "Good (5 min)": 5.0, "Standard (10 min)": 10.0, "Thorough (30 min)": 30.0}
OWN = "Own time"
SIZES = {"Full size": 1, "Half": 2, "A quarter": 4, "An eighth": 8}
CURVES = (
    ("loss", "Loss", "#e0654a"),
    ("psnr", "PSNR on held-out photos, dB", "#2f9e5b"),
    ("count", "Gaussians", "#3f8cff"),
)
MOST_POINTS = 400
BUSY = ("training", "paused", "saving")


def build(viewer: Viewer) -> None:
    """The tab; its buttons are those that make sense in the state of the training."""
    gui = viewer.gui
    with viewer.tab("Train", "player-play"):
        words = gui.add_markdown("")
        bar = gui.add_progress_bar(0.0, visible=False)
        controls = _Controls(viewer)
        curves = _Curves(viewer)

    def update() -> None:
        live, document = viewer.live, viewer.document
        events = live.history()
        steps = [event for event in events if event["event"] == "step"]
        words.content = _sentence(viewer, steps[-1] if steps else None)
        bar.visible = live.state in BUSY
        bar.animated = live.state == "training"
        if steps:
            put(bar, value=100 * min(1.0, steps[-1]["progress"]))
        controls.show(live.state, can_start=document.scene is not None, has_run=document.run is not None)
        curves.show(events)

    viewer.on_open(update)
    viewer.every_second(update)
    update()


def _sentence(viewer: Viewer, last: Event | None) -> str:
    state, document = viewer.live.state, viewer.document
    if state in BUSY and last is None:
        return "Preparing the photos and the first points …"
    if last is None:
        if document.scene is None:
            return f"Training needs photos. {document.no_scene_reason or ''}"
        return f"{len(document.scene.train)} photos to learn from, {len(document.scene.test)} kept aside to test on."
    left = f", about {machine.human_time(last['eta'])} left" if state in BUSY else ""
    parts = [f"**{machine.human_time(last['seconds'])}** trained{left}"]
    if last.get("psnr") is not None:
        parts.append(f"**{last['psnr']:.2f} dB** on held-out photos")
    if last.get("count") is not None:
        parts.append(f"**{last['count']:,}** Gaussians")
    parts.append(
        f"step {last['step']:,} · {last['steps_per_second']:.1f} steps/s · {machine.human_bytes(last['memory'])}"
    )
    return "  \n".join(parts)


class _Controls:
    """Method, time and settings, and the buttons."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        gui = viewer.gui
        self._running = gui.add_folder("Now")
        with self._running:
            self._pause = viewer.button("Pause", lambda _: self._do("pause"), icon="player-pause", hint="Key P")
            self._resume = viewer.button("Resume", lambda _: self._do("resume"), icon="player-play", hint="Key P")
            self._save = viewer.button(
                "Save now",
                lambda _: self._do("save"),
                icon="device-floppy",
                hint="Write a checkpoint and go on. Key Shift P",
            )
            self._stop = viewer.button(
                "Stop and save",
                lambda _: self._do("stop"),
                icon="player-stop",
                hint="End here; what is trained is kept",
            )
        self._longer = gui.add_folder("Train longer")
        with self._longer:
            self._more = gui.add_number("Minutes more", 5.0, min=0.1, step=0.5)
            viewer.button("Go on", lambda _: self._train_on(), icon="player-track-next", hint="From where it stopped")
        self._new = gui.add_folder("New training")
        with self._new:
            names = tuple(methods.names())
            default = job.DEFAULT_METHOD if job.DEFAULT_METHOD in names else names[0]
            self._method = gui.add_dropdown(
                "Method", names, initial_value=default, hint="How the scene is represented and learned"
            )
            self._about = gui.add_markdown("")
            self._preset = gui.add_dropdown(
                "Time", (*PRESETS, OWN), initial_value="Good (5 min)", hint="How long to train"
            )
            self._minutes = gui.add_number("Minutes", 5.0, min=0.1, step=0.5, visible=False)
            self._size = gui.add_dropdown(
                "Photo size", tuple(SIZES), hint="Smaller photos train faster, with less detail"
            )
            self._start = viewer.button("Start training", lambda _: self.start(), icon="player-play", colour="green")
            self._advanced = gui.add_folder("All settings of the method", expand_by_default=False)
        self._form = _Form(viewer, self._advanced)
        self._method.on_update(lambda _: self._pick_method())
        self._preset.on_update(lambda _: self._pick_preset())
        self._pick_method()
        viewer.command("Start training", "T", lambda _: self.start(), icon="player-play")
        viewer.command("Pause or resume training", "P", lambda _: self._toggle(), icon="player-pause")
        viewer.command("Save a checkpoint now", "shift+P", lambda _: self._do("save"), icon="device-floppy")
        viewer.command("Stop training and save", None, lambda _: self._do("stop"), icon="player-stop")

    def show(self, state: str, can_start: bool, has_run: bool) -> None:
        """Only what makes sense now."""
        busy = state in BUSY
        for handle, visible in (
            (self._running, busy),
            (self._pause, state in ("training", "saving")),
            (self._resume, state == "paused"),
            (self._longer, not busy and has_run and can_start),
            (self._new, not busy and can_start),
        ):
            if handle.visible != visible:
                handle.visible = visible

    def start(self) -> str:
        """Begin a new training with what the form says."""
        self._viewer.live.start(
            self._method.value,
            self._form.changed(),
            minutes=self._minutes.value if self._preset.value == OWN else PRESETS[self._preset.value],
            downscale=SIZES[self._size.value],
        )
        return "Training has started; the picture follows it"

    def _pick_method(self) -> None:
        self._about.content = f"*{methods.describe(self._method.value)}*"
        self._form.fill(self._method.value)

    def _pick_preset(self) -> None:
        self._minutes.visible = self._preset.value == OWN

    def _train_on(self) -> str:
        self._viewer.live.train_on(self._more.value)
        return f"Training goes on for {self._more.value:g} minutes"

    def _toggle(self) -> str:
        return self._do("resume" if self._viewer.live.state == "paused" else "pause")

    def _do(self, name: str) -> str:
        if self._viewer.live.state not in BUSY:
            raise UsageError("nothing is being trained: press Start training in the Train tab")
        getattr(self._viewer.live, name)()
        return {
            "pause": "Training is paused",
            "resume": "Training goes on",
            "save": "A checkpoint is being written",
            "stop": "Training stops; what was trained is saved",
        }[name]


class _Form:
    """A widget for each setting of a method, made from its dataclass; choices change which ones there are."""

    def __init__(self, viewer: Viewer, folder: Any) -> None:
        self._viewer, self._folder = viewer, folder
        self._handles: list[tuple[Setting, Any]] = []
        self._method, self._choices = "", dict[str, str]()

    def fill(self, method: str) -> None:
        """The form of another method, with its defaults."""
        self._method, self._choices = method, {}
        self._fill({})

    def changed(self) -> dict[str, Any]:
        """The settings that differ from the defaults, by flag."""
        values = {setting.flag: _read(setting, handle.value) for setting, handle in self._handles}
        return self._choices | {s.flag: values[s.flag] for s, _ in self._handles if values[s.flag] != s.default}

    def _fill(self, values: dict[str, Any]) -> None:
        for _, handle in self._handles:
            handle.remove()
        self._handles = []
        with self._folder:
            for setting in flat.flatten(job.default_settings(self._method), self._choices.get):
                handle = _widget(self._viewer, setting, values.get(setting.flag, setting.default))
                self._handles.append((setting, handle))
                if _is_choice(setting):
                    handle.on_update(self._chooser(setting, handle))

    def _chooser(self, setting: Setting, handle: Any) -> Callable[[Any], None]:
        def choose(_: Any) -> None:
            kept = {s.flag: _read(s, h.value) for s, h in self._handles}
            self._choices[setting.flag] = handle.value
            self._fill(kept)

        return choose


def _is_choice(setting: Setting) -> bool:
    return typing.get_origin(setting.annotation) is typing.Literal


def _widget(viewer: Viewer, setting: Setting, value: Any) -> Any:
    gui, label = viewer.gui, setting.flag.replace("-", " ").capitalize()
    if _is_choice(setting):
        return gui.add_dropdown(
            label, tuple(map(str, typing.get_args(setting.annotation))), initial_value=str(value), hint=setting.help
        )
    if setting.annotation is bool:
        return gui.add_checkbox(label, bool(value), hint=setting.help)
    if setting.annotation is int:
        return gui.add_number(label, int(value), step=1, hint=setting.help)
    if setting.annotation is float:
        return gui.add_text(label, f"{value:g}", hint=setting.help)  # a number field would round 1.6e-6 to nothing
    return gui.add_text(label, "" if value is None else str(value), hint=setting.help)


def _read(setting: Setting, value: Any) -> Any:
    """What a widget says as the value of its setting; raises UsageError where it is not one."""
    if setting.annotation is float:
        try:
            return float(value)
        except ValueError:
            raise UsageError(f"{setting.flag.replace('-', ' ')}: expected a number, got '{value}'") from None
    if isinstance(value, str) and not _is_choice(setting) and setting.annotation is not str:
        if value == ("" if setting.default is None else str(setting.default)):
            return setting.default
        try:
            return json.loads(value)
        except ValueError:
            raise UsageError(f"{setting.flag.replace('-', ' ')}: cannot read '{value}'") from None
    return value


class _Curves:
    """Loss, PSNR and count over the minutes of training."""

    def __init__(self, viewer: Viewer) -> None:
        self._seen: tuple[int, ...] = ()
        self._plots = {}
        self._folder = viewer.gui.add_folder("Curves", visible=False)
        with self._folder:
            for name, title, colour in CURVES:
                self._plots[name] = viewer.gui.add_uplot(
                    (np.zeros(1), np.zeros(1)),
                    (uplot.Series(label="minutes"), uplot.Series(label=title, stroke=colour, width=2)),
                    title=title,
                    scales={"x": uplot.Scale(time=False)},
                    legend=uplot.Legend(show=False),
                    height=150,
                    visible=False,
                )

    def show(self, events: list[Event]) -> None:
        """Draw what has come since."""
        series = {name: _points(events, name) for name, _, _ in CURVES}
        seen = tuple(len(x) for x, _ in series.values())
        if seen == self._seen:
            return
        self._seen, self._folder.visible = seen, any(length > 1 for length in seen)
        for name, (x, y) in series.items():
            self._plots[name].visible = len(x) > 1
            if len(x) > 1:
                self._plots[name].data = (x, y)


def _points(events: list[Event], name: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Minutes and values, at most MOST_POINTS of them."""
    kind = "evaluated" if name == "psnr" else "step"
    found = [
        (e["seconds"] / 60, e[name])
        for e in events
        if e["event"] == kind and e.get(name) is not None and "seconds" in e
    ]
    thinned = found[:: max(1, len(found) // MOST_POINTS)]
    array = np.asarray(thinned, dtype=np.float64).reshape(-1, 2)
    return array[:, 0].copy(), array[:, 1].copy()
