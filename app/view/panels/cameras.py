"""The Cameras tab: the photos in space, coloured by how well each is predicted, and one of them beside its render."""

from __future__ import annotations

import json
import math
import threading
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import viser
from numpy.typing import NDArray

from anchorfield.app.evaluation import view_psnr
from anchorfield.app.view import frame
from anchorfield.app.view.panels.widgets import put
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.scenes.scene import Scene

if TYPE_CHECKING:
    from anchorfield.app.view.app import Viewer

ROOT = "/cameras"
THUMBNAIL, PREVIEW = 96, 480  # pixels of the longer side
MOST_THUMBNAILS = 300
UNSCORED = (150, 160, 175)
WORST, BEST = 18.0, 32.0  # dB at the ends of the colour scale
SAME_PLACE = 0.02  # of the scene: a client so near a camera does not see its frustum


def colour_of(psnr: float | None) -> tuple[int, int, int]:
    """Red over yellow to green with the PSNR; grey where it was not measured."""
    if psnr is None or math.isnan(psnr):
        return UNSCORED
    share = min(1.0, max(0.0, (psnr - WORST) / (BEST - WORST)))
    low, high = ((214, 69, 69), (226, 178, 62)) if share < 0.5 else ((226, 178, 62), (47, 158, 91))
    inner = share * 2 % 1 if share < 1 else 1.0
    return tuple(round(a + (b - a) * inner) for a, b in zip(low, high, strict=True))  # type: ignore[return-value]


def build(viewer: Viewer) -> None:
    """The tab and the frustums."""
    panel = _Cameras(viewer)
    viewer.on_open(panel.load)
    viewer.every_second(panel.follow)
    panel.load()


