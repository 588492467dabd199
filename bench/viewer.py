"""The viewer in a real browser: how soon a moved camera shows, how long a full picture takes, what looking costs.

    python -m bench.viewer [--method NAME ...] [--gaussians N] [--size WxH] [--json FILE]

For every installed method a model is made (`gaussian_splatting`: the bench's made scene of N Gaussians; others are
trained for a few hundred steps on the bundled capture) and served by a process of its own, as the viewer serves it.
Chromium draws the page (in software where there is no GPU, on the same cores), and `_viewer_page.js` in it says when.
Latency is from the browser's own time of a pointer event to the second animation frame after the picture of the moved
camera was put into the page: the first of them holds it, the second begins when the first was composited.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anchorfield import methods
from anchorfield.app.pictures import Pixels
from anchorfield.app.view import pictures, server
from anchorfield.app.view.broker import Broker, Picture, to_page
from anchorfield.app.view.pictures import Look
from anchorfield.app.view.turns import Turns
from anchorfield.methods import Fit, HasGaussians
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.types import Frame
from anchorfield.scenes.load import load_scene
from bench import _machine, _table
from bench._chromium import CHROMIUM, FLAGS
from bench._operations import Stages
from bench._scenes import made
from bench.training_step import SAMPLE, steps, with_points

SCALE = 10.0  # viser's units per unit of the training frame
MARK = (1, 0, 1, 1, 0, 0, 1, 0)
PAGE = Path(__file__).parent / "_viewer_page.js"
CANVAS = "[...document.querySelectorAll('canvas')].map((c) => [c.width, c.height]).sort((a, b) => b[0] - a[0])[1]"


@dataclass(frozen=True)
class Subject:
    """A method with something to show and to train on."""

    model: torch.nn.Module
    fits: Iterator[Fit]  # further steps, each like the one before
    camera: Camera


def subject(name: str, gaussians: int, trained: int) -> Subject:
    """What the named method is measured on."""
    if name == "gaussian_splatting":
        scene = made(gaussians, 960, 540)
        fits = steps(Stages(scene))
        first = next(fits)
        assert isinstance(first, Fit)
        return Subject(first.model, fits, scene.camera)  # type: ignore[arg-type]
    capture = with_points(load_scene(SAMPLE))
    held = capture.views[(capture.test or capture.train)[0]].camera
    generator = methods.load(name)().fit(capture)
    fit = next(generator)
    for fit in islice(generator, trained - 1):
        fit.progress = min(0.6, fit.step / trained)
    return Subject(fit.model, generator, held)


class Service:
    """The viewer's parts without its panels: a page, the broker, and training that can be switched on."""

    def __init__(self, shown: Subject):
        self.shown, self.turns, self.steps = shown, Turns(), 0
        self.training = threading.Event()
        self.numbers: dict[int, int] = {}
        self.served: list[dict[str, Any]] = []
        self.serving = server.start(port=0)
        self.server = self.serving.viser
        self.server.scene.configure_default_lights(cast_shadow=False)
        self.server.scene.configure_environment_map(None)
        self.broker = Broker(
            self.draw, self.deliver, paint=self.paint, training=self.training.is_set, turn=self.turns.drawing
        )
        pose = shown.camera.camera_to_world.double().numpy()
        initial = self.server.initial_camera
        initial.position, initial.look_at = SCALE * pose[:3, 3], SCALE * (pose[:3, 3] + 2 * pose[:3, 2])
        initial.up = -pose[:3, 1]
        self.server.on_client_connect(self.connected)
        self.server.on_client_disconnect(lambda client: self.broker.forget(client.client_id))
        threading.Thread(target=self.train, daemon=True).start()

    def draw(self, camera: Camera, look: Look) -> Frame:
        return self.shown.model.render(camera)  # type: ignore[operator, no-any-return]

    def paint(self, frame: Frame, camera: Camera, look: Look) -> Pixels:
        return pictures.painted(frame, camera, look)

    def connected(self, client: Any) -> None:
        client.camera.on_update(lambda _: self.moved(client))

    def moved(self, client: Any) -> None:
        """Camera messages are counted; the page counts the same ones, and those before this began to listen."""
        self.numbers[client.client_id] = number = self.numbers.get(client.client_id, 0) + 1
        camera = viser_camera(client.camera)
        self.broker.camera(client.client_id, _numbered(camera, number), Look(depth=False))

    def deliver(self, client: int, picture: Picture) -> None:
        number = _number(picture.camera)
        marked = Picture(**{**vars(picture), "rgb": _marked(picture.rgb, number)})
        begin = time.perf_counter()
        to_page(self.serving.overlay, client, marked)
        encode = 1000 * (time.perf_counter() - begin)
        self.served.append(
            {"number": number, "stage": picture.stage, "size": picture.size, "ms": picture.milliseconds, "send": encode}
        )

    def train(self) -> None:
        while True:
            if not self.training.is_set():
                self.turns.rest()
                self.training.wait()
            self.turns.begin()
            try:
                next(self.shown.fits)
            finally:
                self.turns.end()
            self.steps += 1
            self.broker.refresh()


