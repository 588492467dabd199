"""The viewer's server: viser's page and socket, with our overlay and our gate before both, on one port."""

from __future__ import annotations

import contextlib
import errno
import getpass
import gzip
import io
import json
import logging
import os
import secrets
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any

import viser
import viser.infra
import websockets.asyncio.server
from viser import ViserServer, _messages  # viser has no public way to run a script for one client
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from anchorfield.app.view.gate import SAFE_HEADERS, Gate, is_loopback
from anchorfield.app.view.messages import Guarded
from anchorfield.app.view.overlay import Overlay
from anchorfield.renderer.errors import UsageError

PORT = 8080
TRIED = 50  # ports after the first, where none was asked for
MAX_MESSAGE = 2**22  # bytes; viser's page sends uploads in smaller parts
MAX_CONNECTIONS = 64  # a page has two
HERE = Path(__file__).parent
INJECTED = '<link rel="stylesheet" href="anchorfield/overlay.css"><script src="anchorfield/overlay.js"></script>'


class Serving:
    """A running server; close it, or use it as a context."""

    viser: ViserServer
    overlay: Overlay
    url: str  # what the browser opens, with the token where there is one
    token: str | None
    port: int
    lines: list[str]  # what to print: the address, and how to reach it from another computer

    def __init__(self, server: ViserServer, overlay: Overlay, gate: Gate, host: str, notes: list[str]) -> None:
        self.viser, self.overlay, self.token, self.port = server, overlay, gate.token, server.get_port()
        query = f"/?token={gate.token}" if gate.token else ""
        self.url = f"http://{_shown_host(host)}:{self.port}{query}"
        near = f"http://localhost:{self.port}{query}"
        reached = f"{getpass.getuser()}@{socket.gethostname()}"
        tunnel = f"from another computer: ssh -L {self.port}:localhost:{self.port} {reached}   then open {near}"
        self.lines = [*notes, f"viewer: {self.url}"]
        if is_loopback(host) or host in ("0.0.0.0", "::", ""):
            self.lines.append(tunnel)

    def close(self) -> None:
        """Stop serving; pages that are open say that the connection is lost."""
        self.overlay.close()
        with _quiet():
            self.viser.stop()

    def __enter__(self) -> Serving:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def start(host: str = "127.0.0.1", port: int | None = None, title: str = "anchorfield") -> Serving:
    """Serve an empty viewer. Without `port` it is 8080 or the next free one; a given one that is taken is an error.

    Any host but the own machine demands a token, which the URL holds.
    """
    listening, notes = _listen(host, port)
    gate = Gate(None if is_loopback(host) else secrets.token_urlsafe(24), listening.getsockname()[1])
    overlay = Overlay()
    sockets = _Sockets(overlay)
    with _quiet(), _serving_ours(listening, gate, sockets, title):
        server = ViserServer(host=host, port=listening.getsockname()[1], label=title, verbose=False)
    sockets.server = server
    server.gui.configure_theme(show_share_button=False)  # it would open a tunnel to the outside

    @server.on_client_connect
    def introduce(client: viser.ClientHandle) -> None:
        source = f"window.anchorfieldClient({json.dumps(overlay.key(client.client_id))})"
        client._websock_connection.queue_message(_messages.RunJavascriptMessage(source))

    @server.on_client_disconnect
    def forget(client: viser.ClientHandle) -> None:
        overlay.forget(client.client_id)

    return Serving(server, overlay, gate, host, notes)


