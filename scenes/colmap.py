"""COLMAP models: cameras, images and points, in binary or text, with the photographs beside them.

The files are parsed here, and not by pycolmap, because a damaged file must end in a message: pycolmap ends the process.
Every count is compared with the bytes that are there before anything is allocated. pycolmap supplies the lens models.

Poses are world-to-camera with OpenCV axes already. Rigs and frames (rigs.bin, frames.bin) add nothing to the pose that
each image carries, and are not read.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

from anchorfield.renderer.errors import DataError
from anchorfield.scenes.capture import Array, Capture, Shot, is_file, lens_of, missing_images, usable_points
from anchorfield.scenes.images import read_header

LOOKS_FOR = "a COLMAP model (cameras.bin and images.bin, or .txt, in sparse/0, sparse or the folder itself)"

_MODEL_FOLDERS = ("sparse/0", "sparse", "colmap/sparse/0", ".")
_PHOTO_FOLDERS = ("images", "input", "photos", ".")
_ENDINGS = (".png", ".jpg", ".jpeg", ".JPG", ".PNG")
_MODEL_NAMES = {int(model): name for name, model in pycolmap.CameraModelId.__members__.items() if name != "INVALID"}


@dataclass(frozen=True)
class Posed:
    """An entry of the images file."""

    name: str
    camera_id: int
    quaternion: tuple[float, ...]  # wxyz, camera from world
    translation: tuple[float, ...]


def recognises(path: Path) -> bool:
    """Whether a folder holds a model."""
    return path.is_dir() and _model_folder(path) is not None


def read(path: Path, downscale: int) -> Capture:
    """The capture; uses a ready folder `images_N` where N is the asked downscale and its sizes are right."""
    model = _model_folder(path)
    assert model is not None  # recognised before
    cameras = read_cameras(model)
    posed = sorted(read_images(model), key=lambda image: image.name)
    if not posed:
        raise DataError(f"{model}: the model has no registered image; there is no view to train on")
    photos = _photo_folder(path, model, posed)
    shots = [_shot(image, cameras, photos, model) for image in posed]
    xyz, rgb, warnings = usable_points(*read_points(model), str(model / "points3D"))
    present, lost = missing_images(shots, model, f"looked in {photos}")
    capture = Capture(tuple(present), xyz, rgb, warnings=(*_other_models(model), *warnings, *lost))
    return _with_ready_images(capture, photos.with_name(f"images_{downscale}"), photos, downscale)


def read_cameras(model: Path) -> dict[int, pycolmap.Camera]:
    """The lenses by camera id."""
    binary = model / "cameras.bin"
    return _cameras_binary(binary) if binary.is_file() else _cameras_text(model / "cameras.txt")


def read_images(model: Path) -> list[Posed]:
    """The registered images."""
    binary = model / "images.bin"
    return _images_binary(binary) if binary.is_file() else _images_text(model / "images.txt")


def read_points(model: Path) -> tuple[Array, NDArray[np.uint8]]:
    """Positions [N, 3] and colours [N, 3]; empty where the model has no points file."""
    binary, text = model / "points3D.bin", model / "points3D.txt"
    if binary.is_file():
        return _points_binary(binary)
    return _points_text(text) if text.is_file() else (np.zeros((0, 3)), np.zeros((0, 3), np.uint8))


# Binary ---------------------------------------------------------------------------------------------------------------


class _Bytes:
    """A file read front to back; a read beyond its end is an error that says where."""

    def __init__(self, path: Path) -> None:
        self.path, self.data, self.at = path, path.read_bytes(), 0

    def take(self, layout: str) -> tuple[int | float, ...]:
        """The next values in a `struct` layout (little-endian)."""
        start = self.at
        self.skip(struct.calcsize("<" + layout), "a record")
        return struct.unpack_from("<" + layout, self.data, start)

    def count(self, smallest: int, what: str) -> int:
        """The next count, if the file can hold that many records of at least `smallest` bytes."""
        (number,) = self.take("Q")
        left = len(self.data) - self.at
        if int(number) * smallest > left:
            raise DataError(
                f"{self.path}: says {number} {what}, which need at least {int(number) * smallest} bytes, but only"
                f" {left} are left; the file is truncated or damaged, copy or export it again"
            )
        return int(number)

    def skip(self, size: int, what: str) -> None:
        if self.at + size > len(self.data):
            raise DataError(
                f"{self.path}: ends inside {what} at byte {self.at} of {len(self.data)}; the file is truncated or"
                " damaged, copy or export it again"
            )
        self.at += size

    def text(self) -> str:
        """The next text, which ends with a zero byte."""
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise DataError(f"{self.path}: the name at byte {self.at} has no end; the file is truncated or damaged")
        raw, self.at = self.data[self.at : end], end + 1
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: the name at byte {end - len(raw)} is not UTF-8; rename the image") from error

    def finish(self) -> None:
        if self.at != len(self.data):
            raise DataError(
                f"{self.path}: {len(self.data) - self.at} bytes follow the last record; the file is damaged, or of"
                " another version of COLMAP"
            )


def _cameras_binary(path: Path) -> dict[int, pycolmap.Camera]:
    source, cameras = _Bytes(path), {}
    for _ in range(source.count(24, "cameras")):
        camera_id, model, width, height = (int(value) for value in source.take("IiQQ"))
        where = f"{path}: camera {camera_id}"
        if model not in _MODEL_NAMES:
            raise DataError(f"{where}: camera model number {model} is unknown to COLMAP {pycolmap.__version__}")
        size = len(pycolmap.Camera.create_from_model_name(0, _MODEL_NAMES[model], 1.0, 1, 1).params)
        cameras[camera_id] = lens_of(_MODEL_NAMES[model], width, height, source.take(f"{size}d"), where)
    source.finish()
    return cameras


def _images_binary(path: Path) -> list[Posed]:
    source, images = _Bytes(path), []
    for _ in range(source.count(73, "images")):
        _, *pose, camera_id = source.take("I7dI")
        name = source.text()
        source.skip(24 * source.count(24, f"keypoints of {name!r}"), f"the keypoints of {name!r}")
        images.append(Posed(name, int(camera_id), tuple(pose[:4]), tuple(pose[4:])))
    source.finish()
    return images


def _points_binary(path: Path) -> tuple[Array, NDArray[np.uint8]]:
    source = _Bytes(path)
    number = source.count(51, "points")
    xyz, rgb = np.empty((number, 3)), np.empty((number, 3), np.uint8)
    for index in range(number):
        _, x, y, z, red, green, blue, _ = source.take("Q3d3Bd")
        xyz[index], rgb[index] = (x, y, z), (red, green, blue)
        source.skip(8 * source.count(8, "track elements"), "a track")
    source.finish()
    return xyz, rgb


# Text -----------------------------------------------------------------------------------------------------------------


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines without comments; empty ones are kept, since an image without keypoints has one."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as text ({error})") from error
    for number, line in enumerate(lines, 1):
        if not line.startswith("#"):
            yield number, line.strip()


def _cameras_text(path: Path) -> dict[int, pycolmap.Camera]:
    cameras = {}
    for number, line in _lines(path):
        if not line:
            continue
        where = f"{path}: line {number}"
        try:
            camera_id, model, width, height, *params = line.split()
            values = int(camera_id), int(width), int(height), [float(value) for value in params]
        except ValueError as error:
            raise DataError(f"{where}: expected 'ID MODEL WIDTH HEIGHT PARAMETERS...', got {line[:80]!r}") from error
        cameras[values[0]] = lens_of(model, values[1], values[2], values[3], where)
    return cameras


def _images_text(path: Path) -> list[Posed]:
    images = []
    lines = _lines(path)
    for number, line in lines:
        if not line:
            continue
        try:
            _, qw, qx, qy, qz, tx, ty, tz, camera_id, name = line.split(maxsplit=9)
            quaternion, translation = (qw, qx, qy, qz), (tx, ty, tz)
            images.append(Posed(name, int(camera_id), tuple(map(float, quaternion)), tuple(map(float, translation))))
        except ValueError as error:
            raise DataError(
                f"{path}: line {number}: expected 'ID QW QX QY QZ TX TY TZ CAMERA NAME', got {line[:80]!r}"
            ) from error
        next(lines, None)  # the keypoints, empty or not
    return images


def _points_text(path: Path) -> tuple[Array, NDArray[np.uint8]]:
    xyz, rgb = [], []
    for number, line in _lines(path):
        if not line:
            continue
        try:
            _, x, y, z, *colour = line.split(maxsplit=7)[:7]
            xyz.append([float(x), float(y), float(z)])
            rgb.append([int(channel) & 255 for channel in colour])
            if len(colour) != 3:
                raise ValueError("colour")
        except ValueError as error:
            raise DataError(f"{path}: line {number}: expected 'ID X Y Z R G B ...', got {line[:80]!r}") from error
    return np.array(xyz, np.float64).reshape(-1, 3), np.array(rgb, np.uint8).reshape(-1, 3)


# Folders --------------------------------------------------------------------------------------------------------------


def _is_model(folder: Path) -> bool:
    return any(all((folder / f"{part}.{kind}").is_file() for part in ("cameras", "images")) for kind in ("bin", "txt"))


def _model_folder(path: Path) -> Path | None:
    """The folder of the model; of several sub-models in `sparse/` the one with the largest images file."""
    siblings = [folder for folder in path.glob("sparse/*") if _is_model(folder)]
    if siblings:
        return max(siblings, key=lambda folder: (_images_size(folder), folder.name == "0"))
    return next((path / folder for folder in _MODEL_FOLDERS if _is_model(path / folder)), None)


def _images_size(folder: Path) -> int:
    return max(file.stat().st_size for file in (folder / "images.bin", folder / "images.txt") if file.is_file())


def _other_models(model: Path) -> list[str]:
    others = [folder.name for folder in model.parent.iterdir() if folder != model and _is_model(folder)]
    if model.parent.name != "sparse" or not others:
        return []
    return [f"{model.parent}: using the largest of several models, {model.name}; left out: {', '.join(sorted(others))}"]


def _photo_folder(path: Path, model: Path, posed: list[Posed]) -> Path:
    """The folder that holds most of the photographs named by the model."""
    roots = dict.fromkeys([path, model, model.parent, model.parent.parent])
    folders = [root / name for root in roots for name in _PHOTO_FOLDERS]
    found = {folder: sum(_photo(folder, image.name) is not None for image in posed[:50]) for folder in folders}
    best = max(found, key=lambda folder: found[folder])
    if found[best]:
        return best
    ready = sorted({folder.name for root in roots for folder in root.glob("images_*") if folder.is_dir()})
    hint = f"; there are {', '.join(ready)}: rename one to images" if ready else ""
    raise DataError(
        f"{model}: none of its images (e.g. {posed[0].name!r}) was found; looked in"
        f" {', '.join(str(folder) for folder in folders[:4])} and beside the model{hint}"
    )


def _photo(folder: Path, name: str) -> Path | None:
    """The file of an image: under its own name, or (for folders of smaller copies) with another ending."""
    path = folder / name
    candidates = [path, *(path.with_suffix(ending) for ending in _ENDINGS)] if name else []
    return next((candidate for candidate in candidates if is_file(candidate)), None)


def _shot(image: Posed, cameras: dict[int, pycolmap.Camera], photos: Path, model: Path) -> Shot:
    where = f"{model}: image {image.name!r}"
    if image.camera_id not in cameras:
        raise DataError(f"{where}: its camera {image.camera_id} is not among the {len(cameras)} cameras of the model")
    rotation = _rotation(image.quaternion, where)
    translation = np.array(image.translation)
    if not np.isfinite(translation).all():
        raise DataError(f"{where}: its pose is not finite")
    return Shot(
        name=image.name,
        image=_photo(photos, image.name) or photos / image.name,
        lens=cameras[image.camera_id],
        rotation=rotation,
        centre=-rotation.T @ translation,
        mask=_mask(photos, image.name),
    )


def _rotation(quaternion: tuple[float, ...], where: str) -> Array:
    norm = math.hypot(*quaternion)
    if not np.isfinite(norm) or abs(norm - 1) > 0.02:
        raise DataError(f"{where}: its rotation must be a unit quaternion, got {list(quaternion)}")
    w, x, y, z = (component / norm for component in quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _mask(photos: Path, name: str) -> Path | None:
    """`masks/NAME.png` (COLMAP's own habit) or `masks/STEM.png`, beside the folder of the photographs."""
    folder = photos.with_name("masks")
    if not folder.is_dir() or not name:
        return None
    candidates = (folder / f"{name}.png", (folder / name).with_suffix(".png"))
    return next((candidate for candidate in candidates if is_file(candidate)), None)


def _with_ready_images(capture: Capture, ready: Path, photos: Path, downscale: int) -> Capture:
    """The capture on the copies in `ready`, if all are there at the right size; else as it is."""
    if downscale == 1 or not ready.is_dir():
        return capture
    shots = []
    for shot in capture.shots:
        copy = _photo(ready, shot.name)
        if copy is None or not _is_reduced(copy, shot, downscale):
            problem = "is missing" if copy is None else f"is not 1/{downscale} of its photo"
            note = f"{ready}: not used, {shot.name} {problem}; the photos of {photos} are scaled instead"
            return replace(capture, warnings=(*capture.warnings, note))
        # Masks belong to the full-size photos and are scaled to the view by themselves.
        shots.append(replace(shot, image=copy))
    note = f"{ready}: its images are used as they are, because the downscale is {downscale}"
    return replace(capture, shots=tuple(shots), downscale_done=downscale, warnings=(*capture.warnings, note))


def _is_reduced(copy: Path, shot: Shot, downscale: int) -> bool:
    header = read_header(copy)
    return (
        abs(header.width - shot.lens.width / downscale) <= 1 and abs(header.height - shot.lens.height / downscale) <= 1
    )
