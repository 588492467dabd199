"""What is drawn over the picture in the page: selection gestures, the line of status, the handle that splits it.

The page holds a script of ours (overlay.js) with a WebSocket of its own, on the port of the page. A page says which
viser client it belongs to by a key that came through that client's own connection. Messages are JSON objects with a
`type`:

    page to program   hello {key, gpu}, gesture {kind, points, width, height, modifiers, radius, done}
    program to page   tool {kind, radius}, status {text}, split {position}, nothing {colour}, error {text}; bytes are a
                      JPEG, the picture, in whose place a page that draws for itself has nothing but a colour

The picture lies in a layer of its own under viser's canvas: drawn as viser's background it takes a browser without a
graphics processor ten times as long.

Points are shares of the canvas: (0, 0) is its upper left corner, (1, 1) its lower right one.
"""

from __future__ import annotations

import asyncio
import json
import math
import queue
import secrets
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

Kind = Literal["rectangle", "lasso", "brush", "point", "split"]
Modifier = Literal["shift", "alt", "ctrl"]
POINTS = 4096  # most points of a gesture
PIXELS = 65_536  # largest side of a canvas
RADIUS = 2000.0  # CSS pixels, largest brush
STRIKES = 20  # messages without sense before a connection is closed


@dataclass(frozen=True)
class Tool:
    """What the left button draws in the page."""

    kind: Kind
    radius: float = 24.0  # CSS pixels, of the brush


@dataclass(frozen=True)
class Gesture:
    """What a person drew over the picture."""

    client_id: int
    kind: Kind
    points: list[tuple[float, float]]  # in [0, 1] x [0, 1] of the canvas; a rectangle has two corners
    width: float  # CSS pixels of the canvas
    height: float
    modifiers: frozenset[str]  # of shift, alt, ctrl, as held at the start
    radius: float  # CSS pixels, of the brush
    done: bool  # False only while the handle of a split is dragged


@dataclass(eq=False)  # pages are held in a set
class _Page:
    """One connected page: what it must still be told (only the newest of a type), and whose it is."""

    connection: ServerConnection
    client_id: int | None = None
    pending: dict[str, str | bytes] = field(default_factory=dict)
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, message: dict[str, Any] | bytes) -> None:
        self.pending[_kind(message)] = message if isinstance(message, bytes) else json.dumps(message)
        self.wake.set()


def _kind(message: dict[str, Any] | bytes) -> str:
    """What a later message takes the place of."""
    if isinstance(message, bytes) or message["type"] == "nothing":
        return "picture"
    return str(message["type"])


