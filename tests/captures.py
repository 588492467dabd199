"""Captures made for tests: cameras on a ring around the origin, photographs of noise or of a textured plane."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycolmap
import pytest
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float64]
WIDTH, HEIGHT = 40, 30


def data(name: str) -> Path:
    """A real capture of the shared data; the test is skipped where it is absent."""
    root = Path(os.environ.get("ANCHORFIELD_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))
    if not (root / name).exists():
        pytest.skip(f"no real data at {root / name} (set ANCHORFIELD_DATA)")
    return root / name


def ring(count: int, radius: float = 3.0, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> list[Array]:
    """World-to-camera poses [4, 4] (OpenCV axes) of cameras above a ring, looking at `centre`."""
    poses = []
    for turn in np.linspace(0, 2 * np.pi, count, endpoint=False):
        offset = radius * np.array([np.cos(turn), np.sin(turn), 0.7 + 0.1 * np.cos(3 * turn)])
        poses.append(looking(offset + centre, np.array(centre)))
    return poses


def looking(eye: Array, target: Array) -> Array:
    """World-to-camera of a camera at `eye` that looks at `target`, world z upwards."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward])
    pose[:3, 3] = -pose[:3, :3] @ eye
    return pose


def opengl(world_to_camera: Array) -> list[list[float]]:
    """The camera-to-world matrix with OpenGL axes, as transforms.json has it."""
    matrix = np.linalg.inv(world_to_camera) @ np.diag([1, -1, -1, 1])
    return [[float(value) for value in row] for row in matrix]


def noise(width: int = WIDTH, height: int = HEIGHT, seed: int = 0, channels: int = 3) -> NDArray[np.uint8]:
    """Random pixels."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels)).astype(np.uint8)


def transforms(folder: Path, count: int = 10, **entries: Any) -> dict[str, Any]:
    """A transforms.json with PNG photographs in images/; `entries` go over its own, None removes one."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    frames = []
    for index, pose in enumerate(ring(count)):
        Image.fromarray(noise(seed=index)).save(folder / "images" / f"{index:03d}.png")
        frames.append({"file_path": f"images/{index:03d}.png", "transform_matrix": opengl(pose)})
    content: dict[str, Any] = {"fl_x": 50.0, "fl_y": 51.0, "cx": 19.0, "cy": 16.0, "w": WIDTH, "h": HEIGHT}
    content = {key: value for key, value in {**content, "frames": frames, **entries}.items() if value is not None}
    save(folder, content)
    return content


def save(folder: Path, content: Any, name: str = "transforms.json") -> None:
    """Write the JSON; NaN and infinities as Python does."""
    (folder / name).write_text(json.dumps(content))


def colmap(
    folder: Path, count: int = 10, model: str = "PINHOLE", params: list[float] | None = None, text: bool = False
) -> pycolmap.Reconstruction:
    """A COLMAP capture written by pycolmap: sparse/0, and PNG photographs in images/."""
    made = pycolmap.Reconstruction()
    lens = pycolmap.Camera.create_from_model_name(1, model, 50.0, WIDTH, HEIGHT)
    lens.params = lens.params.tolist() if params is None else params
    made.add_camera_with_trivial_rig(lens)
    (folder / "images").mkdir(parents=True)
    for index, pose in enumerate(ring(count)):
        name = f"{index:03d}.png"
        Image.fromarray(noise(seed=index)).save(folder / "images" / name)
        image = pycolmap.Image(name=name, camera_id=1, image_id=index + 1, keypoints=np.ones((index % 3, 2)))
        made.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose[:3]))
    for xyz in np.random.default_rng(1).normal(size=(20, 3)):
        made.add_point3D(xyz, pycolmap.Track(), np.array([1, 2, 3], np.uint8))
    (folder / "sparse" / "0").mkdir(parents=True)
    (made.write_text if text else made.write_binary)(folder / "sparse" / "0")
    return made


def textured_plane(folder: Path, count: int = 6, offset: float = 0.0) -> None:
    """A transforms.json of `count` photographs, 320 x 240, of a blurred-noise texture on the plane z = 0."""
    (folder / "images").mkdir(parents=True)
    coarse = cv2.GaussianBlur(noise(400, 400, 5).astype(np.float32), (0, 0), 1.5)
    texture = cv2.normalize(coarse, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    k = np.array([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]])
    texel = 2 / 400
    plane = np.array([[texel, 0, texel / 2 - 1], [0, texel, texel / 2 - 1], [0, 0, 1]])  # from the texel's index
    frames = []
    for index in range(count):
        eye = np.array([0.25 * index - 0.6 + offset, 0.1 * (index % 2) - 1.2, 2.2])
        pose = looking(eye, np.array([0.0, 0, 0]))
        # Texel index to plane to pixel coordinates to pixel index, whose pixel centres are whole numbers.
        shift = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])
        homography = shift @ k @ pose[:3][:, [0, 1, 3]] @ plane
        picture = cv2.warpPerspective(texture, homography, (320, 240))
        cv2.imwrite(str(folder / "images" / f"{index:03d}.png"), picture)
        frames.append({"file_path": f"images/{index:03d}.png", "transform_matrix": opengl(pose)})
    save(folder, {"fl_x": 300.0, "cx": 160.0, "cy": 120.0, "w": 320, "h": 240, "frames": frames})
