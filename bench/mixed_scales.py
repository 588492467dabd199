"""A capture whose every photograph is there at four sizes, as methods for mixed distances are compared on.

    python -m bench.mixed_scales ../shared/data/lego /tmp/mixed --downscale 2
    anchorfield train /tmp/mixed --method pynerf --minutes 10

After Barron et al. 2021 (Mip-NeRF, multiscale Blender scenes): each size is the area average of the first. All sizes
have as many views, so that the mean over the held-out views is the mean over the sizes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anchorfield.renderer.cameras import Camera
from anchorfield.scenes.load import load_scene
from anchorfield.scenes.scene import Scene

FACTORS = (1, 2, 4, 8)  # by which images are reduced
FLIP = np.diag([1.0, -1.0, -1.0, 1.0])  # from our cameras' axes to those of the file


def main() -> None:
    """Write the capture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--downscale", type=int, default=1)
    given = parser.parse_args()
    scene = load_scene(given.source, downscale=given.downscale)
    (given.out / "images").mkdir(parents=True)
    write(scene, given.out)


def write(scene: Scene, out: Path) -> None:
    """The scene's views at all sizes, in the capture's own frame."""
    frames, held_out = [], []
    for index in sorted([*scene.train, *scene.test]):
        pixels = scene.views[index].load().numpy()
        for factor in FACTORS:
            entry = written(scene, index, reduced(pixels, factor), out / "images" / f"{index:04d}_{factor}.png")
            frames.append(entry)
            if index in scene.test:
                held_out.append(entry["file_path"])
    (out / "transforms.json").write_text(json.dumps({"frames": frames, "test_filenames": held_out}))


def written(scene: Scene, index: int, pixels: NDArray[np.uint8], path: Path) -> dict[str, Any]:
    """Write one picture of a view; returns its entry."""
    height, width, channels = pixels.shape
    order = cv2.COLOR_RGBA2BGRA if channels == 4 else cv2.COLOR_RGB2BGR
    cv2.imwrite(str(path), cv2.cvtColor(pixels, order))
    camera = scene.views[index].camera.resized(width, height)
    return {
        "file_path": f"images/{path.name}",
        "w": width,
        "h": height,
        "fl_x": camera.fx,
        "fl_y": camera.fy,
        "cx": camera.cx,
        "cy": camera.cy,
        "transform_matrix": pose(camera, scene.source_from_world).tolist(),
    }


def pose(camera: Camera, source_from_world: NDArray[np.float64]) -> NDArray[np.float64]:
    """The camera's pose in the capture's frame, with the axes of the file."""
    matrix = source_from_world @ camera.camera_to_world.double().numpy()
    matrix[:3, :3] /= np.cbrt(np.linalg.det(matrix[:3, :3]))
    return np.asarray(matrix @ FLIP)


def reduced(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """The means of `factor` x `factor` pixels; colours count by their alpha."""
    height, width = (side // factor for side in pixels.shape[:2])
    cut = pixels[: height * factor, : width * factor].astype(np.float64)
    alpha = cut[..., 3:] if cut.shape[-1] == 4 else np.full_like(cut[..., :1], 255)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(values.reshape(height, factor, width, factor, -1).mean((1, 3)))

    weight = mean(alpha)
    colour = mean(cut[..., :3] * alpha) / np.maximum(weight, 1e-9)
    found = np.concatenate([colour, weight], 2) if cut.shape[-1] == 4 else colour
    return found.round().astype(np.uint8)


if __name__ == "__main__":
    main()
