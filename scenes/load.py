"""From a folder to a Scene: find the reader, check, undistort, choose the split, move into the training frame.

The training frame is `world = (source - centre) / scale` without rotation, where `centre` is the mean of the camera
centres and `scale` the largest distance of a camera from it: the cameras lie in the unit ball.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch

from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.scenes import colmap, transforms
from anchorfield.scenes.cache import TensorCache
from anchorfield.scenes.capture import Array, Capture, Reader, Shot, is_sane
from anchorfield.scenes.images import read_header
from anchorfield.scenes.photo import Photo
from anchorfield.scenes.scene import Points, Scene, View
from anchorfield.scenes.undistort import PANORAMA, cube_faces, pinhole_of

READERS = tuple(cast(Reader, module) for module in (transforms, colmap))
HOLD_OUT_EVERY = 8
FURTHEST_POINT = 1e6  # in the training frame; points beyond lie at infinity and only break float32


def load_scene(
    path: Path | str,
    *,
    downscale: int = 1,
    split: str | int = "auto",
    background: tuple[float, float, float] | None = None,
    image_memory: int = 512 << 20,
) -> Scene:
    """The capture at `path`, a folder or a `transforms*.json` file.

    `downscale` divides width and height (halves are rounded up). `split` is "auto" (the capture's own, else every 8th
    view by name is held out), a number N (every Nth), or "all" (train on everything). `background` lies behind
    transparent pixels (default: white where the capture has alpha, else black). At most `image_memory` bytes of decoded
    images are kept.
    """
    if downscale < 1:
        raise UsageError(f"downscale must be 1, 2, 3, ..., got {downscale}")
    path = Path(path)
    capture = _read(path, downscale)
    _check(capture, path)
    shots = sorted(capture.shots, key=lambda shot: shot.name)
    held_out, split_notes = _held_out(shots, split)
    centre, scale = _unit_ball(np.stack([shot.centre for shot in shots]), path)
    cache, size_notes = TensorCache(image_memory), list[str]()
    with_alpha = False
    views = []
    for shot in shots:
        header = read_header(shot.image)
        with_alpha |= header.alpha
        fitted, note = _fitted(shot, header.width, header.height)
        if note and capture.downscale_done == 1:
            size_notes.append(note)
        reduction = downscale / capture.downscale_done
        views += [_view(face, centre, scale, reduction, cache) for face in _faces(fitted)]
    held_out = [out for shot, out in zip(shots, held_out, strict=True) for _ in _faces(shot)]
    source_from_world = np.eye(4)
    source_from_world[:3, :3] *= scale
    source_from_world[:3, 3] = centre
    return Scene(
        name=path.resolve().name if path.is_dir() else path.resolve().parent.name,
        path=path,
        views=tuple(views),
        train=tuple(index for index, out in enumerate(held_out) if not out),
        test=tuple(index for index, out in enumerate(held_out) if out),
        points=_points(capture, centre, scale),
        source_from_world=capture.source_from_shots @ source_from_world,
        downscale=downscale,
        background=background or ((1.0, 1.0, 1.0) if with_alpha else (0.0, 0.0, 0.0)),
        warnings=(*capture.warnings, *_grouped(size_notes), *split_notes),
    )


def _read(path: Path, downscale: int) -> Capture:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    for reader in READERS:
        if reader.recognises(path):
            return reader.read(path, downscale)
    looked = "; ".join(reader.LOOKS_FOR for reader in READERS)
    holds = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) if path.is_dir() else "a file"
    raise DataError(f"{path}: no capture found. Looked for {looked}. The folder holds: {holds or 'nothing'}")


def _check(capture: Capture, path: Path) -> None:
    names = Counter(shot.name for shot in capture.shots)
    twice = [name for name, number in names.items() if number > 1]
    if twice:
        raise DataError(
            f"{path}: {len(twice)} images are listed more than once ({', '.join(twice[:5])}); keep one each"
        )
    if len(capture.shots) < 2:
        raise DataError(f"{path}: {len(capture.shots)} usable view, at least 2 are needed; take more photos around it")
    for shot in capture.shots:
        if not (np.isfinite(shot.rotation).all() and is_sane(shot.centre)):
            raise DataError(
                f"{path}: the pose of {shot.name} is not finite: its camera stands at {shot.centre.tolist()}"
            )


def _unit_ball(centres: Array, path: Path) -> tuple[Array, float]:
    """Mean and largest distance from it of the camera centres [N, 3]."""
    centre = centres.mean(axis=0)
    scale = float(np.linalg.norm(centres - centre, axis=1).max())
    # Below this share of the coordinates a distance is only rounding.
    if scale <= 1e-8 * float(np.linalg.norm(centre)) or scale == 0:
        raise DataError(
            f"{path}: all {len(centres)} cameras stand at the same place, {np.round(centre, 6).tolist()}; no depth can"
            " be recovered. Check the poses, or walk around the subject while taking photos"
        )
    return centre, scale


def _held_out(shots: list[Shot], split: str | int) -> tuple[list[bool], list[str]]:
    """Which of the sorted shots are held out, and what to tell."""
    own = any(shot.held_out is not None for shot in shots)
    if split == "auto" and own:
        held_out = [bool(shot.held_out) for shot in shots]
    elif split == "all":
        held_out = [False] * len(shots)
    else:
        every = HOLD_OUT_EVERY if split == "auto" else _number(split)
        held_out = [index % every == 0 for index in range(len(shots))]
    if sum(not out for out in held_out) >= 2:
        return held_out, []
    if split == "auto" and not own:
        return [False] * len(shots), [f"only {len(shots)} views: none is held out, and nothing can be measured"]
    raise DataError(f"the split {split!r} leaves fewer than 2 of {len(shots)} views to train on; choose another")


def _number(split: str | int) -> int:
    try:
        every = int(split)
    except ValueError:
        every = 0
    if every < 2:
        raise UsageError(f"split must be 'auto', 'all' or a number from 2 on (hold out every Nth view), got {split!r}")
    return every


def _fitted(shot: Shot, width: int, height: int) -> tuple[Shot, str | None]:
    """The shot with its lens in the pixels of a file of `width` x `height`."""
    lens = shot.lens
    if (width, height) == (lens.width, lens.height):
        return shot, None
    if abs(lens.height * width / lens.width - height) > 1:
        turned = " (the photo seems turned by 90 degrees)" if (height, width) == (lens.width, lens.height) else ""
        raise DataError(
            f"{shot.image}: expected {lens.width} x {lens.height} pixels as its camera says, got {width} x {height}"
            f"{turned}; use the images that the cameras were computed from"
        )
    smaller = type(lens)(lens.todict())
    smaller.rescale(width, height)
    note = f"{width} x {height} pixels where the camera says {lens.width} x {lens.height}; the intrinsics were scaled"
    return replace(shot, lens=smaller), note


def _faces(shot: Shot) -> list[Shot]:
    """The pinhole views of a shot: itself, or the six faces of a panorama."""
    if shot.lens.model.name != PANORAMA:
        return [shot]
    if shot.depth is not None:
        raise DataError(f"{shot.depth}: depth maps of panoramas cannot be read; remove the entry")
    return [
        replace(shot, name=f"{shot.name}#{name}", face=face, rotation=face.T @ shot.rotation)
        for name, face in cube_faces().items()
    ]


def _grouped(notes: list[str]) -> list[str]:
    return [f"{number} images have {note}" for note, number in Counter(notes).items()]


def _view(shot: Shot, centre: Array, scale: float, reduction: float, cache: TensorCache) -> View:
    pinhole = pinhole_of(shot.lens, str(shot.image))
    width, height = (max(1, int(size / reduction + 0.5)) for size in (pinhole.width, pinhole.height))
    pose = np.eye(4)
    pose[:3, :3] = shot.rotation
    pose[:3, 3] = -shot.rotation @ ((shot.centre - centre) / scale)
    full = Camera(torch.from_numpy(pose).float(), **vars(pinhole))
    photo = Photo(
        path=shot.image,
        lens=shot.lens,
        pinhole=pinhole,
        width=width,
        height=height,
        cache=cache,
        mask_path=shot.mask,
        depth_path=shot.depth,
        depth_scale=shot.depth_unit / scale,
        name=shot.name,
        face=shot.face,
    )
    return View(
        name=shot.name,
        camera=full.resized(width, height),
        load=photo.pixels,
        load_mask=photo.mask if photo.mask_path else None,
        load_depth=photo.depth if photo.depth_path else None,
        load_at=photo.pixels_at,
        photo_size=(pinhole.width, pinhole.height),
    )


def _points(capture: Capture, centre: Array, scale: float) -> Points | None:
    if capture.xyz is None or capture.rgb is None:
        return None
    xyz = (capture.xyz - centre) / scale
    near = (np.abs(xyz) < FURTHEST_POINT).all(axis=1)
    return Points(xyz[near].astype(np.float32), capture.rgb[near])
