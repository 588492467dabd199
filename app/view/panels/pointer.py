"""What people draw over the picture: it goes to one tool at a time, for everybody who looks.

Panels share the left mouse button through `pointer_of(viewer)`. A tool is switched on by `take` and off by `release`,
by Escape, or when another tool is taken.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from anchorfield.app.view import frame
from anchorfield.app.view.overlay import Gesture, Tool
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import UsageError

if TYPE_CHECKING:
    from anchorfield.app.view.app import Viewer

PATCH = 2  # pixels about a click whose depths are asked
SOLID = 0.3  # opacity from which a pixel shows a surface
POINT = Tool("point")

Receive = Callable[[Gesture], str | None]  # its sentence is shown
Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Taken:
    name: str
    receive: Receive
    released: Callable[[], None]


class Pointer:
    """The left button over the picture and who has it."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._taken: _Taken | None = None
        self._lock = threading.Lock()
        viewer.serving.overlay.on_gesture(self._dispatch)
        viewer.on_open(self.release)
        viewer.command("Put the tool away", "escape", lambda _: self._put_away(), "Gives the mouse back to the camera")

    @property
    def holder(self) -> str | None:
        """The name of the tool at work."""
        return self._taken.name if self._taken else None

    def take(self, name: str, tool: Tool, receive: Receive, released: Callable[[], None] = lambda: None) -> None:
        """Give the button to a tool; what had it before is told by its `released`."""
        with self._lock:
            before, self._taken = self._taken, _Taken(name, receive, released)
        self._viewer.serving.overlay.set_tool(None, tool)
        if before and before.name != name:
            before.released()

    def release(self, name: str | None = None, tell: bool = True) -> None:
        """Give the button back to the camera; with a name only where that tool has it, which need not be told."""
        with self._lock:
            before = self._taken
            if before is None or name not in (None, before.name):
                return
            self._taken = None
        self._viewer.serving.overlay.set_tool(None, None)
        if tell:
            before.released()

    def points(self, name: str, count: int, use: Callable[[list[Array]], str | None], shown: str) -> str:
        """Ask for clicks on surfaces; after `count` of them `use` is given the points of the training frame."""
        found: list[Array] = []

        def receive(gesture: Gesture) -> str | None:
            found.append(surface(self._viewer, gesture))
            mark(self._viewer, found)
            if len(found) < count:
                return f"Point {len(found)} of {count}"
            try:
                return use(list(found))
            finally:
                self.release(name)

        self.take(name, POINT, receive, lambda: mark(self._viewer, []))
        return shown

    def _put_away(self) -> str | None:
        held = self.holder
        self.release()
        return f"{held}: put away" if held else None

    def _dispatch(self, gesture: Gesture) -> None:
        taken = self._taken
        if taken is not None and gesture.kind != "split":
            self._viewer.act(taken.name, lambda: taken.receive(gesture), gesture.client_id)


_POINTERS: weakref.WeakKeyDictionary[Viewer, Pointer] = weakref.WeakKeyDictionary()


def pointer_of(viewer: Viewer) -> Pointer:
    """The one pointer of a viewer."""
    if viewer not in _POINTERS:
        _POINTERS[viewer] = Pointer(viewer)
    return _POINTERS[viewer]


def camera_of(viewer: Viewer, gesture: Gesture) -> Camera:
    """The camera of the training frame through which a gesture was drawn, in CSS pixels."""
    pose = viewer.client(gesture.client_id).camera
    return frame.camera_of(pose, max(1, round(gesture.width)), max(1, round(gesture.height)), viewer.document.near)


def pixels_of(gesture: Gesture, camera: Camera) -> list[tuple[float, float]]:
    """A gesture's points in the camera's pixels."""
    return [(x * camera.width, y * camera.height) for x, y in gesture.points]


def surface(viewer: Viewer, gesture: Gesture) -> Array:
    """The point of the training frame [3] that a click shows; raises UsageError where nothing solid is."""
    camera = camera_of(viewer, gesture)
    return surface_at(viewer, camera, *pixels_of(gesture, camera)[0])


def surface_at(viewer: Viewer, camera: Camera, x: float, y: float) -> Array:
    """The point of the training frame [3] that a pixel shows; raises UsageError where nothing solid is."""
    side = 2 * PATCH + 1
    patch = replace(camera, cx=camera.cx - x + side / 2, cy=camera.cy - y + side / 2, width=side, height=side)
    shown = viewer.document.draw(patch)
    solid = (shown.alpha > SOLID) & (shown.depth > 0) & torch.isfinite(shown.depth)
    if not bool(solid.any()):
        raise UsageError("there is nothing solid under that point: click on a surface")
    depth = float(shown.depth[solid].median())
    point = torch.tensor([(x - camera.cx) / camera.fx * depth, (y - camera.cy) / camera.fy * depth, depth, 1.0])
    return np.asarray((camera.camera_to_world @ point)[:3].double().numpy())


def mark(viewer: Viewer, points: list[Array], name: str = "/points", line: bool = True, text: str = "") -> None:
    """Show points of the training frame as dots, joined by a line with a text at its middle; none hides them."""
    scene = viewer.server.scene
    root = scene.add_frame(name, show_axes=False)  # replaces what was there
    if not points:
        root.remove()
        return
    positions = frame.to_viser(np.stack(points))[0]
    for index, position in enumerate(positions):
        scene.add_icosphere(f"{name}/{index}", radius=0.06, color=(255, 196, 0), position=position, cast_shadow=False)
    if line and len(points) > 1:
        segments = np.stack([positions[:-1], positions[1:]], axis=1)
        scene.add_line_segments(f"{name}/line", segments, (255, 196, 0), thickness=3.0, thickness_units="screen")
    if text:
        scene.add_label(f"{name}/text", text, position=positions.mean(axis=0), anchor="bottom-center")


def colour_at(viewer: Viewer, gesture: Gesture) -> tuple[int, int, int]:
    """The colour of the picture under a click, in bytes."""
    camera = camera_of(viewer, gesture)
    x, y = pixels_of(gesture, camera)[0]
    side = 2 * PATCH + 1
    patch = replace(camera, cx=camera.cx - x + side / 2, cy=camera.cy - y + side / 2, width=side, height=side)
    red, green, blue = (255 * viewer.document.draw(patch).rgb.clamp(0, 1)).mean((0, 1)).round().int().tolist()
    return red, green, blue
