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
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from anchorfield.app.view.server import Serving, start

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


def test_the_overlay_answers_in_words(serving: Serving) -> None:
    with client(serving.port, "/overlay") as page:
        for message in ("{", "[]", '{"type": "x"}', '{"type": "hello", "key": 1}', '{"type": "gesture"}'):
            page.send(message)
            assert json.loads(page.recv(timeout=10))["type"] == "error"
