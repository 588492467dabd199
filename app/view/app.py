"""The viewer: one process that holds what is open, trains it, draws it and answers every browser that looks at it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import queue
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import viser

from anchorfield.app import machine
from anchorfield.app.guards import sigterm_interrupts
from anchorfield.app.jobs import Queue
from anchorfield.app.problems import in_words
from anchorfield.app.view import frame, panels
from anchorfield.app.view.broker import Broker, Picture, to_page, to_viser
from anchorfield.app.view.compare import Comparison
from anchorfield.app.view.document import Document, open_document
from anchorfield.app.view.in_browser import InBrowser, Sent, as_sent
from anchorfield.app.view.live import Live
from anchorfield.app.view.panels import header
from anchorfield.app.view.pictures import PHOTOGRAPH, Look, Pictures, Split
from anchorfield.app.view.server import Serving, open_window, start
from anchorfield.methods import HasGaussians
from anchorfield.renderer.cameras import Camera, focus
from anchorfield.renderer.errors import AnchorfieldError, UsageError

Kind = Literal["info", "warning", "error"]
Handler = Callable[[int], str | None]  # is given the id of the client that asked; returns a sentence to show
COLOURS = {"info": (63, 140, 255), "warning": (240, 160, 40), "error": (230, 70, 70)}
TITLES = {"info": "Done", "warning": "Note", "error": "That did not work"}
SECONDS = {"info": 4.0, "warning": 8.0, "error": 15.0}  # that a notification stays
FLIGHT_SECONDS, FLIGHT_FRAMES = 0.45, 12
FIRST_FOV = 0.9  # radians
PANEL_WIDTH = 380  # CSS pixels
WALKING = frozenset("WASDQE")  # keys with which the page moves the camera, whatever is held with them
PALETTE = {"cmd/ctrl+k": "the palette", "cmd/ctrl+shift+p": "the palette"}
PLACE = "anchorfield-camera"  # under which a browser remembers where it stood


class Viewer:
    """What every panel builds on: the parts of the program and the ways to speak to the people before it.

    Widgets of `gui` are shared by all browsers and come back on reload; a client has only its camera for itself.
    """

    def __init__(self, serving: Serving, document: Document, others: Sequence[Document] = ()) -> None:
        """`others` are open beside the document, to be compared with it."""
        self.serving, self.server, self.gui = serving, serving.viser, serving.viser.gui
        self.document, self.others = document, list(others)
        self.comparison = Comparison(_sources(self.document, self.others))
        self.look = Look()
        self.jobs = Queue()
        self.live = Live(document)
        self.problem: str | None = None  # why the last picture could not be drawn
        self._hotkeys = dict(PALETTE)
        self._notes: dict[tuple[int, str, Kind], viser.NotificationHandle] = {}  # by client, title and kind
        self._opened: list[Callable[[], None]] = []
        self._ticks: list[Callable[[], None]] = []
        self._tasks: queue.SimpleQueue[tuple[str, Callable[[], str | None], int | None] | None] = queue.SimpleQueue()
        self._places: dict[int, str] = {}  # what the browsers remember
        self._covered: set[int] = set()  # clients whose picture is viser's background
        self._closing = threading.Event()
        self.broker = Broker(
            lambda camera, look: self.comparison.draw(camera, look),
            self._deliver,
            paint=lambda picture, camera, look: self.comparison.paint(picture, camera, look),
            tell=self._told,
            training=lambda: self.live.state == "training",
            turn=lambda: self.live.turn(),
        )
        self.in_browser = InBrowser(self._to_be_sent, self._sent, lambda: self.live.state == "training")
        self.server.scene.configure_default_lights(cast_shadow=False)  # shadow maps cost most of what a page draws
        self.server.scene.configure_environment_map(None)
        self.gui.configure_theme(dark_mode=True, control_width="large", show_logo=False, show_share_button=False)
        self.gui.set_panel_label("anchorfield")
        self.gui.main_panel.dock_right()
        self.gui.main_panel.set_width(PANEL_WIDTH)
        header.build(self)
        self.tabs = self.gui.add_tab_group()
        panels.build_all(self)
        for name, loop in (("actions", self._work), ("clock", self._tick)):
            threading.Thread(target=loop, name=f"viewer-{name}", daemon=True).start()
        self.server.on_client_connect(self._connected)
        self.server.on_client_disconnect(lambda client: self._left(client.client_id))
        serving.overlay.on_hello(self._greeted)
        document.on_change(self._changed)
        self.every_second(self._remember)
        self._show_document()

    # What panels use.

    def tab(self, label: str, icon: str | None = None) -> viser.GuiTabHandle:
        """A new tab, to be filled in a `with` block."""
        return self.tabs.add_tab(label, _icon(icon))

    def button(
        self,
        label: str,
        function: Handler,
        *,
        hint: str | None = None,
        icon: str | None = None,
        colour: str | None = None,
    ) -> viser.GuiButtonHandle:
        """A button that runs `function(client_id)` as an action (see `act`)."""
        handle = self.gui.add_button(label, hint=hint, icon=_icon(icon), color=colour)  # type: ignore[arg-type]
        handle.on_click(lambda event: self.act(label, lambda: function(_id(event.client)), _id(event.client)))
        return handle

    def command(
        self,
        name: str,
        hotkey: str | None,
        function: Handler,
        description: str | None = None,
        icon: str | None = None,
    ) -> None:
        """A line of the command palette, with a hotkey such as "E" or "shift+E"; runs `function(client_id)`."""
        if hotkey is not None and hotkey.lower() in self._hotkeys:
            raise ValueError(f"the hotkey {hotkey} of '{name}' already is that of '{self._hotkeys[hotkey.lower()]}'")
        modifier, _, key = (hotkey or "").rpartition("+")
        if key in WALKING:
            raise ValueError(f"the hotkey {hotkey} of '{name}' would also move the camera")
        if hotkey is not None:
            self._hotkeys[hotkey.lower()] = name
        handle = self.gui.add_command(
            name,
            description=description,
            hotkey=key or None,  # type: ignore[arg-type]
            modifier=modifier or None,  # type: ignore[arg-type]
            icon=_icon(icon),
        )
        handle.on_trigger(lambda event: self.act(name, lambda: function(_id(event.client)), _id(event.client)))

    def act(self, name: str, function: Callable[[], str | None], client: int | None = None) -> None:
        """Run an action on the one worker thread; the sentence it returns, or what went wrong, is shown.

        Actions run one after another in the order in which they were asked for, whoever asked.
        """
        self._tasks.put((name, function, client))

    def notify(self, text: str, kind: Kind = "info", client: int | None = None, title: str | None = None) -> None:
        """Show a sentence to one client, or to all, in the place of one of the same title and kind."""
        title = title or TITLES[kind]
        for id, handle in self.server.get_clients().items():
            if client is None or id == client:
                shown = handle.add_notification(title, text, auto_close_seconds=SECONDS[kind], color=COLOURS[kind])
                before = self._notes.pop((id, title, kind), None)
                self._notes[id, title, kind] = shown
                if before is not None:
                    before.remove()

    def on_open(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever another document is open."""
        self._opened.append(callback)

    def every_second(self, callback: Callable[[], None]) -> None:
        """Call `callback` about once a second."""
        self._ticks.append(callback)

    def open(self, path: Path | None, scene: Path | None = None) -> str:
        """Open a run, a model or a capture instead of what is open; raises what `open_document` raises."""
        document = open_document(path, scene)
        self.live.stop()
        share = self.live.share
        self.document, self.live = document, Live(document)
        self.live.share = share
        document.on_change(self._changed)
        self._show_sources()
        self._show_document()
        return f"{document.name} is open"

    def open_beside(self, path: Path) -> str:
        """Open another run or model to compare with; raises what `open_document` raises."""
        document = open_document(path)
        self.others = [other for other in self.others if other.path != path] + [document]
        self._show_sources()
        return f"{document.name} can be compared with now"

    def refresh(self, client: int | None = None) -> None:
        """Draw anew for one client, or for all."""
        self.broker.refresh(client)

    def set_look(self, look: Look) -> None:
        """Show all clients another kind of picture."""
        self.look = look
        for handle in self.server.get_clients().values():
            self._ask(handle)

    def client(self, id: int) -> viser.ClientHandle:
        """The browser with this number; raises UsageError where it has gone."""
        found = self.server.get_clients().get(id)
        if found is None:
            raise UsageError("the browser that asked for this is no longer connected")
        return found

    def camera(self, client: int) -> Camera:
        """What a client sees now, in the training frame."""
        pose = self.client(client).camera
        return frame.camera_of(pose, pose.image_width, pose.image_height, self.document.near)

    def fly(self, client: int, camera: Camera) -> None:
        """Move a client's camera to `camera` (of the training frame) so that all of its picture is visible."""
        handle = self.client(client)
        position, wxyz = frame.place(camera)
        begin, start = np.array(handle.camera.position), viser.transforms.SO3(np.array(handle.camera.wxyz))
        turn = (start.inverse() @ viser.transforms.SO3(wxyz)).log()
        fov = fitting_fov(camera, handle.camera.aspect)
        for index in range(1, FLIGHT_FRAMES + 1):
            share = index / FLIGHT_FRAMES
            smooth = share * share * (3 - 2 * share)
            with handle.atomic():
                handle.camera.wxyz = (start @ viser.transforms.SO3.exp(smooth * turn)).wxyz
                handle.camera.position = begin + smooth * (position - begin)
                handle.camera.fov += (fov - handle.camera.fov) * smooth
            time.sleep(FLIGHT_SECONDS / FLIGHT_FRAMES)
        forward = viser.transforms.SO3(wxyz).as_matrix()[:, 2]
        handle.camera.look_at = position + frame.VIEW_SCALE * frame.orbit_distance(camera, self.focus) * forward

    def home(self, client: int) -> None:
        """Take a client back to where everybody starts."""
        handle, initial = self.client(client), self.server.initial_camera
        with handle.atomic():
            handle.camera.up_direction = np.asarray(self.document.placement.up, dtype=np.float64)
            handle.camera.position, handle.camera.look_at = initial.position, initial.look_at
            handle.camera.fov = initial.fov

    def close(self) -> None:
        """Stop everything, training with its state saved first."""
        self._closing.set()
        self._tasks.put(None)
        self.live.stop()
        self.jobs.close()
        self.in_browser.close()
        self.broker.close()
        self.serving.close()

    # How it works.

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            name, function, client = task
            try:
                if text := function():
                    self.notify(text, client=client, title=name)
            except Exception as problem:  # the program lives on, and its log has the rest
                if not isinstance(problem, AnchorfieldError):
                    traceback.print_exc()
                self.notify(in_words(problem), "error", client, title=name)

    def _tick(self) -> None:
        while not self._closing.wait(1.0):
            for callback in list(self._ticks):
                try:
                    callback()
                except Exception:
                    traceback.print_exc()

    def _show_sources(self) -> None:
        """What can be compared has changed: no split stays behind, and the panels look again."""
        self.comparison = Comparison(_sources(self.document, self.others))
        self.set_look(dataclasses.replace(self.look, split=None))
        for callback in self._opened:
            callback()

    def _deliver(self, client: int, picture: Picture) -> None:
        handle = self.server.get_clients().get(client)
        if handle is None or self._draws_itself(client):
            return
        if picture.depth is None:
            to_page(self.serving.overlay, client, picture)
            self._uncover(handle)
        else:
            to_viser(handle, picture, frame.VIEW_SCALE)
            self._covered.add(client)
        self.problem = None
        width, height = picture.size
        self.serving.overlay.status(client, f"{width}x{height} · {picture.milliseconds:.0f} ms{self._counted()}")

    def _uncover(self, handle: viser.ClientHandle) -> None:
        """Take away viser's own background: it would lie before everything that is shown in another way."""
        if handle.client_id in self._covered:
            self._covered.discard(handle.client_id)
            handle.scene.set_background_image(None)

    def _counted(self) -> str:
        document = self.document
        means = document.gaussians().means if document.edited else getattr(document.model, "means", None)
        return "" if means is None else f" · {len(means):,} Gaussians"

    def _told(self, client: int, words: str) -> None:
        """A picture could not be drawn: say why in the line over it; the last good one stays."""
        self.problem = words
        self.serving.overlay.status(client, words)

    def _connected(self, handle: viser.ClientHandle) -> None:
        handle.camera.on_update(lambda _: self._ask(handle))
        self._ask(handle)
        with contextlib.suppress(RuntimeError, TimeoutError, ValueError, KeyError, TypeError):  # new here, or gone
            self._stand(handle, json.loads(handle.local_storage.get_item(PLACE, timeout=5.0) or "{}"))
        self._places[handle.client_id] = ""

    def _stand(self, handle: viser.ClientHandle, place: Mapping[str, Any]) -> None:
        """A browser that comes back stands where it stood, if the same thing is still open."""
        if place["of"] != self._place_name():
            return
        vectors = [np.asarray(place[name], dtype=np.float64) for name in ("up", "position", "look_at")]
        fov = float(place["fov"])
        if any(vector.shape != (3,) or not np.isfinite(vector).all() for vector in vectors) or not 0 < fov < 3:
            return
        camera = handle.camera
        now = (camera.up_direction, camera.position, camera.look_at)
        if np.allclose(now, vectors, atol=1e-4) and math.isclose(camera.fov, fov, abs_tol=1e-4):
            return  # it has not moved from where everybody starts
        with handle.atomic():
            handle.camera.up_direction, handle.camera.position, handle.camera.look_at = vectors
            handle.camera.fov = fov

    def _place_name(self) -> str:
        return str(self.document.path or "")

    def _remember(self) -> None:
        """Every browser keeps where it stands, for when it is loaded again."""
        clients = self.server.get_clients()
        for id, told in list(self._places.items()):
            if id not in clients:
                del self._places[id]
                continue
            camera = clients[id].camera
            place = {"of": self._place_name(), "fov": camera.fov}
            vectors = {"up": camera.up_direction, "position": camera.position, "look_at": camera.look_at}
            text = json.dumps(place | {name: np.round(vector, 6).tolist() for name, vector in vectors.items()})
            if text != told:
                clients[id].local_storage.set_item(PLACE, text)
                self._places[id] = text

    def _greeted(self, client: int) -> None:
        """A browser has said what it can do."""
        if handle := self.server.get_clients().get(client):
            self._ask(handle)

    def _left(self, client: int) -> None:
        self.broker.forget(client)
        self.in_browser.forget(client)
        self._covered.discard(client)
        for key in [key for key in list(self._notes) if key[0] == client]:
            self._notes.pop(key, None)

    def _ask(self, handle: viser.ClientHandle) -> None:
        pose = handle.camera
        try:
            camera = frame.camera_of(pose, pose.image_width, pose.image_height, self.document.near)
        except ValueError as problem:
            self.notify(f"This camera is ignored: {problem}", "warning", handle.client_id)
            return
        if self._draws_itself(handle.client_id):
            if self.in_browser.camera(handle, camera):
                self.broker.forget(handle.client_id)
            return
        self.in_browser.forget(handle.client_id)
        self.broker.camera(handle.client_id, camera, self.look)

    def _draws_itself(self, client: int) -> bool:
        """Whether a browser is to draw, can, and what it shows is made of Gaussians."""
        look = self.look
        if not look.in_browser or look.mode != "rgb" or look.split or not self.serving.overlay.has_gpu(client):
            return False
        return self.document.edited or isinstance(self.document.model, HasGaussians)

    def _to_be_sent(self, camera: Camera) -> Sent | None:
        with self.live.turn():
            gaussians = Pictures(self.document).gaussians(camera)
            return None if gaussians is None else as_sent(gaussians, camera, frame.VIEW_SCALE)

    def _sent(self, client: int, sent: Sent | None, seconds: float) -> None:
        """A browser has what it draws; or gets pictures again, for there is nothing that it could."""
        handle = self.server.get_clients().get(client)
        if handle is None:
            return
        if sent is None:
            self._ask(handle)
            return
        red, green, blue = (255 * self.document.background).round().int().tolist()
        self.serving.overlay.nothing(client, f"rgb({red} {green} {blue})")
        self._uncover(handle)
        count = f"{len(sent.centers):,} Gaussians, sent in {seconds:.1f} s"
        self.serving.overlay.status(client, f"drawn by this browser · {count}")

    def _changed(self) -> None:
        self.broker.refresh()
        self.in_browser.refresh()

    def _show_document(self) -> None:
        """Up, first camera and picture of what is open."""
        up = np.asarray(self.document.placement.up, dtype=np.float64)
        self.server.scene.set_up_direction(up)
        scene = self.document.scene
        cameras = [view.camera for view in scene.views] if scene else []
        self.focus = focus(cameras).numpy() if cameras else np.zeros(3)
        position, target = (frame.to_viser(point)[0] for point in frame.first_look(cameras, up))
        initial = self.server.initial_camera
        initial.position, initial.look_at, initial.fov = position, target, FIRST_FOV
        for handle in self.server.get_clients().values():
            with handle.atomic():
                handle.camera.up_direction = up
                handle.camera.position, handle.camera.look_at = position, target
        self.refresh()


