"""What a run gives away: report, renders, exports."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from plyfile import PlyData
from test_app_capture import SIDE, VIEWS, call, make_capture

from anchorfield.app import Run, evaluate, paths, report, train
from anchorfield.app.charts import chart
from anchorfield.app.demo import demo
from anchorfield.app.evaluation import interval
from anchorfield.app.export import export
from anchorfield.app.journal import silent
from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.renderer.splatting import splat
from anchorfield.scenes.similarity import transformed
from anchorfield.scenes.splat_ply import property_names, read_ply


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("outputs")
    capture = make_capture(folder / "a <b> & c")
    return train(capture, settings={"cap": 300, "sh-degree": 2}, steps=80, out=folder / "run", show=silent)


class Page(HTMLParser):
    """Collects tags and addresses and checks that tags close in order."""

    VOID = ("meta", "img", "line", "circle", "polyline", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("tr", "td", "th"):
            while self.open[-1] in ("tr", "td", "th"):
                self.open.pop()
        assert self.open.pop() == tag


def test_the_report_is_one_self_contained_page(run: Run) -> None:
    text = (run.path / "eval" / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.tags.count("svg") == 3
    assert page.tags.count("img") == 3 * len(run.scene.test)
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert not re.search(r"https?://|@import|url\(|<script", text)
    assert "a &lt;b&gt; &amp; c" in text
    assert "<b> & c" not in text
    for words in ("Held-out PSNR while training", "training time / s", "instruction_set", "LPIPS", "images/000.png"):
        assert words in text


def test_a_report_without_held_out_views_says_so(tmp_path: Path) -> None:
    capture = make_capture(tmp_path / "made")
    run = train(capture, settings={"cap": 100}, steps=3, split="all", out=tmp_path / "run", show=silent)
    assert "no held-out views" in (run.path / "eval" / "report.html").read_text()
    with pytest.raises(DataError, match="no held-out views"):
        evaluate(run)


def test_errors_in_colour_keep_their_scale() -> None:
    error = np.array([[0.0, report.FULL_SCALE, 10.0]], dtype=np.float32)
    colours = report.error_colours(error)
    assert colours[0, 0].tolist() == [0, 0, 4]
    assert colours[0, 1].tolist() == colours[0, 2].tolist() == [252, 255, 164]


@pytest.mark.parametrize(
    "points", [[], [(0.0, 1.0)], [(0.0, 0.0), (1.0, 0.0)], [(0, math.nan), (1, 2)], [(i, i**5) for i in range(999)]]
)
@pytest.mark.parametrize("logarithmic", [False, True])
def test_charts_draw_anything(points: list[tuple[float, float]], logarithmic: bool) -> None:
    text = chart(points, "a & b", "x", "y", logarithmic)
    assert "a &amp; b" in text
    assert "nan" not in text
    assert "inf" not in text


def test_an_interval_holds_the_mean() -> None:
    low, high = interval([20.0, 22.0, 30.0, 25.0])
    assert 20 <= low < 24.25 < high <= 30


def test_still_and_video_are_readable(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "render", run.path, "--view", "003", "-o", tmp_path / "view.png")[0] == 0
    name, camera = paths.view(run.scene, "3")
    picture = iio.imread(tmp_path / "view.png")
    expected = (run.render(camera).rgb.clamp(0, 1) * 255).round().byte().numpy()
    assert name == "images/003.png"
    assert np.array_equal(picture, expected)
    assert call(capsys, "render", run.path, "--orbit", "7", "--width", "45", "-o", tmp_path / "o.mp4")[0] == 0
    # in a process of its own: imageio's reader leaves its pipes to the garbage collector, which warns
    line = "import sys, imageio.v3 as iio; x = iio.imread(sys.argv[1]); print(*x.shape, x.std() > 5)"
    read = subprocess.run(
        [sys.executable, "-c", line, str(tmp_path / "o.mp4")], capture_output=True, text=True, check=True
    )
    assert read.stdout.split() == ["7", "44", "44", "3", "True"]
    assert call(capsys, "render", run.path, "--test")[0] == 0
    assert len(list((run.path / "renders" / "test").glob("*.png"))) == 2
    assert call(capsys, "render", run.path, "--orbit", "2", "-o", tmp_path / "x.gif")[0] == 2
    assert call(capsys, "render", run.path, "--orbit", "2", "-o", tmp_path / "x.png")[0] == 2
    assert call(capsys, "render", run.path, "--view", "3", "-o", "/dev/null/x.png")[0] == 3


def test_an_orbit_looks_at_what_the_cameras_look_at(run: Run) -> None:
    for camera in paths.orbit(run.scene, 5):
        position = camera.world_to_camera @ torch.tensor([0.0, 0.0, 0.0, 1.0])  # the ring's focus is near the origin
        assert position[2] > 0
        assert abs(camera.cx - SIDE / 2 + camera.fx * position[0] / position[2]) < SIDE / 4


def test_keyframes_pass_through_their_poses(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    matrix = run.source_from_world
    like = run.scene.views[0].camera
    poses = [matrix @ run.scene.views[index].camera.camera_to_world.double().numpy() for index in (0, 2, 4)]
    keys = [{"seconds": i / 2, "camera_to_world": pose.tolist()} for i, pose in enumerate(poses)]
    file = tmp_path / "path.json"
    file.write_text(json.dumps({"fps": 4, "keyframes": keys}))
    path = paths.read(file, paths.fov_y(like), run.from_world)
    cameras, fps = path.cameras(like), path.fps
    assert (len(cameras), fps) == (5, 4)
    for camera, index in zip(cameras[::2], (0, 2, 4), strict=True):
        expected = run.scene.views[index].camera.world_to_camera
        assert torch.allclose(camera.world_to_camera, expected, atol=1e-5)
    assert call(capsys, "render", run.path, "--path", file, "-o", tmp_path / "frames")[0] == 0
    assert len(list((tmp_path / "frames").iterdir())) == 5


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"keyframes": []},
        {"keyframes": [{}]},
        {"keyframes": [{"position": [0, 0, 0], "look_at": [0, 0, 0]}]},
        {"keyframes": [{"position": [0, 0], "look_at": [0, 0, 1]}]},
        {"keyframes": [{"camera_to_world": [[math.nan] * 4] * 4}]},
        {"keyframes": [{"camera_to_world": [[0] * 4] * 4}]},
        {"keyframes": [{"position": [0, 0, 0], "look_at": [0, 0, 1], "seconds": s} for s in (1, 0)]},
        {"keyframes": [{"position": [0, 0, 0], "look_at": [0, 0, 1], "seconds": s} for s in (0, 1e9)]},
        {"keyframes": [{"position": [0, 0, 0], "look_at": [0, 0, 1], "fov_y_degrees": 180}]},
        {"fps": 0, "keyframes": [{"position": [0, 0, 0], "look_at": [0, 0, 1]}]},
        {"frame": "moon", "keyframes": [{"position": [0, 0, 0], "look_at": [0, 0, 1]}]},
    ],
)
def test_keyframes_that_make_no_sense_are_told(content: object, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "path.json"
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"path\.json"):
        paths.read(file, 50.0, run.from_world)


def test_views_are_found_by_name_stem_and_index(run: Run) -> None:
    assert {paths.view(run.scene, which)[0] for which in ("images/004.png", "004", "4")} <= {"images/004.png"}
    with pytest.raises(UsageError, match=f"among {VIEWS}"):
        paths.view(run.scene, "99")


def test_an_export_has_the_known_order_and_shows_the_same_pixels(run: Run, tmp_path: Path) -> None:
    count = export(run, tmp_path / "local.ply", "local").count
    vertices = PlyData.read(str(tmp_path / "local.ply"))["vertex"]
    assert [prop.name for prop in vertices.properties] == property_names(9)
    assert len(vertices) == count
    background = torch.tensor(run.scene.background)
    camera = run.scene.views[run.scene.test[0]].camera
    shown = splat(read_ply(tmp_path / "local.ply"), camera, background, sh_degree=2).rgb
    assert torch.equal(shown, run.render(camera).rgb)


def test_an_export_in_the_source_frame_shows_the_same_from_there(run: Run, tmp_path: Path) -> None:
    export(run, tmp_path / "source.ply")
    back = np.linalg.inv(run.source_from_world)
    returned = transformed(read_ply(tmp_path / "source.ply"), back)
    camera = run.scene.views[run.scene.test[0]].camera
    shown = splat(returned, camera, torch.tensor(run.scene.background), sh_degree=2).rgb
    assert torch.allclose(shown, run.render(camera).rgb, atol=2e-4)
    means = read_ply(tmp_path / "source.ply").means.double().numpy()
    local = run.gaussians().means.double().numpy()
    expected = local @ run.source_from_world[:3, :3].T + run.source_from_world[:3, 3]
    assert np.allclose(means, expected, atol=1e-5)


def test_the_demo_leaves_a_splat_and_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    psnr = demo(make_capture(tmp_path / "made"), 0.02, silent)
    assert psnr is not None
    assert psnr > 5
    assert len(read_ply(tmp_path / "splat.ply")) > 0
    assert "<svg" in (tmp_path / "report.html").read_text()
    assert len(list((tmp_path / "runs" / "made").iterdir())) == 1
