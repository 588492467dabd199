"""Gaussians that look like a model without Gaussians: points on what it shows, fitted to its pictures.

The model is asked what its training cameras see, with alpha and depth. Points on the surfaces
in these pictures are where the default method starts, to which the pictures are photographs. No photograph is read.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from anchorfield.app import job, model_files
from anchorfield.app import settings as flat
from anchorfield.app.checkpoint import Checkpoint
from anchorfield.app.run import Run
from anchorfield.methods import HasGaussians, Model, check_ranges
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.renderer.meshing_views import spread
from anchorfield.renderer.rays import camera_rays
from anchorfield.renderer.types import PARAMETERS, Gaussians
from anchorfield.scenes.scene import Points, Scene, View

Distilling: TypeAlias = Generator[tuple[float, str], None, Run]

DRAWING = 0.5  # of the time, for the model's pictures
PROBE = 4096  # pixels, about, that tell how long drawing takes
NARROWEST = 16  # pixels of a picture
PER_PIXEL, LEAST_POINTS, MOST_POINTS = 0.5, 1000, 300_000  # Gaussians per pixel of a view, and in all
OPAQUE = 0.5  # alpha from which on a pixel shows a surface
JUMP = 0.1  # of its depth, by which the depths around a pixel differ where it shows an edge, and no surface
CLEAR = 0.01  # of the pixels that show no surface, from which on the scene is an object
FAINT = 1 / 255  # opacity below which nothing can be seen


@dataclass(frozen=True)
class Distillation:
    """How Gaussians are distilled."""

    seconds: float = 90.0
    """Time for it, about."""
    steps: int = 0
    """Steps of the fit to the whole views instead of a time: reproducible bit for bit; 0: by time."""
    points: int = 0
    """Most Gaussians; 0: half of a view's pixels, 1,000 to 300,000."""
    seed: int = 0
    """Of every random choice."""

    def __post_init__(self) -> None:
        check_ranges(self, seconds=(1, 1e6), steps=(0, 10**7), points=(0, 10**8), seed=(0, 2**63))


@dataclass(frozen=True)
class Picture:
    """What the model shows to a camera."""

    camera: Camera
    pixels: Tensor  # [H, W, 4] uint8, colour without what lies behind, and alpha
    depth: Tensor  # [H, W] along z


def distilling(run: Run, settings: Distillation | None = None) -> Distilling:
    """Distil step by step: yields the share that is done and what is being done, and returns the run with Gaussians.

    That run has the frame, the capture and the folder of `run`. Not to ask for the next step cancels. Raises DataError
    where the capture with the cameras is gone, or the model shows nothing.
    """
    settings, begin = settings or Distillation(), time.monotonic()
    scene = _scene(run)
    cameras = [scene.views[index].camera for index in scene.train]
    random = torch.Generator().manual_seed(settings.seed)
    drawn = _sized(run.model, cameras, settings)
    pictures = list[Picture]()
    for camera in drawn:
        pictures.append(_picture(run.model, camera, torch.tensor(scene.background)))
        yield DRAWING * len(pictures) / len(drawn), f"picture {len(pictures)} of {len(drawn)} drawn"
    largest = max(camera.width * camera.height for camera in cameras)
    count = settings.points or max(LEAST_POINTS, min(MOST_POINTS, int(PER_PIXEL * largest)))
    points = surface_points(pictures, count, random)
    left = max(settings.seconds - (time.monotonic() - begin), (1 - DRAWING) / 2 * settings.seconds)
    fitted = yield from _fitting(_as_scene(pictures, scene, points), count, settings, left)
    return _run_of(run, scene, fitted)


def between(cameras: Sequence[Camera], most: int) -> list[Camera]:
    """At most `most` cameras, each halfway between one of the cameras and the one nearest to it."""
    if len(cameras) < 2:
        return list(cameras)
    poses = torch.stack([camera.camera_to_world for camera in cameras]).double()
    places = torch.cat([poses[:, :3, 3], poses[:, :3, 2]], 1)
    apart = torch.cdist(places, places).fill_diagonal_(math.inf)
    found = []
    for index in spread(cameras, most):
        middle = poses[[index, int(apart[index].argmin())]].mean(0)
        left, _, right = torch.linalg.svd(middle[:3, :3])
        middle[:3, :3] = left @ right
        found.append(dataclasses.replace(cameras[index], world_to_camera=torch.linalg.inv(middle).float()))
    return found


