"""Renders into picture and video files, by the file's ending."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anchorfield.app import files
from anchorfield.app.run import Run
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import UsageError

Pixels = NDArray[np.uint8]
STILLS, VIDEOS = (".png", ".jpg", ".jpeg", ".webp"), (".mp4",)


def pixels(image: Tensor) -> Pixels:
    """[H, W, 3] in [0, 1] as bytes."""
    array: Pixels = (image.detach().clamp(0, 1) * 255).round().byte().cpu().numpy()
    return array


def jpeg(image: Pixels, quality: int = 85) -> bytes:
    """A JPEG file's content."""
    return encoded(image, ".jpg", quality=quality)


def encoded(image: Pixels, ending: str, **options: int) -> bytes:
    """A picture file's content."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(image).save(buffer, {".jpg": "JPEG", ".jpeg": "JPEG"}.get(ending, ending[1:].upper()), **options)
    return buffer.getvalue()


def check_ending(path: Path, frames: int) -> None:
    """Raise UsageError where `path` cannot hold so many pictures."""
    ending = path.suffix.lower()
    if ending not in ("", *STILLS, *VIDEOS):
        known = ", ".join((*STILLS, *VIDEOS))
        raise UsageError(f"{path}: unknown ending '{ending}'. Known: {known}, or a folder for many pictures")
    if ending in STILLS and frames > 1:
        raise UsageError(f"{path} holds one picture and there are {frames}: give a folder, or a file that ends in .mp4")


def write(run: Run, cameras: list[tuple[str, Camera]], out: Path, fps: float = 30.0) -> list[Path]:
    """Render the named cameras into a picture, a folder of pictures or a video; returns the files."""
    check_ending(out, len(cameras))
    if out.suffix.lower() in VIDEOS:
        _write_video(run, (camera for _, camera in cameras), files.output_file(out), fps)
        return [out]
    if out.suffix:
        _write_still(run, cameras[0][1], files.output_file(out))
        return [out]
    files.output_folder(out)
    paths = [out / f"{_file_name(name)}.png" for name, _ in cameras]
    for path, (_, camera) in zip(paths, cameras, strict=True):
        _write_still(run, camera, path)
    return paths


def _file_name(view: str) -> str:
    """A view's name as the name of one file: views may lie in sub-folders."""
    return str(Path(view).with_suffix("")).replace("/", "_").replace("\\", "_").strip("._") or "view"


def _write_still(run: Run, camera: Camera, path: Path) -> None:
    files.write_atomically(path, encoded(pixels(run.render(camera).rgb), path.suffix.lower()))


def _write_video(run: Run, cameras: Iterable[Camera], path: Path, fps: float) -> None:
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        with imageio.get_writer(temporary, fps=fps, codec="libx264", quality=8, macro_block_size=2) as writer:
            for camera in cameras:
                writer.append_data(pixels(run.render(_even(camera)).rgb))  # type: ignore[attr-defined]
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _even(camera: Camera) -> Camera:
    """Videos store colour at half the resolution: sizes are even."""
    return camera.resized(max(2, camera.width // 2 * 2), max(2, camera.height // 2 * 2))
