"""Who is let in: by address, by token, by cookie, and never in the name of another site."""

from __future__ import annotations

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request

from anchorfield.app.view.gate import Gate, is_loopback

OPEN, CLOSED = Gate(None, 8080), Gate("secret", 8080)


def request(path: str = "/", host: str = "localhost:8080", **headers: str) -> Request:
    return Request(path, Headers({"Host": host} | headers))


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("evil.example", False)],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) == expected


def test_a_foreign_name_for_this_machine_is_refused() -> None:
    answer = OPEN.answer(request(host="evil.example:8080"))
    assert answer is not None
    assert answer.status_code == 403
    assert b"own machine only" in answer.body


@pytest.mark.parametrize(("origin", "status"), [("http://localhost:8080", None), ("http://evil.example", 403)])
def test_a_socket_comes_from_our_own_page(origin: str, status: int | None) -> None:
    answer = OPEN.answer(request(Upgrade="websocket", Origin=origin))
    assert (answer and answer.status_code) == status


def test_without_token_a_page_says_so_and_a_socket_is_refused() -> None:
    page, socket = CLOSED.answer(request()), CLOSED.answer(request(Upgrade="websocket"))
    assert page is not None
    assert socket is not None
    assert (page.status_code, socket.status_code) == (401, 401)
    assert b"token" in page.body


def test_the_token_becomes_a_cookie_that_opens() -> None:
    answer = CLOSED.answer(request("//elsewhere/?token=secret"))
    assert answer is not None
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/elsewhere/"
    cookie = answer.headers["Set-Cookie"].partition(";")[0]
    assert CLOSED.answer(request(Cookie=cookie)) is None
    assert CLOSED.answer(request(Upgrade="websocket", Cookie=cookie)) is None
    wrong = CLOSED.answer(request(Cookie=cookie + "x"))
    assert wrong is not None
    assert wrong.status_code == 401
