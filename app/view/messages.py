"""Which messages of viser's page are taken: known ones, with finite numbers of a sane size and values that fit.

viser decodes whatever comes and hands it on: a camera of NaN, a slider at text. So every message is looked at before
viser sees it, and one that does not fit is answered with words and dropped.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import math
import time
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
import viser
from viser import _messages as known
from websockets.asyncio.server import ServerConnection

STRIKES = 20  # messages without sense before a connection is closed
RATE = 500.0  # messages a second that a page may send for long; beyond that it is slowed down
LARGEST = 1e9  # of any number
FARTHEST = 1e6  # of any coordinate of a camera
PIXELS = 16_384  # largest side of a picture
TEXT = 2**16  # characters
UPLOAD = 2**29  # bytes of the uploads that a page has under way
INCOMING = (
    known.ViewerCameraMessage,
    known.ScenePointerMessage,
    known.SceneNodeClickMessage,
    known.SceneNodeDragMessage,
    known.TransformControlsUpdateMessage,
    known.TransformControlsDragStartMessage,
    known.TransformControlsDragEndMessage,
    known.GuiUpdateMessage,
    known.GuiButtonHoldMessage,
    known.GuiFormSubmitMessage,
    known.GuiFormDirtyMessage,
    known.CommandTriggerMessage,
    known.FileTransferStartUpload,
    known.FileTransferPart,
    known.LocalStorageGetItemResponseMessage,
    known.GetRenderResponseMessage,
)  # and not ShareUrlRequest: it would open a tunnel to the outside
BY_NAME: dict[str, type] = {message.__name__: message for message in INCOMING}


class Guarded:
    """A connection as viser's own code uses it, whose `recv` returns what is fit to be acted on."""

    def __init__(self, connection: ServerConnection, elements: Callable[[Any], list[viser.GuiApi]]) -> None:
        """`elements` gives the user interfaces that the connection may act on."""
        self._connection = connection
        self._elements = elements
        self._uploads: dict[str, int] = {}  # bytes still to come, by transfer
        self._strikes = 0
        self._allowance, self._seen = RATE, time.monotonic()
        self.tell: Callable[[str], None] = lambda text: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def recv(self) -> bytes:
        """The next message that is fit; those before it that were not are answered with words."""
        while True:
            raw = await self._connection.recv()
            await self._slow_down()
            problem = self.problem(raw)
            if problem is None:
                assert isinstance(raw, bytes)
                return raw
            self._strikes += 1
            self.tell(f"The page sent {problem}. Nothing was changed.")
            if self._strikes >= STRIKES:
                await self._connection.close(1008, f"too many messages without sense, the last {problem}"[:120])

    async def _slow_down(self) -> None:
        """Leave a flood in the pipe, where it costs the sender and not the other pages."""
        now = time.monotonic()
        self._allowance = min(RATE, self._allowance + (now - self._seen) * RATE) - 1
        self._seen = now
        if self._allowance < 0:
            await asyncio.sleep(-self._allowance / RATE)

    def problem(self, raw: str | bytes) -> str | None:
        """What is wrong with a message, in words that continue 'The page sent ...'."""
        if isinstance(raw, str):
            return "text where a binary message is expected"
        try:
            fields = msgspec.msgpack.decode(raw)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return "bytes that are not a message"
        if not isinstance(fields, dict) or not isinstance(fields.get("type"), str):
            return "a message without a type"
        name = fields.pop("type")
        if name not in BY_NAME:
            return f"a message of a kind that is not taken ({name[:40]!r})"
        problem = _unfit(name, fields)
        if problem:
            return problem
        more = {
            "ViewerCameraMessage": _camera_problem,
            "ScenePointerMessage": _pointer_problem,
            "GuiUpdateMessage": self._update_problem,
            "GuiFormDirtyMessage": self._form_problem,
            "FileTransferStartUpload": self._upload_problem,
            "FileTransferPart": self._part_problem,
        }.get(name)
        return more(fields) if more else None

    def _update_problem(self, fields: dict[str, Any]) -> str | None:
        if set(fields["updates"]) != {"value"}:
            return "a change of something that a page may not change"
        for gui in self._elements(self):
            handle = gui._gui_input_handle_from_uuid.get(fields["uuid"])
            if handle is not None and not fits(handle, fields["updates"]["value"]):
                return "a value that does not fit its field"
        return None

    def _form_problem(self, fields: dict[str, Any]) -> str | None:
        # viser keeps one for every name that it is told, for ever
        forms = [form for gui in self._elements(self) for form in gui._container_handle_from_uuid]
        return None if fields["uuid"] in forms else "a change of a form that does not exist"

    def _upload_problem(self, fields: dict[str, Any]) -> str | None:
        size, parts = fields["size_bytes"], fields["part_count"]
        if size < 0 or not 0 <= parts <= size or fields["transfer_uuid"] in self._uploads:
            return "an upload that contradicts itself"
        if size + sum(self._uploads.values()) > UPLOAD:
            return f"an upload of more than {UPLOAD // 2**20} MiB"
        if size:
            self._uploads[fields["transfer_uuid"]] = size
        return None

    def _part_problem(self, fields: dict[str, Any]) -> str | None:
        name, size = fields["transfer_uuid"], len(fields["content"])
        left = self._uploads.get(name, 0) - size
        if left < 0 or size == 0:
            return "more of an upload than was announced"
        self._uploads[name] = left
        if left == 0:
            del self._uploads[name]
        return None


