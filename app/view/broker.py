"""Pictures for everybody who looks: the newest camera of each client, at the size that the machine draws in time.

One worker thread serves all clients in turn. A moving view gets pictures as large as the measured cost allows in
`MOVING` seconds; once it rests, a still one and then the full size. What belongs to a camera that has moved on is given
up between two strips of the picture. While training, drawing takes no more than the share of the time that it may.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anchorfield.app.pictures import Pixels, jpeg
from anchorfield.app.view import pictures
from anchorfield.app.view.pictures import Look
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import AnchorfieldError
from anchorfield.renderer.types import Frame, stacked

if TYPE_CHECKING:
    import viser

    from anchorfield.app.view.overlay import Overlay

Stage = Literal["moving", "still", "full"]

MOVING = 0.02  # seconds that a picture of a moving view may take
STILL = 0.2  # seconds of the first picture of a resting view; none is drawn where the full one comes as soon
PROMPT = 0.1  # seconds of a full picture that is drawn at once where only what is shown has changed
SAME = 1e-6  # by how much a pose's numbers may change where nobody moved: controls say so when a page is resized
SETTLE = 0.12  # seconds without a new camera after which a view rests
QUALITY: dict[Stage, int] = {"moving": 75, "still": 85, "full": 95}  # of JPEG
FIRST, SMALLEST = 1 / 3, 1 / 4  # of the full width; smaller ones save little, for part of the work is for any size
DEPTH_SIDE = 160  # pixels of the longer side of the depth that is sent along


@dataclass(frozen=True)
class Share:
    """How much of the time drawing may take while something trains."""

    still: float = 0.1  # a browser on the same machine takes as much again
    moving: float = 0.5


@dataclass(frozen=True)
class Picture:
    """What a client is sent."""

    rgb: Pixels  # [h, w, 3]
    depth: NDArray[np.float32] | None  # [h', w'] along the camera's z in the training frame's units, inf: nothing
    quality: int  # of JPEG
    milliseconds: float  # drawing and painting
    stage: Stage
    camera: Camera  # as it was asked for, at full size
    look: Look

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return int(self.rgb.shape[1]), int(self.rgb.shape[0])


Draw = Callable[[Camera, Look], Frame | Iterable[Frame]]
"""A frame, or its strips from top to bottom: between two of them the broker may give the picture up."""
Paint = Callable[[Frame, Camera, Look], Pixels]
Deliver = Callable[[int, Picture], None]
Tell = Callable[[int, str], None]


class Cost:
    """Seconds of a picture as a constant and a part that grows with the pixels, fitted to the latest pictures."""

    def __init__(self) -> None:
        self._sums = np.zeros(5)  # of weights, pixels, pixels^2, seconds, pixels * seconds

    def add(self, pixels: float, seconds: float) -> None:
        """A picture of so many pixels took so long."""
        self._sums = 0.8 * self._sums + np.array([1, pixels, pixels**2, seconds, pixels * seconds])

    def seconds(self, pixels: float) -> float:
        """What a picture of so many pixels will take; 0 where nothing is known."""
        constant, slope = self._line()
        return constant + slope * pixels

    def _line(self) -> tuple[float, float]:
        weight, x, xx, y, xy = self._sums
        if weight == 0:
            return 0.0, 0.0
        spread = weight * xx - x * x
        if spread > 1e-3 * weight * xx:
            slope = (weight * xy - x * y) / spread
            constant = (y - slope * x) / weight
            if slope > 0 and constant >= 0:
                return float(constant), float(slope)
        return 0.0, float(y / x)


@dataclass
class _Client:
    """What one client wants and has."""

    camera: Camera
    look: Look
    number: int = 1  # of the wanted camera; grows
    moved: float = 0.0  # when it came
    has: int = 0  # number of the camera of the last picture
    stage: Stage | None = None  # of the last picture
    content: int = 0  # which content the last picture shows
    told: str | None = None
    cost: dict[str, Cost] = field(default_factory=dict)  # by mode
    scales: dict[tuple[str, Stage], float] = field(default_factory=dict)  # of the width, by mode and stage


@dataclass(frozen=True)
class _Task:
    id: int
    number: int
    content: int
    camera: Camera
    look: Look
    stage: Stage
    size: tuple[int, int]


class Broker:
    """Draws for all clients in one thread; every function may be called from any thread and returns at once."""

    def __init__(
        self,
        draw: Draw,
        deliver: Deliver,
        *,
        paint: Paint = pictures.painted,
        tell: Tell = lambda client, words: None,
        training: Callable[[], bool] = lambda: False,
        turn: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
        share: Share | None = None,
    ):
        """`tell` receives what went wrong, in words. `turn` is held while drawing: training waits between two steps."""
        self.share = share or Share()
        self._draw, self._paint, self._deliver, self._tell = draw, paint, deliver, tell
        self._training, self._turn = training, turn
        self._clients: dict[int, _Client] = {}
        self._content = 1
        self._ended = self._spent = 0.0  # of the last picture, for anybody: when it was done, and the seconds it took
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="broker", daemon=True)
        self._thread.start()

    def camera(self, client_id: int, camera: Camera, look: Look | None = None) -> None:
        """This is what the client looks at now, at the full size it has room for."""
        look = look or Look()
        with self._changed:
            client = self._clients.get(client_id)
            if client is None:
                self._clients[client_id] = _Client(camera, look, moved=time.monotonic())
            else:
                camera = _steadied(camera, client.camera)
                if client.look == look and _same(client.camera, camera):
                    return
                client.camera, client.look = camera, look
                client.number, client.moved = client.number + 1, time.monotonic()
            self._changed.notify()

    def forget(self, client_id: int) -> None:
        """The client is gone."""
        with self._changed:
            self._clients.pop(client_id, None)

    def refresh(self, client_id: int | None = None) -> None:
        """What is shown has changed (for one client or for all): draw it again."""
        with self._changed:
            if client_id is None:
                self._content += 1
            elif client_id in self._clients:
                self._clients[client_id].content = 0
            self._changed.notify()

    def close(self) -> None:
        """End the worker; waits for the picture in the making."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _work(self) -> None:
        last = -1
        while True:
            with self._changed:
                task, wait = None, None
                while not self._closed:
                    task, wait = self._next(last)
                    if task:
                        break
                    self._changed.wait(wait)
                if self._closed:
                    return
            assert task
            last = task.id
            self._serve(task)

    def _next(self, last: int) -> tuple[_Task | None, float | None]:
        """What to draw now, the client after `last` first; else how long to wait (None: until something changes)."""
        now, training, wait = time.monotonic(), self._training(), None
        ids = sorted(self._clients)
        for id in [i for i in ids if i > last] + [i for i in ids if i <= last]:
            client = self._clients[id]
            stage, due = self._due(client, training)
            if stage is None:
                continue
            if due <= now:
                task = _Task(
                    id, client.number, self._content, client.camera, client.look, stage, self._size(client, stage)
                )
                return task, None
            wait = min(due - now, wait) if wait is not None else due - now
        return None, wait

    def _due(self, client: _Client, training: bool) -> tuple[Stage | None, float]:
        """The next picture that the client should get, and when."""
        if client.has != client.number:
            return "moving", self._earned("moving", training)
        if client.content != self._content:
            soon = self._cost(client).seconds(_pixels(client.camera)) < PROMPT
            stage: Stage = (client.stage or "moving") if training else "full" if soon else "moving"
            return stage, self._earned("still", training)
        if client.stage == "full":
            return None, 0.0
        due = max(client.moved + SETTLE, self._earned("still", training))
        if client.stage == "moving" and self._cost(client).seconds(_pixels(client.camera)) > STILL:
            return "still", due
        return "full", due

    def _earned(self, stage: Stage, training: bool) -> float:
        """When the last picture has been worked off by so much training that another of this stage is due."""
        if not training:
            return 0.0
        share = min(1.0, max(1e-3, self.share.moving if stage == "moving" else self.share.still))
        return self._ended + self._spent * (1 / share - 1)

    def _cost(self, client: _Client) -> Cost:
        return client.cost.setdefault(client.look.mode, Cost())

    def _size(self, client: _Client, stage: Stage) -> tuple[int, int]:
        """Width and height for a picture of this stage."""
        camera = client.camera
        scale = 1.0 if stage == "full" else client.scales.get((client.look.mode, stage), FIRST)
        if scale > 0.9:
            return camera.width, camera.height
        return max(1, round(camera.width * scale)), max(1, round(camera.height * scale))

    def _learn(self, client: _Client, task: _Task, seconds: float) -> None:
        """Take the next picture of this stage larger or smaller, by what this one took."""
        width, height = task.size
        client.cost.setdefault(task.look.mode, Cost()).add(width * height, seconds)
        if task.stage != "full":
            wanted = MOVING if task.stage == "moving" else STILL
            change = min(1.3, max(0.6, math.sqrt(wanted / max(seconds, 1e-6))))
            scale = client.scales.get((task.look.mode, task.stage), FIRST)
            client.scales[task.look.mode, task.stage] = min(1.0, max(SMALLEST, scale * change))

    def _serve(self, task: _Task) -> None:
        """Draw and deliver; whatever goes wrong is told in words."""
        try:
            picture, spent, task = self._picture(task)
        except Exception as problem:
            self._failed(task, problem)
            return
        with self._changed:
            self._ended, self._spent = time.monotonic(), spent
            client = self._clients.get(task.id)
            if client is None or picture is None:
                return
            self._learn(client, task, spent)
            client.has, client.content, client.told, client.stage = task.number, task.content, None, task.stage
        try:
            self._deliver(task.id, picture)
        except Exception as problem:
            self._failed(task, problem)

    def _picture(self, task: _Task) -> tuple[Picture | None, float, _Task]:
        """The picture, None where it was given up, the seconds it took, and the task as it was done."""
        with self._turn(), torch.no_grad():  # which may have taken a while: the camera can have moved on
            begin = time.perf_counter()
            newest = self._newest(task)
            if newest is None:
                return None, 0.0, task
            task = newest
            camera = task.camera if task.stage == "full" else task.camera.resized(*task.size)
            frame = self._frame(task, camera)
        if frame is None:
            return None, time.perf_counter() - begin, task
        rgb = self._paint(frame, camera, task.look)
        depth = _low_depth(frame) if task.look.depth else None
        spent = time.perf_counter() - begin
        stage = task.stage
        picture = Picture(rgb, depth, QUALITY[stage], 1000 * spent, stage, task.camera, task.look)
        return picture, spent, task

    def _newest(self, task: _Task) -> _Task | None:
        """The task for the camera that the client has now; None where it asks for nothing like it any more."""
        with self._changed:
            client = self._clients.get(task.id)
            if client is None or client.number == task.number:
                return task if client else None
            if task.stage != "moving":
                return None
            size = self._size(client, "moving")
            return replace(task, number=client.number, camera=client.camera, look=client.look, size=size)

    def _frame(self, task: _Task, camera: Camera) -> Frame | None:
        drawn = self._draw(camera, task.look)
        if isinstance(drawn, Frame):
            return None if self._outdated(task) else drawn
        strips = []
        for strip in drawn:
            if self._outdated(task):
                return None
            strips.append(strip)
        return stacked(strips)

    def _outdated(self, task: _Task) -> bool:
        """Whether the picture is no longer worth finishing; that of a moving view is, else none would ever come."""
        with self._changed:
            client = self._clients.get(task.id)
            return self._closed or client is None or (task.stage != "moving" and client.number != task.number)

    def _failed(self, task: _Task, problem: Exception) -> None:
        """Say it once, and wait for another camera or other content."""
        words = str(problem) if isinstance(problem, AnchorfieldError) else f"{type(problem).__name__}: {problem}"
        with self._changed:
            client = self._clients.get(task.id)
            if client is None:
                return
            client.has, client.content, client.stage = task.number, task.content, "full"
            known, client.told = client.told == words, words
        if not known:
            with contextlib.suppress(Exception):  # the client may have left
                self._tell(task.id, words)


