"""COLMAP models, binary and text, with every lens model; damaged ones end in words and never in a crash."""

from __future__ import annotations

import struct
from pathlib import Path

import captures
import numpy as np
import pycolmap
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anchorfield.renderer.errors import DataError
from anchorfield.scenes import colmap
from anchorfield.scenes.load import load_scene
from anchorfield.scenes.undistort import pinhole_of, undistortion_grid

DISTORTED = {
    "SIMPLE_RADIAL": [50, 20, 15, 0.1],
    "RADIAL": [50, 20, 15, -0.1, 0.02],
    "OPENCV": [50, 51, 21, 15, -0.1, 0.01, 0.001, -0.002],
    "FULL_OPENCV": [50, 51, 21, 15, 0.1, 0.01, 0.001, -0.002, 0.01, 0.02, 0.01, 0.001],
    "SIMPLE_RADIAL_FISHEYE": [50, 20, 15, 0.05],
    "RADIAL_FISHEYE": [50, 20, 15, 0.05, 0.01],
    "OPENCV_FISHEYE": [50, 51, 20, 15, 0.01, 0.01, 0.001, 0.001],
    "THIN_PRISM_FISHEYE": [50, 51, 20, 15, 0.01, 0.01, 0.001, 0.001, 0, 0, 0.001, 0.001],
    "RAD_TAN_THIN_PRISM_FISHEYE": [50, 51, 20, 15, 0.01, 0.01, 0, 0, 0, 0, 0.001, 0.001, 0, 0, 0.001, 0.001],
    "FOV": [50, 51, 20, 15, 0.5],
    "SIMPLE_DIVISION": [50, 20, 15, -0.05],
    "DIVISION": [50, 51, 20, 15, -0.05],
    "SIMPLE_FISHEYE": [50, 20, 15],
    "FISHEYE": [50, 51, 20, 15],
    "EUCM": [50, 51, 20, 15, 0.5, 1.1],
}


def test_fig_bust_points_reproject() -> None:
    folder = captures.data("fig_bust")
    scene = load_scene(folder)
    assert (len(scene.views), len(scene.train), len(scene.test)) == (23, 20, 3)
    known = pycolmap.Reconstruction(folder / "sparse")
    to_world = np.linalg.inv(scene.source_from_world)
    errors = []
    for view in scene.views:
        image = known.find_image_with_name(view.name)
        seen = [point for point in image.points2D if point.has_point3D()]
        source = np.array([known.points3D[point.point3D_id].xyz for point in seen])
        world = source @ to_world[:3, :3].T + to_world[:3, 3]
        pose = view.camera.world_to_camera.double().numpy()
        pixels = (world @ pose[:3, :3].T + pose[:3, 3]) @ view.camera.K.double().numpy().T
        errors.append(np.linalg.norm(pixels[:, :2] / pixels[:, 2:] - [point.xy for point in seen], axis=1))
    assert np.concatenate(errors).mean() < 0.35
    assert scene.points is not None
    source = scene.points.xyz @ scene.source_from_world[:3, :3].T + scene.source_from_world[:3, 3]
    np.testing.assert_allclose(
        np.sort(source, axis=0), np.sort([point.xyz for point in known.points3D.values()], axis=0), atol=1e-5
    )


