"""The Path tab: a camera's way through keyframes, shown in the scene, played, kept in a file and rendered as a job."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import viser

from anchorfield.app import files, paths, pictures
from anchorfield.app.paths import CameraPath
from anchorfield.app.view import frame
from anchorfield.app.view.panels import outputs
from anchorfield.app.view.panels.widgets import on_hand, put
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import UsageError

if TYPE_CHECKING:
    from anchorfield.app.view.app import Viewer

ROOT = "/path"
SIZES = {"640 x 360": (640, 360), "1280 x 720": (1280, 720), "1920 x 1080": (1920, 1080), "1080 x 1080": (1080, 1080)}
NOTHING = "Move the view to where the film begins and press **Add this view**. Do so again for every station."
CURVE_POINTS = 200
BEYOND = 1.15  # of the view angle: who stands at a keyframe does not look at its frame
PREVIEW_RATE = 20.0  # cameras a second
MOST_UPLOAD = 10_000_000  # bytes of a keyframe file
LAP = 8  # keyframes of an orbit
SECONDS_OF_LAP = 12.0


def build(viewer: Viewer) -> None:
    """The tab, and keys to add a keyframe and to play."""
    panel = _Panel(viewer)
    viewer.on_open(panel.opened)
    viewer.command("Add this view to the path", "K", panel.add, icon="plus")
    viewer.command("Play the path", None, panel.play, icon="player-play")


class _Panel:
    """The path, its widgets and its picture in the scene."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._path = CameraPath()
        self._playing = threading.Event()
        self._last: Path | None = None
        gui = viewer.gui
        with viewer.tab("Path", "route"):
            self._words = gui.add_markdown(NOTHING)
            viewer.button(
                "Add this view",
                self.add,
                icon="plus",
                colour="green",
                hint="A keyframe at the end of the path. Key K",
            )
            self._one = gui.add_folder("Keyframe", visible=False)
            with self._one:
                self._chosen = gui.add_dropdown("Keyframe", ("1",), hint="The numbers stand in the scene, too")
                self._seconds = gui.add_number("At (s)", 0.0, min=0.0, step=0.1, hint="When the camera is there")
                self._fov = gui.add_number(
                    "View angle (°)", 60.0, min=5.0, max=150.0, step=1.0, hint="Vertical field of view"
                )
                viewer.button("Go there", self._go, icon="plane")
                viewer.button("Replace by this view", self._replace, icon="replace")
                viewer.button("Remove", lambda _: self._remove(), icon="trash")
            self._whole = gui.add_folder("Whole path", visible=False)
            with self._whole:
                self._duration = gui.add_number("Length (s)", 1.0, min=0.1, step=0.5, hint="All times stretch with it")
                self._tension = gui.add_slider(
                    "Straightness",
                    0.0,
                    1.0,
                    0.05,
                    0.0,
                    hint="0: a smooth curve; 1: straight lines from one to the next",
                )
                self._visible = gui.add_checkbox("Show in the scene", True)
                self._play = viewer.button("Play", self.play, icon="player-play", hint="Moves your view along the path")
                self._halt = viewer.button("Stop playing", lambda _: self._stop(), icon="player-stop")
                viewer.button("Clear the path", lambda _: self._clear(), icon="eraser")
            self._render = gui.add_folder("Make a film", visible=False)
            with self._render:
                self._size = gui.add_dropdown("Size", tuple(SIZES), initial_value="1280 x 720")
                self._fps = gui.add_number("Frames a second", 30.0, min=1.0, max=120.0, step=1.0)
                self._name = gui.add_text(
                    "File", "path.mp4", hint="Ends in .mp4; without an ending: a folder of PNG pictures"
                )
                self._frames = gui.add_markdown("")
                viewer.button(
                    "Render", lambda _: self._film(), icon="movie", hint="A job in the background: see the Jobs tab"
                )
                viewer.button("Download", lambda client: outputs.send(viewer, client, self._last), icon="download")
            with gui.add_folder("Files and ready-made paths", expand_by_default=False):
                self._orbit = viewer.button(
                    "A round about the scene",
                    lambda _: self._round(),
                    icon="rotate-360",
                    hint="Eight keyframes on a circle",
                )
                viewer.button(
                    "Save keyframes", self._save, icon="device-floppy", hint="A JSON file for `render --path`, too"
                )
                upload = gui.add_upload_button(
                    "Load keyframes", icon=viser.IconName("upload"), mime_type="application/json"
                )
        for handle, change in (
            (self._chosen, self._fill),
            (self._seconds, self._retime),
            (self._fov, self._zoom),
            (self._duration, self._stretch),
            (self._tension, self._bend),
            (self._fps, self._rate),
            (self._visible, self._draw),
        ):
            on_hand(viewer, "Path", handle, self._checked(change))
        upload.on_upload(
            lambda event: viewer.act("Load keyframes", lambda: self._load(upload.value.content), event.client_id)
        )
        self._show()

    def opened(self) -> None:
        """Another scene: another path."""
        self._path, self._last = CameraPath(), None
        self._show()

    def add(self, client: int) -> str:
        """The client's view becomes the last keyframe."""
        if not self._viewer.document.drawable:
            raise UsageError("there is nothing to film yet: open a run or train first")
        self._path = self._path.added(self._viewer.camera(client))
        self._show(len(self._path.keyframes) - 1)
        return f"Keyframe {len(self._path.keyframes)} at {self._path.keyframes[-1].seconds:g} s"

    def play(self, client: int) -> str | None:
        """Move a client's camera along the path, in a thread, until its end or Stop playing."""
        if len(self._path.keyframes) < 2:
            raise UsageError("a film needs two keyframes: add another view")
        self._stop()
        self._playing = threading.Event()
        self._playing.set()
        self._halt.visible, self._play.visible = True, False
        threading.Thread(target=self._run, args=(client, self._path, self._playing), name="path", daemon=True).start()
        return None

    def _run(self, client: int, path: CameraPath, playing: threading.Event) -> None:
        begun, first = time.monotonic(), path.keyframes[0].seconds
        try:
            like = self._viewer.camera(client)
            while playing.is_set() and (passed := time.monotonic() - begun) < path.seconds + 1 / PREVIEW_RATE:
                camera = path.camera_at(first + min(passed, path.seconds), like)
                handle = self._viewer.client(client)
                position, wxyz = frame.place(camera)
                with handle.atomic():
                    handle.camera.wxyz, handle.camera.position = wxyz, position
                    handle.camera.fov = frame.vertical_fov(camera)
                time.sleep(1 / PREVIEW_RATE)
        except UsageError:
            pass  # the browser has gone
        finally:
            playing.clear()
            self._halt.visible, self._play.visible = False, True

    def _stop(self) -> None:
        self._playing.clear()

    @property
    def _index(self) -> int:
        return max(0, min(int(self._chosen.value.split()[0]), len(self._path.keyframes)) - 1)

    def _go(self, client: int) -> None:
        key = self._path.keyframes[self._index]
        self._viewer.fly(client, self._path.camera_at(key.seconds, self._viewer.camera(client)))

    def _replace(self, client: int) -> str:
        index = self._index
        self._path = self._path.moved(index, self._viewer.camera(client))
        self._show(index)
        return f"Keyframe {index + 1} is this view now"

    def _remove(self) -> str:
        index = self._index
        self._path = self._path.removed(index)
        self._show(index)
        return f"Keyframe {index + 1} is removed"

    def _clear(self) -> str:
        self._path = CameraPath(fps=self._path.fps, tension=self._path.tension)
        self._show()
        return "The path is empty"

    def _round(self) -> str:
        document = self._viewer.document
        if document.scene is None:
            raise UsageError(f"a round needs the cameras of the capture: {document.no_scene_reason}")
        circle = paths.orbit(document.scene, LAP, document.placement.up)
        path = CameraPath(fps=self._path.fps, tension=self._path.tension)
        for index in range(LAP + 1):
            path = path.added(circle[index % LAP], SECONDS_OF_LAP * index / LAP)
        self._path = path
        self._show()
        return f"A round of {SECONDS_OF_LAP:g} s about the scene"

    def _retime(self) -> None:
        index, seconds = self._index, float(self._seconds.value)
        key = self._path.keyframes[index]
        self._path = self._path.retimed(index, seconds)
        moved = [k.seconds == seconds and k.camera_to_world is key.camera_to_world for k in self._path.keyframes]
        self._show(moved.index(True))

    def _zoom(self) -> None:
        index = self._index
        self._path = self._path.zoomed(index, float(self._fov.value))
        self._show(index)

    def _stretch(self) -> None:
        self._path = self._path.lasting(float(self._duration.value))
        self._show(self._index)

    def _bend(self) -> None:
        self._path = replace(self._path, tension=float(self._tension.value))
        self._draw()

    def _rate(self) -> None:
        self._path = replace(self._path, fps=float(self._fps.value))
        self._show(self._index)

    def _checked(self, change: Callable[[], None]) -> Callable[[int], None]:
        """A change through a widget; where it makes no sense the widgets go back to what holds."""

        def checked(_: int) -> None:
            try:
                change()
            except UsageError:
                self._show(self._index)
                raise

        return checked

    def _show(self, index: int = 0) -> None:
        """Widgets and lines as the path is now, with a keyframe chosen."""
        count = len(self._path.keyframes)
        self._one.visible = self._whole.visible = self._render.visible = count > 0
        self._words.content = f"**{count}** keyframes, **{self._path.seconds:g} s**" if count else NOTHING
        self._play.disabled = count < 2
        self._halt.visible = self._playing.is_set()
        if count:
            names = tuple(f"{number} at {key.seconds:g} s" for number, key in enumerate(self._path.keyframes, 1))
            put(self._chosen, options=names)
            put(self._chosen, value=names[min(index, count - 1)])
            self._fill()
        self._draw()

    def _fill(self) -> None:
        key = self._path.keyframes[self._index]
        put(self._seconds, value=round(key.seconds, 3))
        put(self._fov, value=round(key.fov_y_degrees, 2))
        put(self._duration, value=max(0.1, round(self._path.seconds, 3)))
        put(self._tension, value=self._path.tension)
        put(self._fps, value=self._path.fps)
        self._frames.content = f"{self._path.frames:,} pictures" + (
            ": with one keyframe the film is one picture" if self._path.frames == 1 else ""
        )

    def _draw(self) -> None:
        """The curve with a camera at every keyframe."""
        scene, keys = self._viewer.server.scene, self._path.keyframes
        scene.add_frame(ROOT, show_axes=False, visible=self._visible.value)
        if not keys:
            return
        like = Camera(torch.eye(4), 1.0, 1.0, 16 / 9 / 2, 0.5, 16, 9)
        moments = np.linspace(keys[0].seconds, keys[-1].seconds, CURVE_POINTS if len(keys) > 1 else 1)
        centres = np.stack([self._path.camera_at(float(t), like).centre.double().numpy() for t in moments])
        points = frame.to_viser(centres)[0]
        if len(points) > 1:
            segments = np.stack([points[:-1], points[1:]], axis=1)
            scene.add_line_segments(f"{ROOT}/curve", segments, (255, 140, 0), thickness=3.0, thickness_units="screen")
        for index, key in enumerate(keys):
            camera = self._path.camera_at(key.seconds, like)
            position, wxyz = frame.place(camera)
            scene.add_camera_frustum(
                f"{ROOT}/{index}",
                float(np.radians(min(170.0, BEYOND * key.fov_y_degrees))),
                2.4,
                scale=0.4,
                color=(255, 140, 0),
                position=position,
                wxyz=wxyz,
            )
            scene.add_label(f"{ROOT}/{index}/number", str(index + 1))

    def _film(self) -> str:
        viewer, path = self._viewer, self._path
        name = self._name.value.strip()
        out = outputs.target(viewer, name, ("", ".mp4", ".png", ".jpg", ".webp"))
        width, height = SIZES[self._size.value]
        cameras = path.cameras(Camera(torch.eye(4), 1.0, 1.0, width / 2, height / 2, width, height))
        named = [(f"{index:05d}", camera) for index, camera in enumerate(cameras)]
        pictures.check_ending(out, len(named))
        viewer.jobs.add(f"Film {name}", self._filming(named, out))
        return f"{len(named):,} pictures are being rendered: see the Jobs tab"

    def _filming(self, cameras: list[tuple[str, Camera]], out: Path) -> Generator[tuple[float, str], None, Path]:
        yield from pictures.rendering(self._viewer.document.draw, cameras, out, self._path.fps)
        self._last = out
        yield 1.0, outputs.written(out)
        return out

    def _save(self, client: int) -> str:
        if not self._path.keyframes:
            raise UsageError("the path is empty: add a view first")
        out = outputs.target(self._viewer, f"{Path(self._name.value).stem or 'path'}.json", (".json",))
        paths.write(out, self._path, self._viewer.document.source_from_world)
        outputs.send(self._viewer, client, out)
        return outputs.written(out)

    def _load(self, content: bytes) -> str:
        if len(content) > MOST_UPLOAD:
            raise UsageError("that is too large to be a file of keyframes")
        document = self._viewer.document
        kept = files.output_folder(outputs.folder(self._viewer)) / "loaded-path.json"
        files.write_atomically(kept, content)

        def from_world(name: str) -> paths.Array:
            if name == "local":
                return np.eye(4)
            source = document.source_from_world
            return source if name == "source" else document.placement.placed_from_world(source)

        self._path = paths.read(kept, 60.0, from_world)
        self._show()
        return f"{len(self._path.keyframes)} keyframes are loaded"