def viser_camera(pose: Any) -> Camera:
    """A client's camera in the training frame."""
    rotation = _rotation(np.asarray(pose.wxyz, float))
    matrix = np.eye(4)
    matrix[:3, :3] = rotation.T
    matrix[:3, 3] = -rotation.T @ np.asarray(pose.position, float) / SCALE
    width, height = int(pose.image_width), int(pose.image_height)
    focal = height / 2 / np.tan(pose.fov / 2)
    return Camera(torch.from_numpy(matrix).float(), focal, focal, width / 2, height / 2, width, height)


def _rotation(wxyz: Any) -> Any:
    w, x, y, z = wxyz / np.linalg.norm(wxyz)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _numbered(camera: Camera, number: int) -> Camera:
    """The camera with its number where nobody looks: a pose's last row is not read by any kernel."""
    camera.world_to_camera[3, 0] = number
    return camera


def _number(camera: Camera) -> int:
    return int(camera.world_to_camera[3, 0])


def _marked(rgb: Pixels, number: int) -> Pixels:
    """The picture with MARK and the number in its first rows, as blocks of a 32nd of the width."""
    bits = [*MARK, *((number >> i) & 1 for i in range(24))]
    height, width = rgb.shape[:2]
    marked = rgb.copy()
    columns = np.minimum(np.arange(width) * 32 // width, 31)
    marked[: max(8, height // 24)] = (255 * np.array(bits, np.uint8))[columns][None, :, None]
    return marked


def serve(name: str, gaussians: int, trained: int) -> None:
    """Answer commands from standard input, a line of JSON each."""
    _machine.one_torch_thread()
    shown = subject(name, gaussians, trained)
    count = len(shown.model.gaussians(shown.camera)) if isinstance(shown.model, HasGaussians) else None
    service = Service(shown)
    _say({"port": service.server.get_port(), "gaussians": count})
    for line in sys.stdin:
        command, _, value = line.strip().partition(" ")
        if command == "train":
            (service.training.set if value == "on" else service.training.clear)()
        elif command == "heard":
            _say({"heard": service.numbers[max(service.numbers)]})
            continue
        elif command == "served":
            service.served, taken = [], service.served
            _say({"served": taken})
            continue
        _say({"steps": service.steps, "at": time.perf_counter()})


def _say(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


class Child:
    """The service in a process of its own."""

    def __init__(self, *arguments: str):
        line = [sys.executable, "-m", "bench.viewer", "--serve", *arguments]
        self.process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.hello = self._read()

    def ask(self, command: str) -> dict[str, Any]:
        """The answer to a command."""
        assert self.process.stdin
        print(command, file=self.process.stdin, flush=True)
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout
        while line := self.process.stdout.readline():
            if line.startswith("{"):
                return dict(json.loads(line))
        raise RuntimeError("the service has ended")

    def speed(self, seconds: float) -> float:
        """Steps per second over a while."""
        begin = self.ask("steps")
        time.sleep(seconds)
        end = self.ask("steps")
        return float((end["steps"] - begin["steps"]) / (end["at"] - begin["at"]))

    def close(self) -> None:
        """End the process that was started here."""
        self.process.kill()
        self.process.wait()


@dataclass
class Result:
    """Of one method."""

    method: str
    gaussians: int | None
    canvas: list[int]
    step_ms: list[list[float]] = field(default_factory=list)  # a single move of a resting view; see `latencies`
    drag_ms: list[list[float]] = field(default_factory=list)  # moves of a long drag
    drag_rate: float = 0.0  # pictures per second of the drag
    moving_size: list[int] = field(default_factory=list)
    moving_draw_ms: float = 0.0
    full_size: list[int] = field(default_factory=list)
    full_draw_ms: float = 0.0
    full_send_ms: float = 0.0
    full_shown_ms: float = 0.0  # from the last camera message to the drawn full picture, the wait for rest included
    steps_per_second: list[float] = field(default_factory=list)  # nobody looks
    steps_per_second_seen: list[float] = field(default_factory=list)  # a still view in the browser
    refreshes: float = 0.0  # pictures per second of it

    def text(self) -> str:
        """Lines to read."""
        count = "" if self.gaussians is None else f", {self.gaussians:,} Gaussians"
        lines = [f"{self.method}{count}; viser draws its own things at {self.canvas[0]}x{self.canvas[1]}"]
        for name, parts in (("a move of a resting view", self.step_ms), ("during a drag", self.drag_ms)):
            if parts:
                whole = np.array(parts).sum(1)
                median, high = np.percentile(whole, [50, 95])
                sent, decoded, shown = np.median(parts, axis=0)
                lines.append(
                    f"  camera to new frame, {name}: median {median:.0f} ms, p95 {high:.0f} ms ({len(parts)});"
                    f" page {sent:.0f}, program {decoded:.0f}, page {shown:.0f}"
                )
        if self.full_size:
            size, full = "x".join(map(str, self.moving_size)), "x".join(map(str, self.full_size))
            lines.append(f"  drag: {self.drag_rate:.0f} pictures/s, last {size}, drawn in {self.moving_draw_ms:.0f} ms")
            lines.append(
                f"  full {full}: drawn in {self.full_draw_ms:.0f} ms, encoded and sent in {self.full_send_ms:.0f} ms,"
                f" on the page {self.full_shown_ms:.0f} ms after the last camera"
            )
        if self.steps_per_second_seen:
            alone, seen = statistics.mean(self.steps_per_second), statistics.mean(self.steps_per_second_seen)
            lines.append(
                f"  training: {alone:.2f} steps/s alone, {seen:.2f} with a still view ({1 - seen / alone:.0%} less,"
                f" {self.refreshes:.2f} pictures/s)"
            )
        return "\n".join(lines)


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield started
        started.close()


def page_of(chromium: Any, child: Child, size: tuple[int, int], query: str = "") -> Any:
    """A page with the scene in it."""
    page = chromium.new_page(viewport={"width": size[0], "height": size[1]})
    page.add_init_script(PAGE.read_text())
    page.goto(f"http://localhost:{child.hello['port']}/{query}")
    page.wait_for_function("window.anchorfieldLog?.drawn.length > 0", timeout=60_000)
    rest(page)
    return page


def rest(page: Any, seconds: float = 0.7) -> None:
    """Wait until no new picture has come for a while."""
    count, since = -1, time.monotonic()
    while time.monotonic() - since < seconds:
        now = page.evaluate("window.anchorfieldLog.drawn.length")
        if now != count:
            count, since = now, time.monotonic()
        time.sleep(0.1)


def log(page: Any) -> dict[str, Any]:
    """What the page has seen."""
    return dict(page.evaluate("window.anchorfieldLog"))


def latencies(seen: dict[str, Any], first: int, unheard: int, reach: float = 60.0) -> list[list[float]]:
    """For each pointer event that a camera message followed within `reach` ms: until that was sent, then until its
    camera's picture was decoded, then until the page had drawn it. The service has not heard the first `unheard`.
    """
    found, previous = [], None
    for number, sent in enumerate(seen["sent"][first:], start=first + 1):
        before = [at for at in seen["moved"] if sent - reach < at <= sent]
        if not before or before[-1] == previous:
            continue
        previous = before[-1]
        after = [(drawn["at"], drawn["decoded"]) for drawn in seen["drawn"] if drawn["number"] >= number - unheard]
        if after:
            at, decoded = min(after)
            found.append([sent - previous, decoded - sent, at - decoded])
    return found


def looked(child: Child, page: Any, result: Result, moves: int, drag_seconds: float) -> None:
    """Latencies and sizes with training paused."""
    width, height = page.viewport_size["width"], page.viewport_size["height"]
    x, y = width * 0.4, height * 0.5
    page.mouse.move(x, y)
    page.mouse.down()
    for _ in range(3):  # warm up
        x += 5
        page.mouse.move(x, y)
        rest(page, 0.5)
    child.ask("served")
    unheard = len(log(page)["sent"]) - child.ask("heard")["heard"]
    full = []
    for move in range(moves):
        seen = log(page)
        x += 6 if move % 8 < 4 else -6
        page.mouse.move(x, y)
        rest(page, 0.5)
        after = log(page)
        result.step_ms += latencies(
            {**after, "moved": after["moved"][len(seen["moved"]) :]}, len(seen["sent"]), unheard
        )[:1]
        full.append(after["drawn"][-1]["at"] - after["sent"][-1])
    result.full_shown_ms = statistics.median(full)
    served = [s for s in child.ask("served")["served"] if s["stage"] == "full"]
    result.full_size = served[-1]["size"]
    result.full_draw_ms = statistics.median(s["ms"] for s in served)
    result.full_send_ms = statistics.median(s["send"] for s in served)
    before, begin = log(page), time.monotonic()
    while (spent := time.monotonic() - begin) < drag_seconds:
        page.mouse.move(x + 80 * np.sin(2 * spent), y + 40 * np.sin(3 * spent))
        time.sleep(1 / 60)
    after = log(page)
    page.mouse.up()
    rest(page)
    result.drag_ms = latencies(
        {**log(page), "moved": after["moved"][len(before["moved"]) :]}, len(before["sent"]), unheard
    )
    result.drag_rate = (len(after["drawn"]) - len(before["drawn"])) / drag_seconds
    served = [s for s in child.ask("served")["served"] if s["stage"] == "moving"]
    result.moving_size = served[-1]["size"]
    result.moving_draw_ms = statistics.median(s["ms"] for s in served)


def trained(child: Child, chromium: Any, result: Result, size: tuple[int, int], seconds: float) -> None:
    """Speed of training while nobody looks and while a still view is open, in turn."""
    for _ in range(2):
        child.ask("train on")
        child.speed(1)
        result.steps_per_second.append(child.speed(seconds))
        child.ask("train off")
        page = page_of(chromium, child, size)
        child.ask("train on")
        child.speed(1)
        child.ask("served")
        result.steps_per_second_seen.append(child.speed(seconds))
        result.refreshes = len(child.ask("served")["served"]) / seconds
        child.ask("train off")
        page.close()


def measured(name: str, arguments: argparse.Namespace) -> Result:
    """Everything about one method."""
    child = Child(name, "--gaussians", str(arguments.gaussians), "--trained", str(arguments.trained))
    try:
        with browser() as chromium:
            page = page_of(chromium, child, arguments.size)
            canvas = page.evaluate(CANVAS)
            result = Result(name, child.hello["gaussians"], canvas)
            if arguments.moves:
                looked(child, page, result, arguments.moves, arguments.drag)
            page.close()
            if arguments.seconds:
                trained(child, chromium, result, arguments.size, arguments.seconds)
        return result
    finally:
        child.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--method", nargs="+", default=methods.names())
    parser.add_argument("--gaussians", type=int, default=100_000)
    parser.add_argument("--trained", type=int, default=300, help="steps of methods without a made scene")
    parser.add_argument("--size", type=_table.size, default=(1280, 720), help="of the page")
    parser.add_argument("--moves", type=int, default=30, help="of a resting view; 0: only the training's speed")
    parser.add_argument("--drag", type=float, default=6.0, help="seconds")
    parser.add_argument(
        "--seconds", type=float, default=8.0, help="of each measurement of the training's speed; 0: none"
    )
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.gaussians, arguments.trained)
        return
    print(_table.machine_line(), flush=True)
    results = []
    for name in arguments.method:
        results.append(measured(name, arguments))
        print(results[-1].text(), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")


if __name__ == "__main__":
    main()