def _scene(run: Run) -> Scene:
    try:
        return run.scene
    except (DataError, UsageError) as problem:
        raise DataError(
            f"method '{run.job.method}' has no Gaussians of its own, and some can only be fitted to it where its"
            f" cameras are known: {problem}"
        ) from problem


def _sized(model: Model, cameras: Sequence[Camera], settings: Distillation) -> list[Camera]:
    """The cameras, with as many pixels as there is time to draw.

    Whole views of fewer pixels: Gaussians that only parts of views see float before the rest.
    """
    if settings.steps:
        return list(cameras)
    total = sum(camera.width * camera.height for camera in cameras)
    share = DRAWING * settings.seconds / (_seconds_per_pixel(model, cameras[0]) * total)
    return [_scaled(camera, min(1.0, math.sqrt(share))) for camera in cameras]


def _seconds_per_pixel(model: Model, camera: Camera) -> float:
    small = _scaled(camera, math.sqrt(PROBE / (camera.width * camera.height)))
    with torch.no_grad():
        model.render(small.resized(NARROWEST, NARROWEST))  # the first picture also prepares
        begin = time.perf_counter()
        model.render(small)
    return (time.perf_counter() - begin) / (small.width * small.height)


def _scaled(camera: Camera, scale: float) -> Camera:
    """The same view in another number of pixels."""
    width, height = (max(min(side, NARROWEST), round(scale * side)) for side in (camera.width, camera.height))
    return camera.resized(width, height)


@torch.no_grad()
def _picture(model: Model, camera: Camera, background: Tensor) -> Picture:
    """What the model shows, apart from the background behind it."""
    frame = model.render(camera)
    alpha = frame.alpha.clamp(0, 1)[..., None]
    colour = (frame.rgb - (1 - alpha) * background) / alpha.clamp_min(1e-3)
    pixels = torch.cat([colour, alpha], 2).nan_to_num().clamp(0, 1) * 255
    return Picture(camera, pixels.round().to(torch.uint8), frame.depth)


def surface_points(pictures: Sequence[Picture], count: int, random: torch.Generator) -> Points:
    """At most `count` points where rays of random pixels meet what is opaque, and other cameras see nothing behind it.

    Raises DataError where the pictures show nothing opaque.
    """
    shown = [torch.nonzero(_on_surface(picture)) for picture in pictures]
    ends = torch.tensor([len(pixels) for pixels in shown]).cumsum(0)
    if not int(ends[-1]):
        raise DataError("the model shows its cameras nothing opaque that Gaussians could start from: train it longer")
    chosen = torch.randperm(int(ends[-1]), generator=random)[:count].sort().values
    xyz, rgb = [], []
    for picture, pixels, end in zip(pictures, shown, ends.tolist(), strict=True):
        row, column = pixels[chosen[(chosen >= end - len(pixels)) & (chosen < end)] - (end - len(pixels))].unbind(1)
        rays, depth = camera_rays(picture.camera, torch.stack([column, row], 1)), picture.depth[row, column]
        xyz.append(rays.origins + (depth / rays.z_scale)[:, None] * rays.directions)
        rgb.append(picture.pixels[row, column, :3])
    points, colours = torch.cat(xyz), torch.cat(rgb)
    agreed = _agreed(points, pictures)
    return Points(points[agreed].numpy(), colours[agreed].numpy())


def _agreed(points: Tensor, pictures: Sequence[Picture]) -> Tensor:
    """Which points [N] float before what is seen there in fewer than half of the pictures that hold them.

    Fog before one camera explains its picture and hides the scene from others.
    """
    held, before = torch.zeros(len(points)), torch.zeros(len(points))
    for picture in pictures:
        camera = picture.camera
        local = points @ camera.world_to_camera[:3, :3].T + camera.world_to_camera[:3, 3]
        z = local[:, 2].clamp_min(1e-6)
        column = (camera.fx * local[:, 0] / z + camera.cx).floor().long()
        row = (camera.fy * local[:, 1] / z + camera.cy).floor().long()
        inside = (local[:, 2] > 1e-6) & (row >= 0) & (row < camera.height) & (column >= 0) & (column < camera.width)
        seen = picture.depth[row.clamp(0, camera.height - 1), column.clamp(0, camera.width - 1)]
        held += inside
        before += inside & (z < (1 - JUMP) * seen)
    return before < 0.5 * held.clamp_min(1)


