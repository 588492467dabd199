"""The broker: the newest camera wins, nothing stale comes later, errors are words."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from websockets.sync.client import connect

from anchorfield.app.view import broker as module
from anchorfield.app.view import server
from anchorfield.app.view.broker import Broker, Cost, Picture, to_page
from anchorfield.app.view.pictures import Look
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import DataError
from anchorfield.renderer.types import Frame


def camera(x: float, width: int = 64, height: int = 48) -> Camera:
    pose = torch.eye(4)
    pose[0, 3] = x
    return Camera(pose, 50, 50, width / 2, height / 2, width, height)


def frame(camera: Camera) -> Frame:
    shape = camera.height, camera.width
    return Frame(torch.zeros(*shape, 3), torch.ones(shape), torch.ones(shape))


def position(camera: Camera) -> float:
    return float(camera.world_to_camera[0, 3])


@dataclass
class Got:
    """Collects what is delivered."""

    pictures: list[tuple[int, Picture]] = field(default_factory=list)
    words: list[tuple[int, str]] = field(default_factory=list)

    def deliver(self, client: int, picture: Picture) -> None:
        self.pictures.append((client, picture))

    def tell(self, client: int, words: str) -> None:
        self.words.append((client, words))

    def of(self, client: int) -> list[Picture]:
        return [picture for id, picture in self.pictures if id == client]


@pytest.fixture
def got() -> Got:
    return Got()


@pytest.fixture
def make(got: Got) -> Iterator[Callable[..., Broker]]:
    made: list[Broker] = []

    def make(draw: module.Draw = lambda camera, look: frame(camera), **options: object) -> Broker:
        made.append(Broker(draw, got.deliver, tell=got.tell, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for broker in made:
        broker.close()


def wait(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.002)


def full(got: Got, client: int, x: float) -> bool:
    return any(p.stage == "full" and p.size == (64, 48) and position(p.camera) == x for p in got.of(client))


def test_a_view_gets_a_small_picture_first_and_the_full_one_once_it_rests(make, got):
    make().camera(1, camera(0))
    wait(lambda: full(got, 1, 0))
    assert got.of(1)[0].size[0] < 64
    assert got.of(1)[-1].quality > got.of(1)[0].quality


def test_the_newest_camera_wins_and_nothing_older_follows(make, got):
    broker = make(lambda camera, look: (time.sleep(0.003), frame(camera))[1])
    for step in range(200):
        broker.camera(1, camera(step))
        time.sleep(0.001)
    wait(lambda: full(got, 1, 199))
    seen = [position(p.camera) for p in got.of(1)]
    assert seen == sorted(seen)
    assert len(seen) < 200


def test_a_full_picture_is_given_up_when_the_camera_moves_on(make, got):
    started, release, drawn = threading.Event(), threading.Event(), []

    def draw(camera: Camera, look: Look) -> Iterator[Frame]:
        for strip in range(4):
            if camera.width == 64 and position(camera) == 0:
                drawn.append(strip)
                started.set()
                release.wait(20)
            shape = camera.height // 4, camera.width
            yield Frame(torch.zeros(*shape, 3), torch.ones(shape), torch.ones(shape))

    broker = make(draw)
    broker.camera(1, camera(0))
    started.wait(20)
    broker.camera(1, camera(1))
    release.set()
    wait(lambda: full(got, 1, 1))
    assert drawn == [0]
    assert not full(got, 1, 0)


def test_an_error_is_told_once_in_words_and_the_broker_lives_on(make, got):
    def draw(camera: Camera, look: Look) -> Frame:
        if position(camera) < 0:
            raise DataError("there is nothing to see")
        return frame(camera)

    broker = make(draw)
    for x in (-1, -2):
        broker.camera(1, camera(x))
        time.sleep(0.05)
    broker.camera(1, camera(1))
    wait(lambda: full(got, 1, 1))
    assert got.words == [(1, "there is nothing to see")]


def test_a_client_that_cannot_be_reached_does_not_harm_the_others(got):
    def deliver(client: int, picture: Picture) -> None:
        if client == 1:
            raise RuntimeError("gone")
        got.deliver(client, picture)

    broker = Broker(lambda camera, look: frame(camera), deliver, tell=got.tell)
    broker.camera(1, camera(0))
    broker.camera(2, camera(0))
    wait(lambda: full(got, 2, 0))
    broker.close()


def test_every_client_gets_its_own_view(make, got):
    broker = make()
    for client in range(5):
        broker.camera(client, camera(client), Look())
    for client in range(5):
        wait(lambda client=client: full(got, client, client))
        assert {position(p.camera) for p in got.of(client)} == {client}


def test_a_forgotten_client_gets_nothing_more(make, got):
    broker = make()
    broker.camera(1, camera(0))
    wait(lambda: full(got, 1, 0))
    broker.forget(1)
    count = len(got.pictures)
    broker.refresh()
    broker.camera(2, camera(0))
    wait(lambda: full(got, 2, 0))
    assert len(got.of(1)) == count


def test_changed_content_is_drawn_again_and_the_same_camera_is_not(make, got):
    broker = make()
    broker.camera(1, camera(0))
    wait(lambda: full(got, 1, 0))
    count = len(got.pictures)
    broker.camera(1, camera(0))
    time.sleep(0.2)
    assert len(got.pictures) == count
    broker.refresh()
    wait(lambda: len(got.pictures) > count and got.pictures[-1][1].stage == "full")


def test_a_pose_that_only_trembles_is_the_one_before(make, got):
    broker = make()
    broker.camera(1, camera(0.5))
    wait(lambda: full(got, 1, 0.5))
    count = len(got.pictures)
    broker.camera(1, camera(0.5 + 4e-7))
    time.sleep(0.2)
    assert len(got.pictures) == count
    broker.camera(1, camera(0.5 + 4e-7, width=80))  # the page was resized
    wait(lambda: got.pictures[-1][1].size == (80, 48))
    assert position(got.pictures[-1][1].camera) == 0.5
    broker.camera(1, camera(0.5 + 2**-18))
    wait(lambda: full(got, 1, 0.5 + 2**-18))


def test_trembling_does_not_add_up(make, got):
    broker = make()
    for step in range(10):
        broker.camera(1, camera(4e-7 * step))
    wait(lambda: got.of(1) and abs(position(got.of(1)[-1].camera) - 36e-7) < 1e-6)


def test_training_is_disturbed_for_its_share_only(make, got):
    clock = []

    def draw(camera: Camera, look: Look) -> Frame:
        begin = time.perf_counter()
        time.sleep(0.02)
        clock.append(time.perf_counter() - begin)
        return frame(camera)

    broker = make(draw, training=lambda: True, share=module.Share(still=0.1, moving=0.1))
    begin = time.perf_counter()
    broker.camera(1, camera(0))
    while time.perf_counter() - begin < 1:
        broker.refresh()
        time.sleep(0.002)
    broker.close()
    assert sum(clock) < 0.1 * (time.perf_counter() - begin) + 2 * max(clock)
    assert len(got.pictures) > 1


def test_cost_finds_the_constant_and_the_slope():
    cost = Cost()
    assert cost.seconds(1000) == 0
    for pixels in (1000, 5000, 20000):
        cost.add(pixels, 0.01 + 1e-6 * pixels)
    assert cost.seconds(100_000) == pytest.approx(0.11)


def test_slow_drawing_makes_moving_pictures_smaller_and_quick_drawing_makes_them_larger(make, got):
    slow = threading.Event()

    def draw(camera: Camera, look: Look) -> Frame:
        time.sleep(0.1 if slow.is_set() else 0)
        return frame(camera)

    broker, step = make(draw), 0

    def moved_to(width: int) -> bool:
        nonlocal step
        step += 1
        broker.camera(1, camera(step))
        time.sleep(0.002)
        return bool(got.of(1)) and got.of(1)[-1].size[0] == width

    wait(lambda: moved_to(64))
    slow.set()
    wait(lambda: moved_to(16))


def test_a_page_that_comes_later_gets_the_newest_picture():
    serving = server.start(port=0)
    with serving:
        key = serving.overlay.key(5)
        for value in (10, 200):
            rgb = np.full((48, 64, 3), value, np.uint8)
            to_page(serving.overlay, 5, Picture(rgb, None, 90, 1.0, "full", camera(0), Look()))
        serving.overlay.picture(6, b"of somebody else")
        with connect(f"ws://127.0.0.1:{serving.port}/overlay", origin=f"http://127.0.0.1:{serving.port}") as page:
            page.send(json.dumps({"type": "hello", "key": key}))
            got = page.recv(timeout=20)
        assert isinstance(got, bytes)
        assert np.abs(np.asarray(Image.open(BytesIO(got))).astype(int) - 200).max() <= 2
