"""Gestures in a real Chromium reach the program as they were drawn; what is not a gesture goes on to the camera."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
import viser
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from anchorfield.app.view.messages import STRIKES, Guarded
from anchorfield.app.view.overlay import POINTS, Gesture, Tool, gesture_of
from anchorfield.app.view.server import Serving, start
from anchorfield.renderer.errors import UsageError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DRAWN: dict[str, Any] = {
    "type": "gesture",
    "kind": "rectangle",
    "points": [[0.1, 0.2], [0.3, 0.4]],
    "width": 800,
    "height": 600,
    "modifiers": ["shift"],
    "radius": 0,
    "done": True,
}
REFUSED = (
    "new Promise((done) => { const socket = new WebSocket('%s');"
    " socket.onopen = () => done(false); socket.onerror = () => done(true) })"
)


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with start(port=0) as server:
        yield server


@pytest.fixture(scope="module")
def page(serving: Serving, chromium: Browser) -> Page:
    page = chromium.new_page(viewport={"width": 1000, "height": 600})
    opened(page, serving.url)
    wait_for(page, lambda: len(serving.viser.get_clients()) == 1)
    return page


@pytest.fixture(scope="module")
def gestures(serving: Serving) -> queue.Queue[Gesture]:
    heard: queue.Queue[Gesture] = queue.Queue()
    serving.overlay.on_gesture(heard.put)
    return heard


def opened(page: Page, url: str) -> None:
    page.goto(url)
    page.wait_for_selector("#anchorfield-overlay canvas", state="attached", timeout=60_000)


def wait_for(page: Page, condition: Any) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        page.wait_for_timeout(50)


def holding(serving: Serving, page: Page, tool: Tool | None) -> int:
    """Give the page a tool and wait until it has it; returns its client."""
    client = next(iter(serving.viser.get_clients()))
    serving.overlay.set_tool(client, tool)
    kind = None if tool is None else "brushing" if tool.kind == "brush" else "drawing"
    has = "['drawing', 'brushing'].find((name) => document.body.classList.contains(`anchorfield-${name}`)) ?? null"
    wait_for(page, lambda: page.evaluate(has) == kind)
    page.wait_for_timeout(100)
    return client


def drag(page: Page, points: list[tuple[float, float]], button: Any = "left") -> None:
    page.mouse.move(*points[0])
    page.mouse.down(button=button)
    for point in points[1:]:
        page.mouse.move(*point, steps=4)
    page.mouse.up(button=button)


def camera(serving: Serving) -> tuple[float, ...]:
    return tuple(next(iter(serving.viser.get_clients().values())).camera.position)


def test_a_rectangle(serving: Serving, page: Page, gestures: queue.Queue[Gesture]) -> None:
    client = holding(serving, page, Tool("rectangle"))
    before = camera(serving)
    page.keyboard.down("Shift")
    drag(page, [(400, 380), (300, 280), (200, 200)])
    page.keyboard.up("Shift")
    drawn = gestures.get(timeout=10)
    assert (drawn.client_id, drawn.kind, drawn.done) == (client, "rectangle", True)
    assert np.allclose(drawn.points, [(0.2, 1 / 3), (0.4, 380 / 600)])
    assert (drawn.width, drawn.height) == (1000.0, 600.0)
    assert drawn.modifiers == frozenset({"shift"})
    assert camera(serving) == before


def test_a_lasso(serving: Serving, page: Page, gestures: queue.Queue[Gesture]) -> None:
    holding(serving, page, Tool("lasso"))
    drag(page, [(200, 200), (400, 200), (400, 400), (200, 400)])
    drawn = gestures.get(timeout=10)
    assert drawn.kind == "lasso"
    assert len(drawn.points) >= 4
    assert min(x for x, _ in drawn.points) == pytest.approx(0.2)
    assert max(y for _, y in drawn.points) == pytest.approx(400 / 600)


def test_a_brush_of_another_size(serving: Serving, page: Page, gestures: queue.Queue[Gesture]) -> None:
    holding(serving, page, Tool("brush", radius=30))
    page.keyboard.press("]")
    drag(page, [(200, 300), (400, 300)])
    drawn = gestures.get(timeout=10)
    assert drawn.kind == "brush"
    assert drawn.radius == pytest.approx(36)
    assert drawn.points[0] == pytest.approx((0.2, 0.5))
    assert all(y == pytest.approx(0.5) for _, y in drawn.points)


def test_a_point(serving: Serving, page: Page, gestures: queue.Queue[Gesture]) -> None:
    holding(serving, page, Tool("point"))
    page.mouse.click(250, 300)
    drawn = gestures.get(timeout=10)
    assert drawn.kind == "point"
    assert drawn.points[0] == pytest.approx((0.25, 0.5))


def test_escape_gives_a_stroke_up(serving: Serving, page: Page, gestures: queue.Queue[Gesture]) -> None:
    holding(serving, page, Tool("rectangle"))
    page.mouse.move(200, 200)
    page.mouse.down()
    page.mouse.move(300, 300, steps=3)
    page.keyboard.press("Escape")
    page.mouse.up()
    page.wait_for_timeout(300)
    assert gestures.empty()


def test_the_handle_of_the_split(serving: Serving, page: Page, gestures: queue.Queue[Gesture]) -> None:
    client = holding(serving, page, None)
    serving.overlay.split(client, 0.5)
    page.wait_for_selector("#anchorfield-overlay .split", state="visible")
    wait_for(page, lambda: page.locator("#anchorfield-overlay .split").evaluate("e => e.style.left") == "50%")
    drag(page, [(500, 400), (350, 400), (300, 400)])
    drawn = gestures.get(timeout=10)
    while not drawn.done:
        drawn = gestures.get(timeout=10)
    assert drawn.kind == "split"
    assert drawn.points[0][0] == pytest.approx(0.3)
    serving.overlay.split(client, None)
    page.wait_for_selector("#anchorfield-overlay .split", state="hidden")


@pytest.mark.parametrize(
    ("tool", "button", "space"), [(None, "left", False), (Tool("lasso"), "left", True), (Tool("lasso"), "right", False)]
)
def test_the_camera_gets_what_no_tool_takes(
    serving: Serving, page: Page, gestures: queue.Queue[Gesture], tool: Tool | None, button: str, space: bool
) -> None:
    holding(serving, page, tool)
    before = camera(serving)
    if space:
        page.keyboard.down("Space")
    drag(page, [(300, 300), (400, 330), (450, 350)], button)
    if space:
        page.keyboard.up("Space")
    wait_for(page, lambda: camera(serving) != before)
    assert gestures.empty()


def test_a_reloaded_page_is_told_again_and_another_is_not(serving: Serving, page: Page, chromium: Browser) -> None:
    first = set(serving.viser.get_clients())
    serving.overlay.status(None, "for all")
    page.reload()
    wait_for(page, lambda: len(serving.viser.get_clients()) == 1 and set(serving.viser.get_clients()) != first)
    wait_for(page, lambda: page.locator("#anchorfield-overlay .status").inner_text() == "for all")
    other = chromium.new_page()
    opened(other, serving.url)
    wait_for(other, lambda: len(serving.viser.get_clients()) == 2)
    serving.overlay.status(min(serving.viser.get_clients()), "for one")
    wait_for(page, lambda: page.locator("#anchorfield-overlay .status").inner_text() == "for one")
    wait_for(other, lambda: other.locator("#anchorfield-overlay .status").inner_text() == "for all")
    other.close()
    wait_for(page, lambda: len(serving.viser.get_clients()) == 1)


def test_a_browser_with_the_token_gets_in_and_one_without_reads_why(chromium: Browser) -> None:
    with start("0.0.0.0", 0) as serving:
        address = f"http://127.0.0.1:{serving.port}/"
        stranger = chromium.new_context().new_page()
        stranger.goto(address)
        assert "token" in stranger.inner_text("body")
        assert stranger.evaluate(REFUSED % f"ws://127.0.0.1:{serving.port}/overlay")
        guest = chromium.new_context().new_page()
        opened(guest, f"{address}?token={serving.token}")
        assert "token" not in guest.url
        assert guest.evaluate("document.cookie") == ""
        wait_for(guest, lambda: len(serving.viser.get_clients()) == 1)


def test_a_page_of_another_site_gets_no_socket(serving: Serving, chromium: Browser) -> None:
    foreign = chromium.new_page()
    foreign.route(
        "http://elsewhere.example/", lambda route: route.fulfill(body="<p>hello</p>", content_type="text/html")
    )
    foreign.goto("http://elsewhere.example/")
    for path in ("", "overlay"):
        assert foreign.evaluate(REFUSED % f"ws://127.0.0.1:{serving.port}/{path}")


def test_a_gesture_is_read() -> None:
    drawn = gesture_of(3, DRAWN)
    assert drawn == Gesture(3, "rectangle", [(0.1, 0.2), (0.3, 0.4)], 800, 600, frozenset({"shift"}), 0, True)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "square"},
        {"kind": ["rectangle"]},
        {"kind": {}},
        {"points": []},
        {"points": [[0.1, 0.2]]},
        {"points": [[0.1, 0.2], [0.3, float("nan")]]},
        {"points": [[0.1, 0.2], [0.3, 1e300]]},
        {"points": [[0.1, 0.2], [0.3, 10**400]]},
        {"points": [[0.1, 0.2], [0.3, True]]},
        {"points": [[0.1, 0.2], "ab"]},
        {"kind": "lasso", "points": [[0.5, 0.5]] * (POINTS + 1)},
        {"width": 0},
        {"width": None},
        {"height": "600"},
        {"radius": -1},
        {"radius": float("inf")},
        {"modifiers": "shift"},
        {"modifiers": ["hyper"]},
        {"modifiers": [[]]},
        {"done": 1},
    ],
    ids=str,
)
def test_a_gesture_without_sense_is_refused_in_words(change: dict[str, Any]) -> None:
    assert isinstance(gesture_of(0, DRAWN | change), str)


def test_a_field_takes_only_what_fits_it(serving: Serving) -> None:
    gui = serving.viser.gui
    fields: list[tuple[Any, list[Any], list[Any]]] = [
        (gui.add_slider("a", 0.0, 1.0, 0.1, 0.5), [0, 1, 0.3], [2.0, float("nan"), "x", None, True, [0.5], 1e300]),
        (gui.add_number("b", 3), [7, -1e6], ["7", float("inf"), 10**30, {}]),
        (gui.add_checkbox("c", False), [True], [1, "true", None]),
        (gui.add_text("d", "x"), ["y" * 1000], [1, b"x", "y" * 10**6, None]),
        (gui.add_dropdown("e", ("p", "q")), ["q"], ["r", 1, None, ["p"], {}]),
        (gui.add_vector3("f", (0.0, 0.0, 0.0)), [[1, 2, 3.5]], [[1, 2], [1, 2, float("nan")], 3, "abc"]),
        (gui.add_rgb("g", (0, 0, 0)), [[1, 2, 255]], [[1, 2, 256], [-1, 0, 0]]),
        (gui.add_upload_button("h"), [], [True, "x", {"name": "x", "content": b""}]),
    ]
    guard = Guarded(None, lambda _: [gui])  # type: ignore[arg-type]
    for handle, taken, refused in fields:
        for value, ok in [*((v, True) for v in taken), *((v, False) for v in refused)]:
            try:
                raw = msgspec.msgpack.encode(
                    {"type": "GuiUpdateMessage", "uuid": handle._impl.uuid, "updates": {"value": value}}
                )
            except OverflowError:
                continue
            assert (guard.problem(raw) is None) == ok, (type(handle).__name__, value)
    text = fields[3][0]
    raw = msgspec.msgpack.encode({"type": "GuiUpdateMessage", "uuid": text._impl.uuid, "updates": {"update_cb": []}})
    assert guard.problem(raw)


def test_uploads_keep_to_what_they_announce() -> None:
    guard = Guarded(None, lambda _: [])  # type: ignore[arg-type]

    def announce(**change: Any) -> str | None:
        fields = {"source_component_uuid": "b", "transfer_uuid": "t", "filename": "f", "mime_type": "m"}
        fields |= {"part_count": 2, "size_bytes": 10} | change
        return guard.problem(msgspec.msgpack.encode({"type": "FileTransferStartUpload"} | fields))

    def part(size: int) -> str | None:
        fields = {"source_component_uuid": "b", "transfer_uuid": "t", "part_index": 0, "content": bytes(size)}
        return guard.problem(msgspec.msgpack.encode({"type": "FileTransferPart"} | fields))

    assert part(1)
    assert announce(size_bytes=-1)
    assert announce(size_bytes=2**40)
    assert announce(part_count=11)
    assert announce() is None
    assert announce()
    assert part(11)
    assert part(10) is None
    assert part(1)


@pytest.mark.parametrize("name", ["ShareUrlRequest", "ShareUrlDisconnect", "RunJavascriptMessage", "ResetGuiMessage"])
def test_a_page_may_not_ask_for_a_tunnel_or_send_what_programs_send(name: str) -> None:
    guard = Guarded(None, lambda _: [])  # type: ignore[arg-type]
    assert guard.problem(msgspec.msgpack.encode({"type": name}))


def test_a_port_that_is_taken_is_said_and_passed_over_only_where_none_was_asked_for(serving: Serving) -> None:
    with pytest.raises(UsageError, match="in use"):
        start(port=serving.port)
    with pytest.raises(UsageError, match="--port must be"):
        start(port=70_000)
    with start() as first, start() as second:
        assert second.port != first.port
        assert any("in use" in line for line in second.lines)
        assert any("ssh -L" in line for line in second.lines)


def test_many_messages_without_sense_end_their_connection(serving: Serving) -> None:
    protocol = [Subprotocol(f"viser-v{viser.__version__}")]
    with connect(f"ws://127.0.0.1:{serving.port}/", subprotocols=protocol, max_size=None) as page:
        for _ in range(STRIKES):
            page.send(b"\xc1")
        with contextlib.suppress(ConnectionClosed):
            while True:
                page.recv(timeout=10)
    assert page.close_code == 1008
    assert "without sense" in (page.close_reason or "")
