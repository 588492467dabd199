"""Who may speak to the viewer: by address, by token, and never in the name of another site.

On a loopback address only programs of this machine reach the port, but every site that its browser shows is one of
them. So a request must name this machine in `Host` (a foreign name that resolves to 127.0.0.1 is an attack), and a
WebSocket must come from a page of the same host (`Origin`), because browsers let any page open one anywhere.

On any other address the first request must hold the token of the printed URL. The answer keeps it as a cookie, which
scripts cannot read and other sites' requests do not carry, and takes it out of the address.
"""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

# Nobody may frame the page (clicks would be stolen), and the address with its token is told to nobody.
SAFE_HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Gate:
    """What a request must show before it is answered."""

    token: str | None  # None: only this machine reaches the port
    port: int

    def answer(self, request: Request) -> Response | None:
        """The refusal of a request, or how it gets its cookie; None lets it in."""
        host = _only(request, "Host")
        if host is None:
            return refusal("A request must say one Host.")
        if self.token is None and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return refusal(f"This viewer answers to its own machine only: open http://localhost:{self.port}.")
        if request.headers.get("Upgrade"):
            return self._answer_socket(request, host)
        if self.token is None or self._has_cookie(request):
            return None
        if not self._has_token(request):
            return refusal(
                "This viewer is closed: open the address that the program printed, with its token.",
                HTTPStatus.UNAUTHORIZED,
            )
        cookie = f"{self._cookie}={self.token}; Path=/; HttpOnly; SameSite=Lax"
        headers = SAFE_HEADERS | {"Location": _without_token(request.path), "Set-Cookie": cookie, "Content-Length": "0"}
        return Response(HTTPStatus.SEE_OTHER, "See Other", Headers(**headers), b"")

    def _answer_socket(self, request: Request, host: str) -> Response | None:
        if "Origin" in request.headers and urlsplit(_only(request, "Origin") or "").netloc.lower() != host.lower():
            return refusal("A page of another site may not speak to this viewer.")
        if self.token is None or self._has_cookie(request) or self._has_token(request):
            return None
        return refusal("This viewer is closed: the token is missing.", HTTPStatus.UNAUTHORIZED)

    @property
    def _cookie(self) -> str:
        """Its name; the port is part of it, because browsers keep one jar for all ports of a host."""
        return f"anchorfield-{self.port}"

    def _has_cookie(self, request: Request) -> bool:
        for line in request.headers.get_all("Cookie"):
            try:
                morsel = SimpleCookie(line).get(self._cookie)
            except CookieError:
                continue
            if morsel is not None and self._is_token(morsel.value):
                return True
        return False

    def _has_token(self, request: Request) -> bool:
        return any(name == "token" and self._is_token(value) for name, value in _query(request.path))

    def _is_token(self, value: str) -> bool:
        return secrets.compare_digest(value.encode(), (self.token or "").encode())


def refusal(text: str, status: HTTPStatus = HTTPStatus.FORBIDDEN) -> Response:
    """A page that says why there is nothing to see."""
    body = f"<!doctype html><meta charset=utf-8><title>anchorfield</title><p>{text}</p>\n".encode()
    headers = SAFE_HEADERS | {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(body))}
    return Response(status, status.phrase, Headers(**headers), body)


def _only(request: Request, name: str) -> str | None:
    """The header's value where there is exactly one."""
    values = request.headers.get_all(name)
    return values[0] if len(values) == 1 else None


def _query(path: str) -> list[tuple[str, str]]:
    return parse_qsl(path.partition("?")[2], keep_blank_values=True, errors="replace")


def _without_token(path: str) -> str:
    """The same address for the browser to go to; never one of another host, as `//elsewhere` would be."""
    kept = urlencode([(name, value) for name, value in _query(path) if name != "token"])
    return f"/{path.partition('?')[0].lstrip('/')}" + (f"?{kept}" if kept else "")