def open_window(url: str) -> str:
    """Open a window without a browser's bars where Chromium, Chrome or Edge is found; returns a sentence."""
    names = ("chromium", "chromium-browser", "google-chrome", "microsoft-edge", "msedge", "chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        return f"no Chromium, Chrome or Edge was found for a window: open {url} in a browser"
    as_root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    subprocess.Popen(
        [program, f"--app={url}", *as_root],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return f"a window opens with {Path(program).name}"


def _listen(host: str, port: int | None) -> tuple[socket.socket, list[str]]:
    """A bound socket, and what to say where it is not on the usual port."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host or "0.0.0.0", None, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise UsageError(f"--host {host}: no such address on this machine") from None
    if port is not None and not 0 <= port <= 65_535:
        raise UsageError(f"--port must be from 0 to 65535, got {port}")
    tried = [port] if port is not None else range(PORT, PORT + TRIED)
    for number in tried:
        try:
            listening = socket.create_server((str(address[0]), number), family=family)
        except PermissionError:
            raise UsageError(f"port {number} is reserved by the system: choose one from 1024 up") from None
        except OSError as problem:
            if problem.errno == errno.EADDRNOTAVAIL:
                raise UsageError(f"--host {host}: not an address of this machine") from None
            continue
        taken = port is None and number != PORT
        return listening, [f"port {PORT} is in use: taking {number}"] if taken else []
    if port is not None:
        raise UsageError(f"port {port} is in use: another viewer may be open there. Give another --port, or none")
    raise UsageError(f"ports {PORT} to {PORT + TRIED - 1} are all in use: give one with --port")


def _shown_host(host: str) -> str:
    if host in ("0.0.0.0", "::", ""):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


_START = threading.Lock()


@contextlib.contextmanager
def _serving_ours(listening: socket.socket, gate: Gate, sockets: _Sockets, title: str) -> Iterator[None]:
    """Within this, a viser server listens on our socket, behind our gate, and serves our overlay too.

    viser has no hook for it: its server thread calls `websockets.asyncio.server.serve`, which is wrapped until it has.
    """
    used = threading.Event()
    original = websockets.asyncio.server.serve

    def serve(handler: Callable[..., Any], host: Any, port: Any, **options: Any) -> Any:
        used.set()
        options |= {
            "sock": listening,
            "max_size": MAX_MESSAGE,
            "process_request": _answering(options["process_request"], gate, title),
            "logger": _logger(),
        }
        return original(sockets.handling(handler), **options)

    with _START:
        websockets.asyncio.server.serve = serve  # type: ignore[assignment, misc]
        try:
            yield
        finally:
            websockets.asyncio.server.serve = original  # type: ignore[misc]
    if not used.is_set():
        raise RuntimeError(f"viser {viser.__version__} serves in another way than 1.1 does")


def _answering(
    viser_answer: Callable[[ServerConnection, Request], Response | None], gate: Gate, title: str
) -> Callable[[ServerConnection, Request], Response | None]:
    """What answers an HTTP request, or lets a WebSocket in (None)."""
    page = _page(title)
    ours = {
        "/": (page, "text/html; charset=utf-8"),
        "/index.html": (page, "text/html; charset=utf-8"),
        "/anchorfield/overlay.js": ((HERE / "overlay.js").read_bytes(), "application/javascript; charset=utf-8"),
        "/anchorfield/overlay.css": ((HERE / "overlay.css").read_bytes(), "text/css; charset=utf-8"),
    }
    packed = {path: gzip.compress(content, 6) for path, (content, _) in ours.items()}

    def answer(connection: ServerConnection, request: Request) -> Response | None:
        refusal = gate.answer(request)
        if refusal is not None:
            return refusal
        path = request.path.partition("?")[0]
        if path not in ours or request.headers.get("Upgrade"):
            return viser_answer(connection, request)
        content, kind = ours[path]
        zipped = "gzip" in request.headers.get("Accept-Encoding", "")
        content = packed[path] if zipped else content
        headers = SAFE_HEADERS | {"Content-Type": kind, "Content-Length": str(len(content))}
        headers["Content-Encoding"] = "gzip" if zipped else "identity"
        return Response(HTTPStatus.OK, "OK", Headers(**headers), content)

    return answer


def _page(title: str) -> bytes:
    """viser's page with our script and style at its head."""
    text = (Path(viser.__file__).parent / "client" / "build" / "index.html").read_text(encoding="utf-8")
    text = text.replace("<title>Viser</title>", f"<title>{title}</title>", 1)
    return text.replace("<head>", f"<head>{INJECTED}", 1).encode()


class _Sockets:
    """Everything that is said over WebSockets: the overlay's on its own path, viser's through a guard."""

    def __init__(self, overlay: Overlay) -> None:
        self.overlay = overlay
        self.server: ViserServer | None = None  # known only after the first connections may have come
        self._open = 0

    def handling(self, viser_handler: Callable[[Any], Any]) -> Callable[[ServerConnection], Any]:
        """What speaks on a connection until it ends."""

        async def handle(connection: ServerConnection) -> None:
            path = connection.request.path.partition("?")[0] if connection.request else ""
            self._open += 1
            try:
                if self._open > MAX_CONNECTIONS:
                    await connection.close(1013, "too many pages are open")
                elif path.endswith("/overlay"):
                    await self.overlay.serve(connection)
                elif connection.subprotocol != f"viser-v{viser.__version__}":
                    await connection.close(1002, f"this viewer speaks viser {viser.__version__}: reload the page")
                else:
                    guarded = Guarded(connection, self._elements)
                    guarded.tell = lambda text: self._notify(guarded, text)
                    await viser_handler(guarded)
            finally:
                self._open -= 1

        return handle

    def _client(self, connection: Guarded) -> int | None:
        """viser's number for a connection."""
        live = self.server._websock_server._live_connections if self.server else {}
        return next((client for client, guarded in live.items() if guarded is connection), None)  # type: ignore[comparison-overlap]

    def _elements(self, connection: Guarded) -> list[viser.GuiApi]:
        client = self._client(connection)
        if self.server is None or client is None:
            return []
        own = self.server.get_clients().get(client)
        return [self.server.gui] + ([own.gui] if own else [])

    def _notify(self, connection: Guarded, text: str) -> None:
        client = self._client(connection)
        state = (
            self.server._websock_server._client_state_from_id.get(client)
            if self.server and client is not None
            else None
        )
        if state is None:
            return
        props = _messages.NotificationProps("Not understood", text, False, True, 10.0, "red")
        state.message_buffer.push(_messages.NotificationShowMessage(f"guard-{secrets.token_hex(4)}", props))


def _logger() -> logging.Logger:
    """A logger for websockets without what every refused or broken handshake would say."""
    logger = logging.getLogger("anchorfield.view")
    if not logger.filters:
        logger.addFilter(
            lambda record: not record.getMessage().startswith(("opening handshake", "connection rejected"))
        )
    return logger


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what viser prints of its own: standard output may be a stream of JSON lines."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
