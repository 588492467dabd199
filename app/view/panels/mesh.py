"""The Mesh tab: a surface of what is open, made as a job, shown over the splats and saved."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from anchorfield.app import files, mesh
from anchorfield.app import settings as flat
from anchorfield.app.mesh import MeshSettings
from anchorfield.app.view import frame
from anchorfield.app.view.panels import outputs
from anchorfield.app.view.panels.widgets import put
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import UsageError
from anchorfield.renderer.meshing import Mesh
from anchorfield.scenes import mesh_files

if TYPE_CHECKING:
    from anchorfield.app.view.app import Viewer

NODE = "/mesh"
QUALITIES = {"Quick look": 96, "Normal": 256, "Fine": 384}
FORMATS = {
    "glTF (.glb): most programs": ".glb",
    "PLY (.ply): MeshLab, CloudCompare": ".ply",
    "OBJ (.obj): older programs": ".obj",
}
FRAMES = {"As captured": "source", "As placed in the World tab": "placed", "As trained": "local"}


def build(viewer: Viewer) -> None:
    """The tab."""
    panel = _Panel(viewer)
    viewer.on_open(panel.opened)
    viewer.every_second(panel.update)
    viewer.command("Make a mesh", None, lambda _: panel.make(), icon="box-model")


class _Panel:
    """Settings, the job and its result."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._mesh: Mesh | None = None
        self._last: Path | None = None
        self._handle: Any = None
        self._widgets: list[tuple[flat.Setting, Any]] = []
        gui = viewer.gui
        with viewer.tab("Mesh", "box-model"):
            self._words = gui.add_markdown("")
            self._quality = gui.add_dropdown(
                "Quality", tuple(QUALITIES), initial_value="Normal", hint="Finer takes longer"
            )
            self._start = viewer.button(
                "Make the mesh",
                lambda _: self.make(),
                icon="player-play",
                colour="green",
                hint="A job in the background",
            )
            with gui.add_folder("All settings", expand_by_default=False):
                for setting in flat.flatten(MeshSettings()):
                    step = 1 if setting.annotation is int else 0.01
                    label = setting.flag.replace("-", " ").capitalize()
                    handle = gui.add_number(label, setting.default, step=step, hint=setting.help)
                    self._widgets.append((setting, handle))
            self._shown = gui.add_folder("Look at it", visible=False)
            with self._shown:
                self._visible = gui.add_checkbox("Show the mesh", True)
                self._wires = gui.add_checkbox("Only its edges", False, hint="To see the splats through it")
            self._saving = gui.add_folder("Save it", visible=False)
            with self._saving:
                self._format = gui.add_dropdown("Format", tuple(FORMATS))
                self._frame = gui.add_dropdown(
                    "Coordinates", tuple(FRAMES), hint="Where the origin is and which way is up"
                )
                viewer.button("Save", lambda _: self._save(), icon="device-floppy")
                viewer.button("Download", self._download, icon="download")
        self._quality.on_update(lambda _: self._refine())
        self._visible.on_update(lambda _: self._draw())
        self._wires.on_update(lambda _: self._draw())
        self.opened()

    def opened(self) -> None:
        """Another scene: no mesh yet."""
        self._mesh, self._last = None, None
        self._draw()
        self.update()

    def update(self) -> None:
        """Say what can be done, and what is there."""
        reason = self._reason()
        put(self._start, disabled=reason is not None)
        made = self._mesh
        there = f"**{len(made):,}** faces, **{len(made.vertices):,}** corners." if made else "No mesh yet."
        text = f"A mesh cannot be made: {reason}." if reason else there
        put(self._words, content=text)
        for folder in (self._shown, self._saving):
            put(folder, visible=made is not None)

    def make(self) -> str:
        """Put the job into the queue."""
        if reason := self._reason():
            raise UsageError(f"a mesh cannot be made: {reason}")
        values = {setting.flag: handle.value for setting, handle in self._widgets}
        self._viewer.jobs.add("Mesh", self._making(flat.apply(MeshSettings(), values)))
        return "The mesh is being made: see the Jobs tab"

    def _making(self, settings: MeshSettings) -> Generator[tuple[float, str], None, Mesh]:
        document = self._viewer.document
        made = yield from mesh.extracting(document.draw, settings, self._cameras())
        if document is not self._viewer.document:
            raise UsageError("another scene was opened meanwhile")
        self._mesh, self._last = made, None
        self._draw()
        self.update()
        yield 1.0, f"The mesh has {len(made):,} faces: it is in the scene now"
        return made

    def _reason(self) -> str | None:
        document = self._viewer.document
        if not document.drawable:
            return "nothing is trained yet"
        if document.scene is None:
            return f"it is seen from the capture's cameras, and they are missing ({document.no_scene_reason})"
        return None

    def _cameras(self) -> list[Camera]:
        scene = self._viewer.document.scene
        return [scene.views[index].camera for index in scene.train] if scene else []

    def _refine(self) -> None:
        for setting, handle in self._widgets:
            if setting.path == ("resolution",):
                put(handle, value=QUALITIES[self._quality.value])

    def _draw(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        if self._mesh is None or not self._visible.value:
            return
        scene, vertices = self._viewer.server.scene, frame.to_viser(self._mesh.vertices)[0].astype(np.float32)
        if self._wires.value:
            self._handle = scene.add_mesh_simple(NODE, vertices, self._mesh.faces, color=(255, 170, 40), wireframe=True)
            return
        colours = None if self._mesh.colours is None else linear(self._mesh.colours)
        shape = trimesh.Trimesh(vertices, self._mesh.faces, vertex_colors=colours, process=False)
        self._handle = scene.add_mesh_trimesh(NODE, shape, cast_shadow=False, receive_shadow=False)

    def _save(self) -> str:
        if self._mesh is None:
            raise UsageError("there is no mesh yet: make one first")
        document = self._viewer.document
        out = outputs.target(self._viewer, outputs.stem(self._viewer) + FORMATS[self._format.value], mesh_files.WRITERS)
        source = document.source_from_world
        kind = FRAMES[self._frame.value]
        matrix = {"source": source, "local": np.eye(4)}.get(kind)
        if matrix is None:
            matrix, up = document.placement.placed_from_world(source), np.array([0.0, 0.0, 1.0])
        else:
            up = matrix[:3, :3] @ np.asarray(document.placement.up)
        mesh_files.write_mesh(files.output_file(out), self._mesh, matrix, up)
        self._last = out
        return outputs.written(out)

    def _download(self, client: int) -> str:
        if self._last is None:
            self._save()
        return outputs.send(self._viewer, client, self._last)


def linear(colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """sRGB colours as the page takes them: glTF's colours of vertices are linear."""
    return np.asarray((255 * mesh_files.linear_light(colours.astype(np.float64) / 255) + 0.5).astype(np.uint8))