@pytest.mark.parametrize("text", [False, True])
def test_same_as_pycolmap(tmp_path: Path, text: bool) -> None:
    made = captures.colmap(tmp_path, text=text)
    scene = load_scene(tmp_path)
    assert scene.test == (0, 8)
    scale, centre = scene.source_from_world[0, 0], scene.source_from_world[:3, 3]
    for view in scene.views:
        pose = made.find_image_with_name(view.name).cam_from_world()
        ours = view.camera.world_to_camera.double().numpy()
        np.testing.assert_allclose(ours[:3, :3], pose.rotation.matrix(), atol=1e-6)
        np.testing.assert_allclose(view.camera.centre.numpy() * scale + centre, pose.inverse().translation, atol=1e-5)
    assert scene.points is not None
    assert len(scene.points.xyz) == 20
    assert scene.points.rgb[0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("model", DISTORTED)
def test_every_lens_is_undistorted(tmp_path: Path, model: str) -> None:
    captures.colmap(tmp_path, 3, model, [float(value) for value in DISTORTED[model]])
    scene = load_scene(tmp_path, split="all")
    camera = scene.views[0].camera
    assert (camera.width, camera.height) == (captures.WIDTH, captures.HEIGHT)
    assert scene.views[0].load().shape == (captures.HEIGHT, captures.WIDTH, 3)
    lens = colmap.read_cameras(tmp_path / "sparse" / "0")[1]
    pinhole = pinhole_of(lens, "lens")
    # Each pixel of the undistorted image shows what the lens sees along that pixel's ray, and that lies in the photo.
    grid = undistortion_grid(lens, pinhole).double().numpy() + 0.5
    assert (grid >= 0).all()
    assert (grid <= [captures.WIDTH, captures.HEIGHT]).all()
    rows, columns = np.mgrid[: captures.HEIGHT, : captures.WIDTH] + 0.5
    rays = np.stack([(columns - pinhole.cx) / pinhole.fx, (rows - pinhole.cy) / pinhole.fy], axis=-1)
    np.testing.assert_allclose(lens.cam_from_img(grid.reshape(-1, 2)), rays.reshape(-1, 2), atol=1e-4)
    assert (pinhole.cx, pinhole.cy) == (lens.principal_point_x, lens.principal_point_y)


def test_panoramas_become_cubes(tmp_path: Path) -> None:
    """Each face shows the direction in which its camera looks."""
    captures.colmap(tmp_path, 3, "EQUIRECTANGULAR")
    lens = pycolmap.Camera(model="EQUIRECTANGULAR", width=400, height=200, params=[400, 200])
    rows, columns = np.mgrid[:200, :400] + 0.5
    rays = lens.cam_ray_from_img(np.stack([columns, rows], axis=-1).reshape(-1, 2)).reshape(200, 400, 3)
    for path in (tmp_path / "images").iterdir():
        Image.fromarray(np.rint(127.5 + 127.5 * rays).astype(np.uint8)).save(path)
    cameras = tmp_path / "sparse" / "0" / "cameras.bin"
    cameras.write_bytes(cameras.read_bytes()[:16] + struct.pack("<QQdd", 400, 200, 400, 200))
    scene = load_scene(tmp_path, split="all")
    assert len(scene.views) == 18
    assert scene.views[0].name == "000.png#front"
    front = scene.views[0].camera.world_to_camera[:3, :3]
    for view in scene.views[:6]:
        assert (view.camera.width, view.camera.height) == (100, 100)
        middle = view.load()[49:51, 49:51].float().mean(dim=(0, 1)) / 127.5 - 1
        forward = front @ view.camera.world_to_camera[:3, :3].T @ torch.tensor([0.0, 0, 1])
        torch.testing.assert_close(middle, forward, atol=0.02, rtol=0)


def test_undistorted_lines_are_straight(tmp_path: Path) -> None:
    lens = pycolmap.Camera(model="OPENCV", width=200, height=150, params=[180, 180, 100, 75, -0.25, 0.05, 0, 0])
    pinhole = pinhole_of(lens, "lens")
    rows, columns = np.mgrid[:150, :200] + 0.5
    x = lens.cam_from_img(np.stack([columns, rows], axis=-1).reshape(-1, 2))[:, 0].reshape(150, 200)
    stripes = np.rint(127.5 + 127.5 * np.tanh(200 * (x - 0.2))).astype(
        np.uint8
    )  # an edge at x = 0.2 of the undistorted plane
    captures.transforms(tmp_path, w=200, h=150, fl_x=180, fl_y=180, cx=100, cy=75, k1=-0.25, k2=0.05)
    for path in (tmp_path / "images").iterdir():
        Image.fromarray(stripes).save(path)
    seen = load_scene(tmp_path).photo(0)[..., 0].numpy()
    at = (255 - 255 * seen).sum(axis=1) / 255  # columns before the edge
    np.testing.assert_allclose(at, 0.2 * pinhole.fx + pinhole.cx, atol=0.2)


def test_ready_images_are_used_if_their_size_fits(tmp_path: Path) -> None:
    captures.colmap(tmp_path)
    (tmp_path / "images_2").mkdir()
    for index in range(10):
        Image.new("RGB", (20, 15), (index, 0, 0)).save(tmp_path / "images_2" / f"{index:03d}.png")
    scene = load_scene(tmp_path, downscale=2)
    assert scene.views[3].load()[0, 0].tolist() == [3, 0, 0]
    assert scene.views[3].camera.fx == pytest.approx(25)
    assert any("images_2" in warning for warning in scene.warnings)
    Image.new("RGB", (21, 19)).save(tmp_path / "images_2" / "004.png")
    scene = load_scene(tmp_path, downscale=2)
    assert scene.views[3].load().shape == (15, 20, 3)
    assert scene.views[3].load().float().std() > 10  # averaged from the photo
    assert any("not used, 004.png" in warning for warning in scene.warnings)


def test_smaller_photos_than_the_model_says(tmp_path: Path) -> None:
    captures.colmap(tmp_path)
    for path in (tmp_path / "images").iterdir():
        Image.open(path).resize((20, 15)).save(path)
    scene = load_scene(tmp_path)
    assert (scene.views[0].camera.width, scene.views[0].camera.fx) == (20, pytest.approx(25))
    assert any("10 images have 20 x 15 pixels" in warning for warning in scene.warnings)


def test_masks_beside_the_photos(tmp_path: Path) -> None:
    captures.colmap(tmp_path)
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.eye(30, 40, dtype=np.uint8) * 255).save(tmp_path / "masks" / "003.png.png")
    views = load_scene(tmp_path).views
    assert views[2].load_mask is None
    assert views[3].load_mask is not None
    assert torch.equal(views[3].load_mask(), torch.eye(30, 40, dtype=torch.bool))