def _sources(document: Document, others: Sequence[Document]) -> dict[str, Document]:
    """What is open by a name of its own."""
    found: dict[str, Document] = {}
    for opened in (document, *others):
        name, count = opened.name or "nothing", 2
        while name in found:
            name, count = f"{opened.name} ({count})", count + 1
        found[name] = opened
    return found


def fitting_fov(camera: Camera, aspect: float) -> float:
    """The vertical field of view at which a window of this aspect shows all of the camera's picture."""
    half = max(camera.height / camera.fy, camera.width / camera.fx / aspect) / 2
    return float(2 * np.arctan(half))


def serve(
    paths: list[Path],
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    compare: bool = False,
    window: bool = False,
    scene: Path | None = None,
    train: Mapping[str, Any] | None = None,
) -> int:
    """Open the viewer on runs, models or a capture and stay until Ctrl-C or SIGTERM; returns the exit code.

    With `train` (arguments of `anchorfield.app.train`) training begins at once.
    """
    machine.single_torch_thread()
    warnings.filterwarnings("ignore", module="websockets")
    if train:
        paths = [Path(train["out"] if train["resume"] else train["source"])]
    document, *others = [open_document(path, scene) for path in paths] or [open_document(None)]
    with sigterm_interrupts(), start(host, port, "anchorfield") as serving:
        viewer = Viewer(serving, document, others)
        if compare:
            viewer.set_look(dataclasses.replace(viewer.look, split=_first_split(viewer)))
            serving.overlay.split(None, 0.5)
        if train:
            _begin(viewer, train)
        print("\n".join(serving.lines), flush=True)
        if window:
            print(open_window(serving.url), flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("closing", flush=True)
        finally:
            viewer.close()
    return 0


def _first_split(viewer: Viewer) -> Split:
    """The first two that are open, or the first and its photographs."""
    left, *others = viewer.comparison.names
    if not others and viewer.document.scene is None:
        raise UsageError(f"nothing to compare with: {viewer.document.no_scene_reason}")
    return Split(left, others[0] if others else PHOTOGRAPH)


def _begin(viewer: Viewer, wish: Mapping[str, Any]) -> None:
    """Train as the command line asked for."""
    if wish["resume"]:
        viewer.live.train_on(wish["minutes"], steps=wish["steps"])
        return
    names = ("minutes", "steps", "out", "downscale", "seed", "split", "backend", "save_every")
    viewer.live.start(wish["method"], wish["settings"], **{name: wish[name] for name in names})


def _icon(name: str | None) -> viser.IconName | None:
    return None if name is None else viser.IconName(name)


def _id(client: viser.ClientHandle | None) -> int:
    return -1 if client is None else client.client_id