def _on_surface(picture: Picture) -> Tensor:
    """Where [H, W] depth is that of one thing: what is opaque, but for edges, where it lies between two things."""
    opaque = (picture.pixels[..., 3] >= 255 * OPAQUE) & (picture.depth > 0)
    depth = torch.where(opaque, picture.depth, torch.nan).nan_to_num(0)[None]
    furthest = functional.max_pool2d(depth, 3, 1, 1)
    nearest = -functional.max_pool2d(-torch.where(opaque, depth, torch.inf), 3, 1, 1)
    smooth = opaque & ((furthest - nearest)[0] <= JUMP * picture.depth)
    return smooth if bool(smooth.any()) else opaque


def _as_scene(pictures: Sequence[Picture], scene: Scene, points: Points) -> Scene:
    """The pictures as a capture: with alpha over a colour unlike the scene's where something is transparent.

    Gaussians that stood for the background would show over that colour.
    """
    transparent = _transparent(pictures)
    views = tuple(_view(str(i), picture, transparent) for i, picture in enumerate(pictures))
    return Scene(
        name=scene.name,
        path=scene.path,
        views=views,
        train=tuple(range(len(views))),
        test=(),
        points=points,
        source_from_world=scene.source_from_world,
        background=_unlike(pictures) if transparent else scene.background,
    )


def _view(name: str, picture: Picture, transparent: bool) -> View:
    pixels = picture.pixels if transparent else picture.pixels[..., :3].contiguous()
    return View(name, picture.camera, lambda: pixels)


def _transparent(pictures: Sequence[Picture]) -> bool:
    """Whether a share of what is seen is no surface."""
    alpha = torch.cat([picture.pixels[..., 3].reshape(-1) for picture in pictures])
    return float((alpha < 255 * OPAQUE).float().mean()) > CLEAR


def _unlike(pictures: Sequence[Picture]) -> tuple[float, float, float]:
    """The colour of the cube's corners that is furthest from the mean of what is opaque."""
    pixels = torch.cat([picture.pixels.reshape(-1, 4) for picture in pictures]).float() / 255
    mean = (pixels[:, :3] * pixels[:, 3:]).sum(0) / pixels[:, 3].sum().clamp_min(1)
    red, green, blue = (mean < 0.5).float().tolist()
    return red, green, blue


def _fitting(
    scene: Scene, count: int, settings: Distillation, seconds: float
) -> Generator[tuple[float, str], None, Gaussians]:
    """The Gaussians, optimised on a scene for so many seconds or the steps of the settings; those seen are returned."""
    method = flat.apply(job.default_settings(job.DEFAULT_METHOD), {"cap": count, "seed": settings.seed})
    begin = time.monotonic()
    for fit in method.fit(scene):
        spent = fit.step / settings.steps if settings.steps else (time.monotonic() - begin) / seconds
        fit.progress = min(1.0, spent)
        yield DRAWING + (1 - DRAWING) * fit.progress, f"step {fit.step:,} of fitting {count:,} Gaussians"
        if spent >= 1:
            break
    assert isinstance(fit.model, HasGaussians)
    found = fit.model.gaussians()
    seen = found.logit_opacities.sigmoid() > FAINT
    return dataclasses.replace(found, **{name: getattr(found, name)[seen] for name in PARAMETERS})


def _run_of(run: Run, scene: Scene, gaussians: Gaussians) -> Run:
    """The run, as if its model had been these Gaussians."""
    stored = model_files.of_gaussians(gaussians, run.source_from_world, scene.background)
    described = dataclasses.replace(
        run.job, method=stored.method, settings=model_files.settings(stored, run.path), background=stored.background
    )
    state = {"model": stored.tensors, "step": run.step, "progress": 1.0}
    found = dataclasses.replace(
        run, job=described, checkpoint=Checkpoint(run.checkpoint.path, state, run.checkpoint.facts)
    )
    found.__dict__["scene"] = scene  # as loaded: saves reading the capture again
    return found