def test_georeferenced_poses_keep_their_precision(tmp_path: Path) -> None:
    captures.colmap(tmp_path, text=True)
    offset = (4.1e6, 5.2e6, 300.0)
    images = tmp_path / "sparse" / "0" / "images.txt"
    lines = [line for line in images.read_text().splitlines() if not line.startswith("#")]
    for index, pose in enumerate(captures.ring(10)):
        words = lines[2 * index].split()
        words[5:8] = [repr(float(value)) for value in pose[:3, 3] - pose[:3, :3] @ offset]
        lines[2 * index] = " ".join(words)
    images.write_text("\n".join(lines))
    scene = load_scene(tmp_path)
    near = captures.ring(10)
    centres = np.array([-pose[:3, :3].T @ pose[:3, 3] for pose in near])
    ours = torch.stack([view.camera.centre for view in scene.views]).numpy() * scene.source_from_world[0, 0]
    np.testing.assert_allclose(ours, centres - centres.mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("bad", ["some", "all"])
def test_points_with_nan(tmp_path: Path, bad: str) -> None:
    captures.colmap(tmp_path, text=True)
    points = tmp_path / "sparse" / "0" / "points3D.txt"
    lines = [line.split() for line in points.read_text().splitlines() if not line.startswith("#")]
    for words in lines[: 1 if bad == "some" else None]:
        words[1] = "nan"
    points.write_text("\n".join(" ".join(words) for words in lines))
    scene = load_scene(tmp_path)
    assert (scene.points is None) == (bad == "all")
    assert any("points are not finite" in warning for warning in scene.warnings)


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
def test_counts_beyond_the_file(tmp_path: Path, name: str) -> None:
    captures.colmap(tmp_path)
    path = tmp_path / "sparse" / "0" / f"{name}.bin"
    path.write_bytes(struct.pack("<Q", 1 << 60) + path.read_bytes()[8:])
    with pytest.raises(DataError, match=rf"{name}.bin: says 1152921504606846976 .* truncated"):
        load_scene(tmp_path)


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
@pytest.mark.parametrize("size", [0, 5, 20, -1])
def test_truncated_files(tmp_path: Path, name: str, size: int) -> None:
    captures.colmap(tmp_path)
    path = tmp_path / "sparse" / "0" / f"{name}.bin"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=rf"{name}.bin: "):
        load_scene(tmp_path)


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
@pytest.mark.parametrize("line", ["1 2 x", "\N{SNOWMAN}", "1 PINHOLE 40 30 nan 50 20 15", "1 PINHOLE 40 30 50"])
def test_bad_lines(tmp_path: Path, name: str, line: str) -> None:
    captures.colmap(tmp_path, text=True)
    (tmp_path / "sparse" / "0" / f"{name}.txt").write_text(line)
    with pytest.raises(DataError, match=rf"{name}.txt: line 1|camera 1"):
        load_scene(tmp_path)


def test_names_the_missing_photos(tmp_path: Path) -> None:
    captures.colmap(tmp_path)
    (tmp_path / "images").rename(tmp_path / "images_8")
    with pytest.raises(DataError, match="there are images_8: rename one to images"):
        load_scene(tmp_path)


def test_of_several_models_the_largest(tmp_path: Path) -> None:
    captures.colmap(tmp_path, 9)
    captures.colmap(tmp_path / "other", 4)
    (tmp_path / "sparse" / "0").rename(tmp_path / "sparse" / "1")
    (tmp_path / "other" / "sparse" / "0").rename(tmp_path / "sparse" / "0")
    scene = load_scene(tmp_path)
    assert len(scene.views) == 9
    assert any("left out: 0" in warning for warning in scene.warnings)


def test_the_model_folder_itself(tmp_path: Path) -> None:
    captures.colmap(tmp_path)
    assert len(load_scene(tmp_path / "sparse" / "0").views) == 10


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A capture whose files the fuzz test damages in turn."""
    folder = tmp_path_factory.mktemp("model")
    captures.colmap(folder, 4)
    return folder


@given(st.data())
def test_damaged_binaries_never_crash(model: Path, data: st.DataObject) -> None:
    folder = model / "sparse" / "0"
    path = folder / data.draw(st.sampled_from(["cameras.bin", "images.bin", "points3D.bin"]))
    whole = path.read_bytes()
    damaged = bytearray(whole[: data.draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))])
    for _ in range(data.draw(st.integers(0, 4)) if damaged else 0):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        path.write_bytes(damaged)
        scene = load_scene(model)
    except DataError as caught:
        scene, error = None, caught
    finally:
        path.write_bytes(whole)
    if scene is None:
        assert str(model) in str(error)
    else:
        assert len(scene.views) >= 2
        assert all(torch.isfinite(view.camera.world_to_camera).all() for view in scene.views)
