"""Images, the cache, splits and the checks that every capture goes through."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import threading
from pathlib import Path

import captures
import numpy as np
import pytest
import torch
from PIL import Image

from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.scenes.cache import TensorCache
from anchorfield.scenes.images import decode, read_header
from anchorfield.scenes.load import load_scene


def test_a_folder_with_nothing_known(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no capture found. Looked for transforms.json.*COLMAP.*holds: nothing"):
        load_scene(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"holds: notes\.txt"):
        load_scene(tmp_path)
    with pytest.raises(DataError, match="no capture found"):
        load_scene(tmp_path / "notes.txt")
    with pytest.raises(DataError, match="no such file or folder"):
        load_scene(tmp_path / "nowhere")


def test_splits(tmp_path: Path) -> None:
    captures.transforms(tmp_path, 17)
    assert load_scene(tmp_path).test == (0, 8, 16)
    assert load_scene(tmp_path, split="all").test == ()
    assert load_scene(tmp_path, split=5).test == (0, 5, 10, 15)
    for wrong in ("sometimes", 1, -3):
        with pytest.raises(UsageError, match="split must be"):
            load_scene(tmp_path, split=wrong)
    with pytest.raises(UsageError, match="downscale"):
        load_scene(tmp_path, downscale=0)


def test_two_views_are_all_trained_on(tmp_path: Path) -> None:
    captures.transforms(tmp_path, 2)
    scene = load_scene(tmp_path)
    assert (scene.train, scene.test) == ((0, 1), ())
    assert any("none is held out" in warning for warning in scene.warnings)


def test_one_view_and_equal_poses(tmp_path: Path) -> None:
    content = captures.transforms(tmp_path)
    captures.save(tmp_path, {**content, "frames": content["frames"][:1]})
    with pytest.raises(DataError, match="1 usable view, at least 2"):
        load_scene(tmp_path)
    pose = content["frames"][0]["transform_matrix"]
    captures.save(tmp_path, {**content, "frames": [{**frame, "transform_matrix": pose} for frame in content["frames"]]})
    with pytest.raises(DataError, match="all 10 cameras stand at the same place"):
        load_scene(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_unreadable_images(tmp_path: Path, content: bytes) -> None:
    captures.transforms(tmp_path)
    (tmp_path / "images" / "004.png").write_bytes(content)
    with pytest.raises(DataError, match=r"004\.png"):
        load_scene(tmp_path)


def test_truncated_image_is_named_when_decoded(tmp_path: Path) -> None:
    captures.transforms(tmp_path)
    path = tmp_path / "images" / "004.png"
    path.write_bytes(path.read_bytes()[:-900])
    scene = load_scene(tmp_path)
    with pytest.raises(DataError, match=r"004\.png: the image is damaged"):
        scene.photo(4)


def grey16() -> Image.Image:
    """Values 0..65535 from left to right."""
    return Image.fromarray(np.tile(np.linspace(0, 65535, 40).astype(np.uint16), (30, 1)))


RAMP = np.rint(np.linspace(0, 255, 40))
KINDS = {
    "grey": (Image.fromarray(np.tile(RAMP.astype(np.uint8), (30, 1))), "png"),
    "grey16": (grey16(), "png"),
    "grey16 tiff": (grey16(), "tiff"),
    "cmyk": (Image.fromarray(np.tile(RAMP.astype(np.uint8)[:, None], (30, 1, 3))).convert("CMYK"), "jpg"),
    "palette": (Image.fromarray(np.tile(RAMP.astype(np.uint8), (30, 1))).convert("P"), "png"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_odd_images_are_converted(tmp_path: Path, kind: str) -> None:
    image, ending = KINDS[kind]
    image.save(tmp_path / f"a.{ending}")
    pixels = decode(tmp_path / f"a.{ending}")
    assert (pixels.shape, pixels.dtype) == ((30, 40, 3), np.uint8)
    np.testing.assert_allclose(pixels[7, :, 1], RAMP, atol=12 if kind == "cmyk" else 1)
    assert read_header(tmp_path / f"a.{ending}").width == 40


def test_float_images_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((30, 40), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match="save the photo as 8- or 16-bit RGB"):
        read_header(tmp_path / "a.tiff")


def test_orientation_tag_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(captures.noise()).save(tmp_path / "a.jpg", exif=exif)
    assert decode(tmp_path / "a.jpg").shape == (30, 40, 3)
    assert (read_header(tmp_path / "a.jpg").width, read_header(tmp_path / "a.jpg").height) == (40, 30)


def test_areas_are_averaged(tmp_path: Path) -> None:
    captures.transforms(tmp_path)
    scene = load_scene(tmp_path, downscale=5)
    blocks = captures.noise(seed=2).reshape(6, 5, 8, 5, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(scene.views[2].load().numpy(), blocks, atol=0.51)
    assert scene.views[2].camera.cx == pytest.approx(19 / 5)
    assert load_scene(tmp_path, downscale=4).views[0].load().shape == (8, 10, 3)  # 7.5 rows are rounded up


def test_alpha_is_averaged_premultiplied(tmp_path: Path) -> None:
    captures.transforms(tmp_path)
    pixels = np.zeros((30, 40, 4), np.uint8)
    pixels[:, 0::2] = (200, 100, 50, 255)
    pixels[:, 1::2] = (0, 255, 0, 0)  # transparent green must not show
    for path in (tmp_path / "images").iterdir():
        Image.fromarray(pixels).save(path)
    scene = load_scene(tmp_path, downscale=2)
    assert scene.views[0].load()[3, 3].tolist() in ([200, 100, 50, 127], [200, 100, 50, 128])
    dark = load_scene(tmp_path, downscale=2, background=(0, 0, 0))
    torch.testing.assert_close(dark.photo(0)[3, 3], torch.tensor([100.0, 50, 25]) / 255, atol=0.005, rtol=0)
    torch.testing.assert_close(scene.photo(0)[3, 3], torch.tensor([227.5, 177.5, 152.5]) / 255, atol=0.005, rtol=0)


def test_load_at_another_size(tmp_path: Path) -> None:
    captures.transforms(tmp_path)
    view = load_scene(tmp_path, downscale=5).views[0]
    assert view.load_at is not None
    assert view.photo_size == (40, 30)
    assert np.array_equal(view.load_at(40, 30).numpy(), captures.noise(seed=0))


def test_cache_drops_the_least_recently_used() -> None:
    cache, made = TensorCache(250), list[str]()

    def get(name: str, size: int = 100) -> None:
        def make() -> torch.Tensor:
            made.append(name)
            return torch.zeros(size, dtype=torch.uint8)

        assert cache.get(name, make).nbytes == size

    for name in "abaca":
        get(name)
    assert made == ["a", "b", "c"]  # b was dropped for c
    get("b")
    assert made == ["a", "b", "c", "b"]
    get("huge", 300)
    assert cache.bytes == 200


def test_cache_from_many_threads(tmp_path: Path) -> None:
    captures.transforms(tmp_path)
    scene = load_scene(tmp_path, image_memory=4 * captures.WIDTH * captures.HEIGHT * 3)
    wrong = list[int]()

    def work(seed: int) -> None:
        for index in np.random.default_rng(seed).integers(0, 10, 60).tolist():
            if not np.array_equal(scene.views[index].load().numpy(), captures.noise(seed=index)):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_many_photos_need_no_more_memory_than_few(tmp_path: Path) -> None:
    """Two hundred views of a megapixel each (0.6 GB decoded) under a budget of 16 MB."""
    content = captures.transforms(tmp_path, 200, w=1000, h=1000, fl_x=1000.0, fl_y=1000.0, cx=500.0, cy=500.0)
    Image.new("RGB", (1000, 1000), (9, 8, 7)).save(tmp_path / "images" / "000.png", compress_level=1)
    for frame in content["frames"][1:]:
        path = tmp_path / frame["file_path"]
        path.unlink()
        path.hardlink_to(tmp_path / "images" / "000.png")
    script = (
        "import json, resource, sys; from anchorfield.scenes.load import load_scene;"
        "scene = load_scene(sys.argv[1], image_memory=16 << 20); scene.views[0].load(); scene.views[1].load();"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; sum(view.load().numel() for view in scene.views);"
        "cache = scene.views[0].load.__self__.cache;"
        "print(json.dumps([before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, cache.bytes]))"
    )
    ended = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    before, after, held = json.loads(ended.stdout)
    assert held <= 16 << 20
    assert after - before < 60 << 10  # KiB; one decoded photo and its copies are 9 MB
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 0