def fits(handle: Any, value: Any) -> bool:
    """Whether a page may set a field of the user interface to `value`."""
    if isinstance(handle, viser.GuiUploadButtonHandle):
        return False  # its value comes as a transfer
    options = getattr(handle, "options", None)
    if options is not None:
        return value in tuple(options)
    present = handle.value
    if isinstance(present, bool):
        return isinstance(value, bool)
    if isinstance(present, str):
        return isinstance(value, str) and len(value) <= TEXT
    low, high = getattr(handle, "min", None), getattr(handle, "max", None)
    if isinstance(present, int | float):
        return within(value, low, high)
    if isinstance(present, tuple):
        if not isinstance(value, list | tuple) or len(value) != len(present):
            return False
        if isinstance(handle, viser.GuiRgbHandle | viser.GuiRgbaHandle):
            low, high = 0, 255
        limits = zip(*(_for_each(limit, len(present)) for limit in (low, high)), strict=True)
        return all(within(x, *limit) for x, limit in zip(value, limits, strict=True))
    return False


def _for_each(limit: Any, count: int) -> Sequence[Any]:
    """A limit of every entry of a vector, where one is given for all."""
    return limit if isinstance(limit, list | tuple) else [limit] * count


def within(value: Any, low: float | None, high: float | None) -> bool:
    """Whether `value` is a finite number between the limits, with a little more for how a page rounds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LARGEST or value != value:
        return False
    slack = 1e-6 * max(1.0, abs(value))
    return (low is None or value >= low - slack) and (high is None or value <= high + slack)


def _unfit(name: str, fields: dict[str, Any]) -> str | None:
    """What is wrong with the fields of a message by its declaration."""
    cls = BY_NAME[name]
    hints = _hints(cls)
    required = {f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING and f.name in hints}
    if not required <= set(fields) <= set(hints):
        return f"a {name} with other fields than it has"
    for field, value in fields.items():
        if not _is(value, hints[field]):
            return f"a {name} whose {field} is not what it must be"
    return None


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(cls)}
    return {name: hint for name, hint in typing.get_type_hints(cls).items() if name in names}


def _is(value: Any, hint: Any) -> bool:
    """Whether a decoded value is of the annotated type, and of a sane size."""
    origin, inside = get_origin(hint), get_args(hint)
    if hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is float or hint is int:
        return within(value, None, None) and (hint is float or value == int(value))
    if hint is str:
        return isinstance(value, str) and len(value) <= TEXT
    if hint is bytes:
        return isinstance(value, bytes)
    if origin is Literal:
        return isinstance(value, str | int | bool) and value in inside
    if origin is Union:
        return any(_is(value, option) for option in inside)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False
        if inside[1:] == (...,):
            return len(value) <= 64 and all(_is(x, inside[0]) for x in value)
        return len(value) == len(inside) and all(_is(x, option) for x, option in zip(value, inside, strict=True))
    if origin is dict:
        return isinstance(value, dict) and len(value) <= 64 and all(isinstance(key, str) for key in value)
    return False


def _camera_problem(fields: dict[str, Any]) -> str | None:
    places = [*fields["position"], *fields["look_at"]]
    if not all(abs(x) <= FARTHEST for x in places):
        return "a camera that is too far away"
    if math.hypot(*fields["wxyz"]) < 1e-3 or math.hypot(*fields["up_direction"]) < 1e-6:
        return "a camera without a direction"
    if not 1e-3 < fields["fov"] < math.pi:
        return "a camera with an impossible field of view"
    if not all(0 <= fields[side] <= PIXELS for side in ("image_width", "image_height")):
        return "a camera with an impossible size"
    return None


def _pointer_problem(fields: dict[str, Any]) -> str | None:
    click = fields["event_type"] == "click"
    rays = fields["ray_origin"] is not None and fields["ray_direction"] is not None
    if len(fields["screen_pos"]) != (1 if click else 2) or (click and not rays):
        return "a click that is none"
    return None
