"""Renders into picture and video files, by the file's ending."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from io import BytesIO
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anchorfield.app import files
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import UsageError
from anchorfield.renderer.types import Frame

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


Draw = Callable[[Camera], Frame]


def write(draw: Draw, cameras: Sequence[tuple[str, Camera]], out: Path, fps: float = 30.0) -> list[Path]:
    """Render the named cameras into a picture, a folder of pictures or a video; returns the files."""
    steps = rendering(draw, cameras, out, fps)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return list(end.value)


def rendering(
    draw: Draw,  # e.g. `Run.render`
    cameras: Sequence[tuple[str, Camera]],
    out: Path,
    fps: float = 30.0,
) -> Generator[tuple[float, str], None, list[Path]]:
    """`write` as a job: yields (share done, sentence) after each frame, so that it can be cancelled in between.

    A video that is not finished leaves nothing behind.
    """
    check_ending(out, len(cameras))
    if out.suffix.lower() in VIDEOS:
        yield from _video(draw, [camera for _, camera in cameras], files.output_file(out), fps)
        return [out]
    if out.suffix:
        paths = [files.output_file(out)]
    else:
        paths = [files.output_folder(out) / f"{_file_name(name)}.png" for name, _ in cameras]
    for done, (path, (_, camera)) in enumerate(zip(paths, cameras, strict=False), 1):
        files.write_atomically(path, encoded(pixels(draw(camera).rgb), path.suffix.lower()))
        yield done / len(cameras), f"frame {done} of {len(cameras)}"
    return paths


def _file_name(view: str) -> str:
    """A view's name as the name of one file: views may lie in sub-folders."""
    return str(Path(view).with_suffix("")).replace("/", "_").replace("\\", "_").strip("._") or "view"


def _video(draw: Draw, cameras: Sequence[Camera], path: Path, fps: float) -> Iterator[tuple[float, str]]:
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        writer = imageio.get_writer(temporary, fps=fps, codec="libx264", quality=8, macro_block_size=2)
        try:
            for done, camera in enumerate(cameras, 1):
                writer.append_data(pixels(draw(_even(camera)).rgb))
                yield done / len(cameras), f"frame {done} of {len(cameras)}"
        finally:  # as a context manager it would stay open after an error
            writer.close()
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _even(camera: Camera) -> Camera:
    """Videos store colour at half the resolution: sizes are even."""
    return camera.resized(max(2, camera.width // 2 * 2), max(2, camera.height // 2 * 2))