class Overlay:
    """The overlays of all pages. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pages: set[_Page] = set()
        self._keys: dict[str, int] = {}
        self._shared: dict[str, dict[str, Any] | bytes] = {}  # what every client is told, by type
        self._told: dict[int, dict[str, dict[str, Any] | bytes]] = {}  # what a client is told, by type
        self._callbacks: list[Callable[[Gesture], None]] = []
        self._greeted: list[Callable[[int], None]] = []
        self._able: set[int] = set()  # clients whose browser has a graphics processor
        self._gestures: queue.Queue[Gesture | None] = queue.Queue()
        self._worker = threading.Thread(target=self._work, name="gestures", daemon=True)
        self._worker.start()

    def set_tool(self, client_id: int | None, tool: Tool | None) -> None:
        """Choose what the left button draws for one client, or for all; None gives the button back to the camera."""
        self._tell(client_id, {"type": "tool", "kind": tool and tool.kind, "radius": tool.radius if tool else 0.0})

    def on_gesture(self, callback: Callable[[Gesture], None]) -> None:
        """Call `callback` with every gesture, in one worker thread, one after another."""
        self._callbacks.append(callback)

    def status(self, client_id: int | None, text: str) -> None:
        """Write a line over the picture of one client, or of all; empty hides it."""
        self._tell(client_id, {"type": "status", "text": text})

    def split(self, client_id: int | None, position: float | None) -> None:
        """Put the handle that splits the picture at this share of its width; None hides it."""
        self._tell(client_id, {"type": "split", "position": position})

    def picture(self, client_id: int, jpeg: bytes) -> None:
        """Show this picture under viser's canvas; a slow page gets the newest only."""
        self._tell(client_id, jpeg)

    def nothing(self, client_id: int, colour: str) -> None:
        """Show a CSS colour in the place of pictures: the page draws for itself."""
        self._tell(client_id, {"type": "nothing", "colour": colour})

    def on_hello(self, callback: Callable[[int], None]) -> None:
        """Call `callback(client_id)` once a page has said whose it is, in the thread that serves pages: be quick."""
        self._greeted.append(callback)

    def has_gpu(self, client_id: int) -> bool:
        """Whether the client's browser says that a graphics processor draws for it."""
        return client_id in self._able

    def key(self, client_id: int) -> str:
        """A new key by which a page proves to belong to the client."""
        key = secrets.token_urlsafe(16)
        with self._lock:
            self._keys[key] = client_id
            self._told.setdefault(client_id, {})
        return key

    def forget(self, client_id: int) -> None:
        """The client is gone: its keys and what it was told go too."""
        with self._lock:
            self._keys = {key: client for key, client in self._keys.items() if client != client_id}
            self._told.pop(client_id, None)
            self._able.discard(client_id)

    def close(self) -> None:
        """End the worker thread once what it holds is done."""
        self._gestures.put(None)

    async def serve(self, connection: ServerConnection) -> None:
        """Speak with one page until it leaves."""
        self._loop = asyncio.get_running_loop()
        page = _Page(connection)
        with self._lock:
            self._pages.add(page)
        writer = asyncio.create_task(_write(page))
        strikes = 0
        try:
            async for raw in connection:
                problem = self._receive(page, raw)
                if problem:
                    page.tell({"type": "error", "text": problem})
                    strikes += 1
                if strikes >= STRIKES:
                    await connection.close(1008, "too many messages without sense")
        except ConnectionClosed:
            pass
        finally:
            writer.cancel()
            with self._lock:
                self._pages.discard(page)

    def _receive(self, page: _Page, raw: str | bytes) -> str | None:
        """Act on one message; returns what is wrong with it, in words."""
        try:
            message = json.loads(raw)
        except (ValueError, RecursionError):
            return "the page sent something that is not JSON"
        if not isinstance(message, dict):
            return "the page sent something that is not an object"
        if message.get("type") == "hello":
            return self._hello(page, message.get("key"), message.get("gpu") is True)
        if message.get("type") != "gesture":
            return "the page sent an unknown message"
        if page.client_id is None:
            return "the page drew before it said which client it is"
        gesture = gesture_of(page.client_id, message)
        if isinstance(gesture, str):
            return gesture
        self._gestures.put(gesture)
        return None

    def _hello(self, page: _Page, key: Any, gpu: bool) -> str | None:
        with self._lock:
            client_id = self._keys.get(key) if isinstance(key, str) else None
            if client_id is None:
                return "the page said hello with a key that is not known"
            page.client_id = client_id
            if gpu:
                self._able.add(client_id)
            for message in (self._shared | self._told.get(client_id, {})).values():
                page.tell(message)
        for callback in list(self._greeted):
            callback(client_id)
        return None

    def _tell(self, client_id: int | None, message: dict[str, Any] | bytes) -> None:
        """Remember the message for pages to come, and send it to those that are here."""
        kind = _kind(message)
        with self._lock:
            if client_id is None:
                self._shared[kind] = message
                for told in self._told.values():
                    told.pop(kind, None)
            elif client_id in self._told:
                self._told[client_id][kind] = message
            pages = [page for page in self._pages if page.client_id is not None]
            pages = [page for page in pages if client_id is None or page.client_id == client_id]
        if self._loop is None or self._loop.is_closed():
            return
        for page in pages:
            self._loop.call_soon_threadsafe(page.tell, message)

    def _work(self) -> None:
        while (gesture := self._gestures.get()) is not None:
            if not gesture.done and not self._gestures.empty():  # a newer position of the handle is here or will be
                continue
            for callback in list(self._callbacks):
                try:
                    callback(gesture)
                except Exception:  # the next gesture must find this thread alive
                    traceback.print_exc()


async def _write(page: _Page) -> None:
    """Send what is pending, the newest of each type only: a slow page gets fewer messages, not later ones."""
    while True:
        await page.wake.wait()
        page.wake.clear()
        messages, page.pending = list(page.pending.values()), {}
        for text in messages:
            await page.connection.send(text)


def gesture_of(client_id: int, message: dict[str, Any]) -> Gesture | str:
    """The gesture that a message of the page describes, or what is wrong with it in words."""
    names = ("kind", "points", "modifiers", "done", "width", "height")
    kind, points, modifiers, done, width, height = (cast(Any, message.get(name)) for name in names)
    if kind not in get_args(Kind):
        return f"a gesture must be one of {', '.join(get_args(Kind))}"
    if not isinstance(points, list) or not 1 <= len(points) <= POINTS:
        return f"a gesture has 1 to {POINTS} points"
    if not all(isinstance(p, list) and len(p) == 2 and all(_number(x, 0.0, 1.0) for x in p) for p in points):
        return "points are pairs of numbers from 0 to 1"
    if kind == "rectangle" and len(points) != 2:
        return "a rectangle has two points"
    if not all(_number(size, 1.0, PIXELS) for size in (width, height)):
        return f"width and height are from 1 to {PIXELS} pixels"
    radius = message.get("radius", 0.0)
    if not _number(radius, 0.0, RADIUS):
        return f"a radius is from 0 to {RADIUS:.0f} pixels"
    if not isinstance(modifiers, list) or not all(held in get_args(Modifier) for held in modifiers):
        return f"modifiers are of {', '.join(get_args(Modifier))}"
    if not isinstance(done, bool):
        return "done is true or false"
    pairs = [(float(x), float(y)) for x, y in points]
    return Gesture(client_id, kind, pairs, float(width), float(height), frozenset(modifiers), float(radius), done)


def _number(value: Any, low: float, high: float) -> bool:
    """Whether `value` is a finite number between `low` and `high`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) and low <= value <= high if isinstance(value, float) else low <= value <= high
