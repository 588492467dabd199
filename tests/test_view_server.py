"""The viewer's server before strangers: refusals in words, and messages without sense that change nothing."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import viser
import zstandard
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from anchorfield.app.view.server import MAX_MESSAGE, Serving, start

CAMERA: dict[str, Any] = {
    "type": "ViewerCameraMessage",
    "wxyz": [1.0, 0.0, 0.0, 0.0],
    "position": [1.0, 2.0, 3.0],
    "image_height": 100,
    "image_width": 100,
    "fov": 1.0,
    "near": 0.01,
    "far": 100.0,
    "look_at": [0.0, 0.0, 0.0],
    "up_direction": [0.0, 0.0, 1.0],
}


@pytest.fixture
def serving() -> Iterator[Serving]:
    with start(port=0) as server:
        yield server


def get(port: int, path: str = "/", **headers: str) -> tuple[int, str, bytes]:
    """Status, cookie and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        cookie = (response.getheader("Set-Cookie") or "").partition(";")[0]
        return response.status, cookie, response.read()
    finally:
        connection.close()


def client(port: int, path: str = "/", **headers: str) -> ClientConnection:
    protocol = [Subprotocol(f"viser-v{viser.__version__}")]
    return connect(f"ws://127.0.0.1:{port}{path}", subprotocols=protocol, additional_headers=headers, max_size=None)


def camera_arrives(serving: Serving, page: ClientConnection, x: float) -> bool:
    page.send(msgspec.msgpack.encode(CAMERA | {"position": [x, 2.0, 3.0]}))
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if any(c.camera.position[0] == x for c in serving.viser.get_clients().values()):
            return True
        time.sleep(0.05)
    return False


def drained(page: ClientConnection) -> None:
    """Read until the connection ends."""
    while True:
        page.recv(timeout=10)


def text_of(frame: bytes) -> bytes:
    """What viser packed into a frame: two lengths, a compressed message, buffers."""
    length = int.from_bytes(frame[8:16], "little")
    return zstandard.ZstdDecompressor().decompressobj().decompress(frame[16 : 16 + length])


def test_any_other_address_demands_the_token() -> None:
    with start("0.0.0.0", 0) as serving:
        status, _, body = get(serving.port)
        assert status == 401
        assert b"token" in body
        with pytest.raises(InvalidStatus):
            client(serving.port)
        _, cookie, _ = get(serving.port, f"/?token={serving.token}")
        assert get(serving.port, Cookie=cookie)[0] == 200
        with client(serving.port, Cookie=cookie) as page:
            assert camera_arrives(serving, page, 4.0)


def test_other_sites_are_refused(serving: Serving) -> None:
    assert get(serving.port, Host="evil.example")[0] == 403
    with pytest.raises(InvalidStatus):
        client(serving.port, Origin="http://evil.example")


@pytest.mark.parametrize(
    "message",
    [
        "text",
        b"\xc1\xff\x00",
        msgspec.msgpack.encode([1, 2]),
        msgspec.msgpack.encode({"type": "NoSuchMessage"}),
        msgspec.msgpack.encode(CAMERA | {"position": [float("nan"), 0.0, 0.0]}),
        msgspec.msgpack.encode(CAMERA | {"position": [1e300, 0.0, 0.0]}),
        msgspec.msgpack.encode(CAMERA | {"fov": "wide"}),
        msgspec.msgpack.encode(CAMERA | {"image_width": 2**62}),
    ],
    ids=["text", "bytes", "list", "unknown", "nan", "huge", "type", "size"],
)
def test_a_message_without_sense_is_answered_and_changes_nothing(serving: Serving, message: str | bytes) -> None:
    with client(serving.port) as hostile, client(serving.port) as other:
        assert camera_arrives(serving, hostile, 5.0)
        hostile.send(message)
        heard = b""
        while b"Nothing was changed" not in heard:
            said = hostile.recv(timeout=10)
            assert isinstance(said, bytes)
            heard = text_of(said)
        assert any(c.camera.position[0] == 5.0 for c in serving.viser.get_clients().values())
        assert camera_arrives(serving, hostile, 6.0)
        assert camera_arrives(serving, other, 7.0)


def test_an_oversize_message_ends_its_own_connection_only(serving: Serving) -> None:
    with client(serving.port) as hostile, client(serving.port) as other:
        hostile.send(bytes(MAX_MESSAGE + 1))
        with pytest.raises(ConnectionClosed):
            drained(hostile)
        assert camera_arrives(serving, other, 7.0)


def test_the_overlay_answers_in_words(serving: Serving) -> None:
    with client(serving.port, "/overlay") as page:
        for message in ("{", "[]", '{"type": "x"}', '{"type": "hello", "key": 1}', '{"type": "gesture"}'):
            page.send(message)
            assert json.loads(page.recv(timeout=10))["type"] == "error"