class _Cameras:
    """What the tab holds."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._scores = dict[str, float]()
        self._frustums = dict[str, viser.CameraFrustumHandle]()
        self._hidden = dict[int, tuple[str | None, Any]]()  # by client: the frustum it does not see, what hides it
        self._generation = 0
        gui = viewer.gui
        self._root = viewer.server.scene.add_frame(ROOT, show_axes=False, visible=False)
        with viewer.tab("Cameras", "camera"):
            self._empty = gui.add_markdown("")
            self._all = gui.add_folder("Photos in the scene")
            with self._all:
                self._visible = gui.add_checkbox("Show cameras", False, hint="Key C. Click one to fly there")
                self._size = gui.add_slider("Size", 0.2, 3.0, 0.1, 1.0, hint="How large the cameras are drawn")
                self._legend = gui.add_html("")
                viewer.button(
                    "Score every photo",
                    lambda _: self._score_all(),
                    icon="chart-bar",
                    hint="Renders all photos' views and colours the cameras by PSNR; a job in the background",
                )
            self._one = gui.add_folder("One photo")
            with self._one:
                self._name = gui.add_dropdown("Photo", ("",), hint="Search by typing")
                self._fly = viewer.button(
                    "Fly there", lambda client: self.fly(client, self._name.value), icon="plane", hint="Key F"
                )
                step = gui.add_button_group("Step", ("Previous", "Next"), hint="Keys B and N")
                self._facts = gui.add_markdown("")
                self._photo = gui.add_image(np.zeros((1, 1, 3), np.uint8), label="Photo", visible=False)
                self._render = gui.add_image(np.zeros((1, 1, 3), np.uint8), label="Render", visible=False)
                self._difference = gui.add_image(np.zeros((1, 1, 3), np.uint8), label="Difference (x4)", visible=False)
        self._visible.on_update(lambda _: self._toggle())
        self._size.on_update(lambda _: self._resize())
        step.on_click(lambda event: self._step(event.client, 1 if step.value == "Next" else -1))
        viewer.command("Show or hide the cameras", "C", lambda _: self._flip(), icon="camera")
        viewer.command("Fly to the chosen photo", "F", lambda client: self.fly(client, self._name.value), icon="plane")
        viewer.command("Fly to the next photo", "N", lambda client: self._neighbour(client, 1), icon="arrow-right")
        viewer.command("Fly to the photo before", "B", lambda client: self._neighbour(client, -1), icon="arrow-left")

    @property
    def _scene(self) -> Scene | None:
        return self._viewer.document.scene

    def load(self) -> None:
        """Frustums and names of what is open."""
        self._generation += 1
        for handle in self._frustums.values():
            handle.remove()
        self._frustums.clear()
        self._hidden.clear()
        scene, document = self._scene, self._viewer.document
        self._all.visible = self._one.visible = scene is not None
        self._empty.visible = scene is None
        if scene is None:
            reason = document.no_scene_reason if document.path else "Open a capture or a run first."
            self._empty.content = f"No photos here. {reason or ''}"
            return
        self._scores = _known_scores(self._viewer)
        self._name.options = tuple(view.name for view in scene.views)
        for image in (self._photo, self._render, self._difference):
            image.visible = False
        self._facts.content = ""
        for view in scene.views:
            self._add(view.name, view.camera)
        self._describe()
        threading.Thread(target=self._thumbnails, args=(scene, self._generation), daemon=True).start()

    def follow(self) -> None:
        """A client that stands in a camera does not see its frustum, which would cover the picture."""
        places = {name: handle.position for name, handle in self._frustums.items()} if self._visible.value else {}
        names, positions = list(places), np.array(list(places.values())).reshape(-1, 3)
        clients = self._viewer.server.get_clients()
        for client in clients.values():
            away = np.linalg.norm(positions - client.camera.position, axis=1)
            near = names[int(away.argmin())] if len(away) and away.min() < SAME_PLACE * frame.VIEW_SCALE else None
            self._hide(client, near)
        self._hidden = {id: hidden for id, hidden in self._hidden.items() if id in clients}

    def fly(self, client: int, name: str) -> str | None:
        """Take a client to a photo's place and show the photo beside the render."""
        scene = self._scene
        if scene is None:
            raise UsageError("there are no photos to fly to: open a capture or a run")
        index = next((i for i, view in enumerate(scene.views) if view.name == name), None)
        if index is None:
            raise UsageError(f"there is no photo called {name}")
        if self._name.value != name:
            put(self._name, value=name)
        camera = scene.views[index].camera
        self._viewer.fly(client, camera)
        self._hide(self._viewer.client(client), name)
        self._show_photo(scene, index)
        return None

    def _hide(self, client: viser.ClientHandle, name: str | None) -> None:
        """Hide one frustum from a client, and show again what was hidden before."""
        hidden, handle = self._hidden.get(client.client_id, (None, None))
        if hidden == name:
            return
        if handle is not None:
            handle.remove()
        shadow = None if name is None else client.scene.add_camera_frustum(f"{ROOT}/{name}", 1.0, 1.0, visible=False)
        self._hidden[client.client_id] = (name, shadow)

    def _add(self, name: str, camera: Camera) -> None:
        position, wxyz = frame.place(camera)
        handle = self._viewer.server.scene.add_camera_frustum(
            f"{ROOT}/{name}",
            frame.vertical_fov(camera),
            camera.width / camera.height,
            scale=0.5 * self._size.value,
            thickness=2.0,
            thickness_units="screen",
            color=colour_of(self._scores.get(name)),
            position=position,
            wxyz=wxyz,
        )
        handle.on_click(lambda event: self._viewer.act("Fly", lambda: self.fly(event.client_id, name), event.client_id))
        self._frustums[name] = handle

    def _thumbnails(self, scene: Scene, generation: int) -> None:
        """Put the photos into the frustums, one after another, while the program goes on."""
        every = max(1, -(-len(scene.views) // MOST_THUMBNAILS))
        for view in scene.views[::every]:
            if self._generation != generation:
                return
            try:
                camera = view.camera
                width, height = _fitted(camera.width, camera.height, THUMBNAIL)
                pixels = (
                    view.load_at(width, height)
                    if view.load_at
                    else view.load()[:: camera.height // height or 1, :: camera.width // width or 1]
                )
                self._frustums[view.name].image = pixels[..., :3].numpy()
            except Exception:  # a photo that cannot be read stays without a picture
                traceback.print_exc()

    def _flip(self) -> str:
        put(self._visible, value=not self._visible.value)
        self._toggle()
        return "Cameras are shown: click one to fly there" if self._visible.value else "Cameras are hidden"

    def _toggle(self) -> None:
        self._root.visible = self._visible.value

    def _resize(self) -> None:
        for handle in self._frustums.values():
            handle.scale = 0.5 * self._size.value

    def _step(self, client: viser.ClientHandle | None, step: int) -> None:
        if client is not None:
            id = client.client_id
            self._viewer.act("Fly", lambda: self._neighbour(id, step), id)

    def _neighbour(self, client: int, step: int) -> str | None:
        names = self._name.options
        return self.fly(client, names[(names.index(self._name.value) + step) % len(names)])

    def _show_photo(self, scene: Scene, index: int) -> None:
        view = scene.views[index]
        photo = scene.photo(index)
        held_out = "kept aside for testing" if index in scene.test else "learned from"
        small = _fitted(view.camera.width, view.camera.height, PREVIEW, enlarged=True)
        self._photo.image, self._photo.visible = _bytes(photo, small), True
        if not self._viewer.document.drawable:
            self._facts.content = f"**{view.name}** · {held_out}"
            self._render.visible = self._difference.visible = False
            return
        rendered = self._viewer.document.draw(view.camera).rgb.clamp(0, 1)
        self._scores[view.name] = view_psnr(scene, index, rendered)
        self._frustums[view.name].color = colour_of(self._scores[view.name])
        self._facts.content = f"**{view.name}** · {held_out} · **{self._scores[view.name]:.2f} dB**"
        self._render.image, self._render.visible = _bytes(rendered, small), True
        self._difference.image = _bytes((4 * (rendered - photo).abs()).clamp(0, 1), small)
        self._difference.visible = True
        self._describe()

    def _score_all(self) -> str:
        scene = self._scene
        if scene is None or not self._viewer.document.drawable:
            raise UsageError("there is nothing to score yet: train first")
        self._viewer.jobs.add("Score every photo", self._scoring(scene, self._generation))
        return f"{len(scene.views)} photos are being scored"

    def _scoring(self, scene: Scene, generation: int) -> Iterator[tuple[float, str]]:
        for index, view in enumerate(scene.views):
            if self._generation != generation:
                raise DataError("another scene was opened")
            image = self._viewer.document.draw(view.camera).rgb.clamp(0, 1)
            self._scores[view.name] = view_psnr(scene, index, image)
            self._frustums[view.name].color = colour_of(self._scores[view.name])
            yield (index + 1) / len(scene.views), f"{view.name}: {self._scores[view.name]:.2f} dB"
        self._describe()

    def _describe(self) -> None:
        scene = self._scene
        if scene is None:
            return
        known = {name: score for name, score in self._scores.items() if math.isfinite(score)}
        text = f"{len(scene.train)} learned from, {len(scene.test)} kept aside"
        if known:
            worst = min(known, key=known.__getitem__)
            mean = np.mean(list(known.values()))
            text += f"<br>{len(known)} scored: {mean:.2f} dB on average; worst {worst}, {known[worst]:.2f} dB"
        stops = ",".join(f"rgb{colour_of(WORST + (BEST - WORST) * share)}" for share in (0.0, 0.5, 1.0))
        self._legend.content = (
            f'<div style="padding:0 12px;font-size:0.8em;line-height:1.5">{text}'
            f'<div style="height:6px;border-radius:3px;background:linear-gradient(90deg,{stops})"></div>'
            f'<div style="display:flex;justify-content:space-between;opacity:.7"><span>{WORST:g} dB</span>'
            f"<span>grey: not scored</span><span>{BEST:g} dB</span></div></div>"
        )


def _known_scores(viewer: Viewer) -> dict[str, float]:
    """What an evaluation of the run has left on disk."""
    folder = viewer.document.run.folder if viewer.document.run else None
    try:
        content = json.loads((folder / "eval" / "metrics.json").read_text()) if folder else {}
        return {row["name"]: float(row["psnr"]) for row in content.get("per_view", [])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _fitted(width: int, height: int, longest: int, enlarged: bool = False) -> tuple[int, int]:
    """The size with a longer side of at most `longest`, or just that where small pictures are enlarged."""
    factor = longest / max(width, height)
    factor = factor if enlarged else min(1.0, factor)
    return max(1, round(width * factor)), max(1, round(height * factor))


def _bytes(image: torch.Tensor, size: tuple[int, int]) -> NDArray[np.uint8]:
    """[H, W, 3] in [0, 1] as bytes of another size (width, height)."""
    small = torch.nn.functional.interpolate(image.permute(2, 0, 1)[None], (size[1], size[0]), mode="area")[0]
    return (small.permute(1, 2, 0) * 255 + 0.5).to(torch.uint8).numpy()
