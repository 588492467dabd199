"""Shapes in the scene with a gizmo to move and turn them: what lies inside is selected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
import viser
from viser.transforms import SO3

from anchorfield.app.edit.operations import Mode, Operation, SelectBox, SelectPlane, SelectSphere
from anchorfield.app.view import frame
from anchorfield.app.view.panels.pointer import surface_at
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import UsageError

ROOT = "/select"
Shape = Literal["sphere", "box", "plane"]
COLOUR = (47, 155, 255)
PLANE_SIZE = 1.0  # half, in the training frame
AHEAD = 1.0  # where nothing solid is in the middle of the picture

Sizes = tuple[float, float, float]


class Gizmo:
    """At most one shape, shared by all who look."""

    def __init__(self, viewer: Any, moved: Callable[[int | None], None]) -> None:
        self._viewer, self._moved = viewer, moved
        self._controls: viser.TransformControlsHandle | None = None
        self._shape: Shape | None = None
        self._sizes: Sizes = (0.1, 0.1, 0.1)

    def show(self, shape: Shape, sizes: Sizes, client: int) -> None:
        """Put a shape where the client looks."""
        position = frame.to_viser(looked_at(self._viewer, self._viewer.camera(client)))[0]
        up = np.asarray(self._viewer.document.placement.up)
        self._controls = self._viewer.server.scene.add_transform_controls(
            ROOT,
            scale=1.2,
            depth_test=False,
            disable_rotations=shape == "sphere",
            position=position,
            wxyz=upright(up).wxyz,
        )
        self._controls.on_update(lambda event: self._moved(event.client_id))
        self._shape = shape
        self.resize(sizes)

    def resize(self, sizes: Sizes) -> None:
        """Draw the shape at another size: a sphere's radius comes first, a box has half its sides."""
        self._sizes = sizes
        scene, name = self._viewer.server.scene, f"{ROOT}/shape"
        look: dict[str, Any] = {"color": COLOUR, "opacity": 0.12, "cast_shadow": False, "receive_shadow": False}
        a, b, c = (float(value) * frame.VIEW_SCALE for value in sizes)
        if self._shape == "sphere":
            scene.add_icosphere(name, radius=a, side="double", **look)
        elif self._shape == "box":
            scene.add_box(name, dimensions=(2 * a, 2 * b, 2 * c), side="double", **look)
        elif self._shape == "plane":
            side = 2 * PLANE_SIZE * frame.VIEW_SCALE
            scene.add_box(name, dimensions=(side, side, 0.02), side="double", **look)

    def hide(self) -> None:
        """Take the shape away."""
        if self._controls is not None:
            self._controls.remove()
        self._controls = self._shape = None

    def operation(self, mode: Mode) -> Operation:
        """The selection of what is inside, or on the plane's upper side."""
        if self._controls is None or self._shape is None:
            raise UsageError("there is no shape in the scene: choose a tool first")
        centre = _triple(frame.to_local(self._controls.position))
        wxyz = np.asarray(self._controls.wxyz, dtype=np.float64)
        if self._shape == "sphere":
            return SelectSphere(mode, centre, float(self._sizes[0]))
        if self._shape == "box":
            w, x, y, z = wxyz.tolist()
            return SelectBox(mode, centre, self._sizes, (w, x, y, z))
        return SelectPlane(mode, centre, _triple(SO3(wxyz).as_matrix()[:, 2]))


def looked_at(viewer: Any, camera: Camera) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The point in the middle of a picture: on a surface, else some way ahead."""
    try:
        return surface_at(viewer, camera, camera.cx, camera.cy)
    except UsageError:
        point = camera.camera_to_world @ torch.tensor([0.0, 0.0, AHEAD, 1.0])
        return np.asarray(point[:3].double().numpy())


def upright(up: np.ndarray[Any, np.dtype[np.float64]]) -> SO3:
    """A rotation whose z axis is `up`."""
    side = np.cross(up, np.eye(3)[int(np.argmin(np.abs(up)))])
    side /= np.linalg.norm(side)
    return SO3.from_matrix(np.stack([side, np.cross(up, side), up], axis=1))


def _triple(value: Any) -> tuple[float, float, float]:
    x, y, z = (float(entry) for entry in value)
    return x, y, z
