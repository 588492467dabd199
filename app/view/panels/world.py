"""The World tab: which way is up, where the origin is, how long a metre is; and a tape measure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from viser.transforms import SO3

from anchorfield.app.placement import Placement
from anchorfield.app.view import frame
from anchorfield.app.view.panels.pointer import Array, mark, pointer_of
from anchorfield.app.view.panels.widgets import put
from anchorfield.renderer.errors import UsageError

if TYPE_CHECKING:
    from anchorfield.app.view.app import Viewer

AXES, TAPE = "/placement", "/tape"


def build(viewer: Viewer) -> None:
    """The tab; what is set is kept with the run and goes into exports of the placed frame."""
    world = _World(viewer)
    viewer.on_open(world.opened)
    viewer.command("Measure a length", "M", lambda _: world.measure(), icon="ruler-measure")


class _World:
    """The widgets, and what is shown of the placement in the scene."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        gui = viewer.gui
        with viewer.tab("World", "compass"):
            self._words = gui.add_markdown("")
            self._axes = gui.add_checkbox("Show origin and axes", False, hint="x red, y green, z (up) blue")
            with gui.add_folder("Which way is up"):
                viewer.button(
                    "Up as I look now",
                    self._up_as_seen,
                    icon="arrow-up",
                    hint="Upwards becomes what is upwards in your picture",
                )
                viewer.button(
                    "Three points of the floor",
                    lambda _: self._floor(),
                    icon="triangle",
                    hint="Click three points that lie on the floor or on a table, well apart",
                )
                viewer.button("Turn upside down", lambda _: self._flip(), icon="arrows-vertical")
            with gui.add_folder("Origin"):
                viewer.button(
                    "Click the origin",
                    lambda _: self._origin(),
                    icon="target",
                    hint="Click the point that becomes (0, 0, 0)",
                )
            with gui.add_folder("Scale"):
                self._length = gui.add_number(
                    "Length (m)", 1.0, min=0.0001, step=0.01, hint="How long it is in reality"
                )
                viewer.button(
                    "Click its two ends",
                    lambda _: self._scale(),
                    icon="ruler-2",
                    hint="Type a length that you know, then click where it begins and ends",
                )
            with gui.add_folder("Measure"):
                viewer.button(
                    "Measure a length", lambda _: self.measure(), icon="ruler-measure", hint="Click two points. Key M"
                )
                self._measured = gui.add_markdown("")
                viewer.button("Clear", lambda _: self._clear(), icon="eraser")
        self._axes.on_update(lambda _: self._draw_axes())
        self.opened()

    def opened(self) -> None:
        """Say how what is open stands."""
        self._clear()
        self._describe()
        self._draw_axes()

    def measure(self) -> str:
        """Ask for the two ends of what is measured."""
        self._check()
        return pointer_of(self._viewer).points(
            "Measure", 2, self._measure, "Click where the length begins, then where it ends. Escape puts the tape away"
        )

    def _measure(self, ends: list[Array]) -> str:
        text = self._viewer.document.placement.words(ends[0], ends[1])
        self._measured.content = f"**{text}**"
        mark(self._viewer, ends, TAPE, text=text)
        return text

    def _clear(self) -> None:
        self._measured.content = ""
        mark(self._viewer, [], TAPE)

    def _up_as_seen(self, client: int) -> str:
        self._check()
        up = -self._viewer.camera(client).world_to_camera[1, :3].double().numpy()
        self._place(self._viewer.document.placement.upwards(up))
        return "Up is what was up in your picture"

    def _floor(self) -> str:
        self._check()
        return pointer_of(self._viewer).points(
            "Floor", 3, self._level, "Click three points of the floor, well apart. Escape stops"
        )

    def _level(self, points: list[Array]) -> str:
        self._place(self._viewer.document.placement.level(points))
        return "The three points lie level now"

    def _flip(self) -> str:
        self._check()
        placement = self._viewer.document.placement
        self._place(placement.upwards([-value for value in placement.up]))
        return "Up and down have changed places"

    def _origin(self) -> str:
        self._check()
        return pointer_of(self._viewer).points("Origin", 1, self._centre, "Click the point that becomes the origin")

    def _centre(self, points: list[Array]) -> str:
        put(self._axes, value=True)
        self._place(self._viewer.document.placement.centred(points[0]))
        return "The origin is where you clicked"

    def _scale(self) -> str:
        self._check()
        length = float(self._length.value)
        return pointer_of(self._viewer).points(
            "Scale", 2, lambda ends: self._scaled(ends, length), f"Click the two ends of what is {length:g} m long"
        )

    def _scaled(self, ends: list[Array], length: float) -> str:
        document = self._viewer.document
        before = document.placement.words(ends[0], ends[1])
        placement = document.placement.scaled(ends[0], ends[1], length)
        self._place(placement)
        text = placement.words(ends[0], ends[1])
        mark(self._viewer, ends, TAPE, text=text)
        return f"What measured {before} is {text} now; lengths are in metres"

    def _check(self) -> None:
        if not self._viewer.document.drawable:
            raise UsageError("there is nothing to place yet: open a run or train first")

    def _place(self, placement: Placement) -> None:
        """Keep a placement and show it; each camera stays where it is and levels itself."""
        document, server = self._viewer.document, self._viewer.server
        turned = placement.up != document.placement.up
        document.placement = placement
        if turned:
            poses = {id: (c.camera.position, c.camera.look_at) for id, c in server.get_clients().items()}
            server.scene.set_up_direction(np.asarray(placement.up))
            for id, client in server.get_clients().items():
                if id in poses:
                    with client.atomic():
                        client.camera.up_direction = np.asarray(placement.up)
                        client.camera.position, client.camera.look_at = poses[id]
        self._describe()
        self._draw_axes()

    def _describe(self) -> None:
        document = self._viewer.document
        if not document.path:
            self._words.content = "Nothing is open."
            return
        placement = document.placement
        known = (
            "lengths are in **metres**"
            if placement.metres
            else "lengths are in the capture's own **units**: set the scale"
        )
        kept = "kept with the run" if document.run and document.run.folder else "kept until the viewer closes"
        x, y, z = document.source_from_world[:3, :3] @ np.asarray(placement.up)
        length = float(np.linalg.norm([x, y, z]))
        up = f"({x / length:.2f}, {y / length:.2f}, {z / length:.2f})"
        self._words.content = f"Up is {up} of the capture; {known}. *What you set is {kept}.*"

    def _draw_axes(self) -> None:
        scene = self._viewer.server.scene
        root = scene.add_frame(AXES, axes_length=1.5, axes_radius=0.03, visible=self._axes.value)
        document = self._viewer.document
        if not (self._axes.value and document.path):
            root.visible = False
            return
        local_from_placed = np.linalg.inv(document.placement.placed_from_world(document.source_from_world))
        rotation = local_from_placed[:3, :3] / np.cbrt(np.linalg.det(local_from_placed[:3, :3]))
        position, wxyz = frame.to_viser(local_from_placed[:3, 3], SO3.from_matrix(rotation).wxyz)
        root.position, root.wxyz = position, wxyz
