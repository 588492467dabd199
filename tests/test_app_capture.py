"""A tiny capture that the application's tests train on, and the command line as they call it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anchorfield.app import load_scene
from anchorfield.app.cli import main

VIEWS, SIDE, POINTS = 10, 48, 150
SMALL = ("--cap", "200", "--sh-degree", "1")  # settings that train in no time


def make_capture(folder: Path) -> Path:
    """Ten views of a shaded ball with points on it, as a transforms.json."""
    (folder / "images").mkdir(parents=True)
    frames = []
    for index in range(VIEWS):
        name = f"images/{index:03d}.png"
        Image.fromarray(_picture(index)).save(folder / name)
        frames.append({"file_path": name, "transform_matrix": _pose(2 * math.pi * index / VIEWS).tolist()})
    _write_points(folder / "points.ply")
    lens = {"w": SIDE, "h": SIDE, "fl_x": 50.0, "fl_y": 50.0, "cx": SIDE / 2, "cy": SIDE / 2}
    content = {**lens, "ply_file_path": "points.ply", "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder


def command(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """`anchorfield ...` in a process of its own."""
    line = [sys.executable, "-m", "anchorfield.app.cli", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, **options)


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """`anchorfield ...` in this process: exit code, output, errors."""
    capsys.readouterr()
    code = main(list(map(str, arguments)))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def _pose(angle: float) -> np.ndarray:
    """Camera to world with OpenGL axes, on a circle around the origin."""
    back = np.array([math.cos(angle), math.sin(angle), 0.3])
    eye, back = 3 * back, back / np.linalg.norm(back)
    right = np.cross([0, 0, 1.0], back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(back, right), back, eye], axis=1)
    return pose


def _picture(index: int) -> np.ndarray:
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] / SIDE - 0.5
    inside = rows**2 + columns**2 < 0.09
    light = np.clip(1 - 6 * ((rows + 0.1) ** 2 + (columns - 0.1) ** 2), 0.1, 1)
    colour = np.array([0.9, 0.5 + 0.4 * math.cos(index * 0.6), 0.4])
    picture = np.where(inside[..., None], light[..., None] * colour, 0.2)
    return (255 * picture).astype(np.uint8)


def _write_points(path: Path) -> None:
    random = np.random.default_rng(0)
    points = random.normal(size=(POINTS, 3))
    points *= 0.9 / np.linalg.norm(points, axis=1, keepdims=True)
    header = f"ply\nformat ascii 1.0\nelement vertex {POINTS}\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz")
    header += "".join(f"property uchar {channel}\n" for channel in ("red", "green", "blue")) + "end_header\n"
    path.write_text(header + "".join(f"{x} {y} {z} 200 120 90\n" for x, y, z in points))


def test_the_made_capture_loads(tmp_path: Path) -> None:
    scene = load_scene(make_capture(tmp_path / "made"))
    assert len(scene.views) == VIEWS
    assert len(scene.test) == 2
    assert scene.points is not None
    assert len(scene.points.xyz) == POINTS
