"""transforms.json in its three dialects, whole and damaged."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import captures
import numpy as np
import pytest
import torch
from PIL import Image

from anchorfield.renderer.errors import DataError
from anchorfield.scenes.load import load_scene
from anchorfield.scenes.scene import Scene


def project(scene: Scene, index: int, source: np.ndarray) -> np.ndarray:
    """Pixels [N, 2] at which view `index` sees points [N, 3] of the source frame."""
    world = (source - scene.source_from_world[:3, 3]) @ np.linalg.inv(scene.source_from_world[:3, :3]).T
    camera = scene.views[index].camera
    pose = camera.world_to_camera.double().numpy()
    seen = (world @ pose[:3, :3].T + pose[:3, 3]) @ camera.K.double().numpy().T
    return seen[:, :2] / seen[:, 2:]


def test_fox() -> None:
    scene = load_scene(captures.data("fox"), downscale=4)
    assert (len(scene.views), len(scene.train), len(scene.test)) == (50, 43, 7)
    assert scene.test == tuple(range(0, 50, 8))
    assert [view.name for view in scene.views] == sorted(view.name for view in scene.views)
    assert any("17 of 67 images do not exist" in warning for warning in scene.warnings)
    assert scene.photo(0).shape == (480, 270, 3)
    assert load_scene(captures.data("fox"), downscale=2).photo(3).shape == (960, 540, 3)
    assert scene.views[0].photo_size == (1080, 1920)
    distances = torch.stack([view.camera.centre for view in scene.views]).norm(dim=1)
    assert float(distances.max()) == pytest.approx(1, abs=1e-5)


def test_lego_has_alpha_and_its_own_split() -> None:
    scene = load_scene(captures.data("lego"), downscale=2)
    assert (len(scene.train), len(scene.test)) == (100, 50)
    assert all(scene.views[index].name.startswith("test/") for index in scene.test)
    pixels = scene.views[scene.train[0]].load()
    assert pixels.shape == (400, 400, 4)
    assert pixels.dtype == torch.uint8
    assert scene.background == (1.0, 1.0, 1.0)
    assert scene.photo(0)[0, 0].tolist() == [1.0, 1.0, 1.0]
    assert scene.views[0].camera.fx == pytest.approx(200 / math.tan(0.6911112070083618 / 2))


def test_bundled_sample_has_depth_and_masks() -> None:
    folder = Path(__file__).parent.parent / "assets" / "sample"
    if not (folder / "transforms.json").is_file():
        pytest.skip("the sample capture is not built")
    scene = load_scene(folder)
    view = scene.views[scene.test[0]]
    assert view.load_depth is not None
    depth = view.load_depth()
    assert depth.shape == (view.camera.height, view.camera.width)
    assert 0 < float(depth[depth > 0].median()) < 4  # cameras lie in the unit ball and look inwards


def test_points_land_where_they_were(tmp_path: Path) -> None:
    captures.transforms(tmp_path)
    scene = load_scene(tmp_path)
    source = np.random.default_rng(0).normal(size=(5, 3)) * 0.3
    for index, pose in enumerate(captures.ring(10)):
        seen = source @ pose[:3, :3].T + pose[:3, 3]
        expected = seen[:, :2] / seen[:, 2:] * [50, 51] + [19, 16]
        np.testing.assert_allclose(project(scene, index, source), expected, atol=1e-4)


def test_photos_load_as_stored(tmp_path: Path) -> None:
    captures.transforms(tmp_path)
    scene = load_scene(tmp_path)
    assert np.array_equal(scene.views[3].load().numpy(), captures.noise(seed=3))


def test_instant_ngp_paths_without_ending(tmp_path: Path) -> None:
    content = captures.transforms(tmp_path, aabb_scale=4)
    for frame in content["frames"]:
        frame["file_path"] = "./" + frame["file_path"].removesuffix(".png")
        frame["sharpness"] = 30.0
    captures.save(tmp_path, content)
    assert load_scene(tmp_path).views[1].name == "images/001.png"


def test_nerfstudio_split_frame_intrinsics_points_and_frame(tmp_path: Path) -> None:
    content = captures.transforms(
        tmp_path,
        camera_model="OPENCV",
        ply_file_path="points.ply",
        applied_transform=[[0, 1, 0, 1], [-1, 0, 0, 2], [0, 0, 1, 3]],
        test_filenames=["images/002.png"],
    )
    content["frames"][4]["fl_x"] = 60.0
    captures.save(tmp_path, content)
    rows = "ply\nformat ascii 1.0\nelement vertex 2\n" + "".join(f"property float {axis}\n" for axis in "xyz")
    colours = "".join(f"property uchar {channel}\n" for channel in ("red", "green", "blue"))
    (tmp_path / "points.ply").write_text(rows + colours + "end_header\n1 2 3 10 20 30\nnan 0 0 1 1 1\n")
    scene = load_scene(tmp_path)
    assert scene.test == (2,)
    assert [scene.views[index].camera.fx for index in (3, 4)] == [50.0, 60.0]
    assert scene.points is not None
    assert scene.points.rgb.tolist() == [[10, 20, 30]]
    # The point (1, 2, 3) of the file was (0, 0, 0) before `applied_transform`.
    original = scene.source_from_world[:3, :3] @ scene.points.xyz[0] + scene.source_from_world[:3, 3]
    np.testing.assert_allclose(original, [0, 0, 0], atol=1e-6)
    assert any("1 of 2 points are not finite" in warning for warning in scene.warnings)


def test_masks_and_depth(tmp_path: Path) -> None:
    content = captures.transforms(tmp_path, depth_unit_scale_factor=0.01)
    mask, depth = np.zeros((30, 40), np.uint8), np.full((30, 40), 250, np.uint16)
    mask[:, :21] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(depth).save(tmp_path / "depth.png")
    for frame in content["frames"]:
        frame.update(mask_path="mask.png", depth_file_path="depth.png")
    captures.save(tmp_path, content)
    scene = load_scene(tmp_path, downscale=2)
    view = scene.views[0]
    assert view.load_mask is not None
    assert view.load_depth is not None
    assert view.load_mask().sum(dim=1).tolist() == [10] * 15  # the half-covered column does not count
    scale = np.cbrt(np.linalg.det(scene.source_from_world[:3, :3]))
    torch.testing.assert_close(view.load_depth(), torch.full((15, 20), 2.5 / scale))


def test_small_shear_is_removed(tmp_path: Path) -> None:
    content = captures.transforms(tmp_path)
    content["frames"][0]["transform_matrix"][0][0] += 1e-3
    captures.save(tmp_path, content)
    rotation = load_scene(tmp_path).views[0].camera.world_to_camera[:3, :3].double()
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-6, rtol=0)


def frame_entry(key: str, value: Any) -> Any:
    """A change of frame 3: entry `key` becomes `value`, or goes where that is None."""

    def change(content: dict[str, Any]) -> None:
        frame = content["frames"][3]
        frame.update({key: value}) if value is not None else frame.pop(key)

    return change


def entry(key: str, value: Any) -> Any:
    """A change of the file: entry `key` becomes `value`, or goes where that is None."""

    def change(content: dict[str, Any]) -> None:
        content.update({key: value}) if value is not None else content.pop(key)

    return change


DAMAGE: dict[str, tuple[Any, str]] = {
    "no frames": (entry("frames", None), "expected a list 'frames'"),
    "frames of numbers": (entry("frames", [1, 2]), "expected a list 'frames'"),
    "zero views": (entry("frames", []), "'frames' is empty"),
    "no path": (frame_entry("file_path", None), "file_path"),
    "path is a number": (frame_entry("file_path", 3), "file_path"),
    "no pose": (frame_entry("transform_matrix", None), "'transform_matrix' is missing"),
    "short pose": (frame_entry("transform_matrix", [[1, 2], [3, 4]]), "expected a 4x4"),
    "ragged pose": (frame_entry("transform_matrix", [[1, 2], [3]]), "4x4 numbers"),
    "text pose": (frame_entry("transform_matrix", "x"), "4x4 numbers"),
    "pose with NaN": (frame_entry("transform_matrix", [[math.nan] * 4] * 4), "not finite"),
    "singular pose": (frame_entry("transform_matrix", [[0.0] * 4] * 4), "expected a rotation"),
    "scaled pose": (frame_entry("transform_matrix", np.diag([2.0, 2, 2, 1]).tolist()), "expected a rotation"),
    "mirrored pose": (frame_entry("transform_matrix", np.diag([1.0, 1, -1, 1]).tolist()), "mirror"),
    "no focal length": (entry("fl_x", None), ""),
    "infinite focal length": (entry("fl_x", math.inf), "'fl_x' must be a finite number"),
    "text focal length": (entry("fl_x", "wide"), "'fl_x' must be a finite number"),
    "negative focal length": (entry("fl_x", -50.0), "must be positive"),
    "distortion is NaN": (entry("k1", math.nan), "'k1' must be a finite number"),
    "unknown lens": (entry("camera_model", "LENSBABY"), "known are SIMPLE_PINHOLE"),
    "absurd distortion": (entry("k1", 1e9), "no undistorted image fits"),
    "huge size": (entry("w", 1e12), "1 to 65536 pixels"),
    "other size": (entry("w", 80), "expected 80 x 30 pixels"),
    "turned": (lambda content: content.update(w=30, h=40), "turned by 90 degrees"),
    "mask not there": (frame_entry("mask_path", "nothing.png"), "does not exist"),
    "split is a number": (entry("test_filenames", 3), "must be a list"),
    "listed twice": (frame_entry("file_path", "images/001.png"), "listed more than once"),
}


@pytest.mark.parametrize("case", [case for case in DAMAGE if case != "no focal length"])
def test_bad_files_are_explained(tmp_path: Path, case: str) -> None:
    content = captures.transforms(tmp_path)
    change, words = DAMAGE[case]
    change(content)
    captures.save(tmp_path, content)
    with pytest.raises(DataError, match=words) as caught:
        load_scene(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_no_focal_length_at_all(tmp_path: Path) -> None:
    captures.transforms(tmp_path, fl_x=None, fl_y=None)
    with pytest.raises(DataError, match="no focal length"):
        load_scene(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00\xff", "[" * 100_000])
def test_no_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "transforms.json").write_text(text)
    with pytest.raises(DataError, match="JSON"):
        load_scene(tmp_path)


def test_missing_images(tmp_path: Path) -> None:
    captures.transforms(tmp_path)
    (tmp_path / "images" / "004.png").unlink()
    scene = load_scene(tmp_path)
    assert len(scene.views) == 9
    assert any("images/004.png" in warning for warning in scene.warnings)
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="10 of 10 images do not exist"):
        load_scene(tmp_path)