def _steadied(camera: Camera, before: Camera) -> Camera:
    """The camera with the pose from before where its own is as good as that."""
    poses = camera.world_to_camera, before.world_to_camera
    return replace(camera, world_to_camera=poses[1]) if torch.allclose(*poses, rtol=0, atol=SAME) else camera


def _same(first: Camera, second: Camera) -> bool:
    poses = first.world_to_camera, second.world_to_camera
    return _lens(first) == _lens(second) and torch.equal(*poses)


def _lens(camera: Camera) -> tuple[float, ...]:
    return camera.fx, camera.fy, camera.cx, camera.cy, camera.width, camera.height


def _pixels(camera: Camera) -> int:
    return camera.width * camera.height


def _low_depth(frame: Frame) -> NDArray[np.float32]:
    """Every n-th pixel's depth; inf where the picture is mostly background."""
    step = max(1, -(-max(frame.depth.shape) // DEPTH_SIDE))
    depth: Tensor = frame.depth[step // 2 :: step, step // 2 :: step]
    alpha = frame.alpha[step // 2 :: step, step // 2 :: step]
    found: NDArray[np.float32] = torch.where(alpha > 0.5, depth, math.inf).cpu().numpy()
    return found


def to_page(overlay: Overlay, client_id: int, picture: Picture) -> None:
    """Show a picture in the layer under viser's canvas of a client's page."""
    overlay.picture(client_id, jpeg(picture.rgb, picture.quality))


def to_viser(client: viser.ClientHandle, picture: Picture, scale: float = 10.0) -> None:
    """Put a picture behind a client's scene through viser; `scale` is viser's units per unit of the training frame.

    viser hides its own things behind the picture's depth, and draws it ten times as slowly as `to_page` where the
    browser has no graphics processor.
    """
    depth = None if picture.depth is None else picture.depth * scale
    client.scene.set_background_image(picture.rgb, "jpeg", jpeg_quality=picture.quality, depth=depth)
    client.flush()  # else viser waits for a sixtieth of a second
