"""Which Gaussians an operation takes: masks [N] of their centres, computed in double precision."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from anchorfield.app.edit.operations import Attribute, Mode
from anchorfield.app.edit.values import Points, Quaternion, Vector
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.splatting import splat
from anchorfield.renderer.types import SH_C0, Gaussians

FRONT_PIXELS = 400  # of the longer side of the depth map that tells what is in front
FRONT_MARGIN = 0.03  # of the depth, behind which a Gaussian counts as covered
OPAQUE = 0.5  # alpha from which a depth map says something

Mask = NDArray[np.bool_]
Array = NDArray[np.float64]


def joined(before: Tensor, taken: Tensor, mode: Mode) -> Tensor:
    """The selection [N] after taking a mask [N] in a mode."""
    if mode == "set":
        return taken
    if mode == "add":
        return before | taken
    return before & ~taken if mode == "remove" else before & taken


def pixels(means: Tensor, camera: Camera) -> tuple[Array, Array, Array]:
    """Where centres [N, 3] show: column, row and depth [N] each; column and row mean nothing if that is too near."""
    pose = camera.world_to_camera.detach().cpu().double().numpy()
    local = pose[:3, :3] @ means.detach().cpu().numpy().T.astype(np.float64) + pose[:3, 3:]
    z = local[2]
    safe = np.where(z > camera.near, z, 1.0)
    return camera.fx * local[0] / safe + camera.cx, camera.fy * local[1] / safe + camera.cy, z


def in_picture(found: tuple[Array, Array, Array], camera: Camera, margin: float = 0.0) -> Mask:
    """Which of the `pixels` found, bool [N], show in the picture or within a margin of so many pixels around it."""
    x, y, z = found
    across, down = (-margin <= x) & (x < camera.width + margin), (-margin <= y) & (y < camera.height + margin)
    shown: Mask = across & down & (z > camera.near)
    return shown


def rectangle(means: Tensor, camera: Camera, x0: float, y0: float, x1: float, y1: float) -> Tensor:
    """Centres that show between two corners, borders included."""
    x, y, z = pixels(means, camera)
    inside = (x >= min(x0, x1)) & (x <= max(x0, x1)) & (y >= min(y0, y1)) & (y <= max(y0, y1)) & (z > camera.near)
    return torch.from_numpy(inside)


def lasso(means: Tensor, camera: Camera, points: Points) -> Tensor:
    """Centres that show inside a closed line by the even-odd rule.

    Centres are sorted by row once; each side of the line then looks only at those in its own rows.
    """
    x, y, z = pixels(means, camera)
    line = np.array(points)
    low, high = line.min(0), line.max(0)
    near = np.flatnonzero((x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1]) & (z > camera.near))
    near = near[np.argsort(y[near], kind="stable")]
    rows, columns, odd = y[near], x[near], np.zeros(len(near), np.bool_)
    for (ax, ay), (bx, by) in zip(line, np.roll(line, -1, axis=0), strict=True):
        begin, end = np.searchsorted(rows, [min(ay, by), max(ay, by)], side="left")
        if begin < end:
            odd[begin:end] ^= columns[begin:end] < ax + (rows[begin:end] - ay) * ((bx - ax) / (by - ay))
    taken = np.zeros(len(x), np.bool_)
    taken[near[odd]] = True
    return torch.from_numpy(taken)


def brush(means: Tensor, camera: Camera, points: Points, radius: float) -> Tensor:
    """Centres that show within `radius` pixels of a line through points.

    Sorted as in `lasso`, by what the line's longer extent is along.
    """
    x, y, z = pixels(means, camera)
    line = np.array(points)
    if np.ptp(line[:, 0]) > np.ptp(line[:, 1]):
        x, y, line = y, x, line[:, ::-1]
    low, high = line.min(0) - radius, line.max(0) + radius
    near = np.flatnonzero((x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1]) & (z > camera.near))
    near = near[np.argsort(y[near], kind="stable")]
    rows, columns, touched = y[near], x[near], np.zeros(len(near), np.bool_)
    for a, b in zip(line, line[1:] if len(line) > 1 else line, strict=False):
        begin = np.searchsorted(rows, min(a[1], b[1]) - radius, side="left")
        end = np.searchsorted(rows, max(a[1], b[1]) + radius, side="right")
        px = columns[begin:end] - a[0]
        along = b - a
        close = np.flatnonzero((px >= min(along[0], 0) - radius) & (px <= max(along[0], 0) + radius))
        px, py = px[close], rows[begin:end][close] - a[1]
        squared = float(along @ along)
        t = np.clip((px * along[0] + py * along[1]) / squared, 0, 1) if squared else np.zeros_like(px)
        touched[begin + close[(px - t * along[0]) ** 2 + (py - t * along[1]) ** 2 <= radius**2]] = True
    taken = np.zeros(len(x), np.bool_)
    taken[near[touched]] = True
    return torch.from_numpy(taken)


@torch.no_grad()
def in_front(gaussians: Gaussians, shown: Tensor, camera: Camera) -> Tensor:
    """What `camera` sees first: nearer than a margin behind the depth that `shown` Gaussians [N] have at its pixel.

    Where the picture is mostly transparent, all counts as in front.
    """
    x, y, z = pixels(gaussians.means, camera)
    inside = in_picture((x, y, z), camera)
    small = reduced(camera, FRONT_PIXELS)
    depth = depths(gaussians, shown, small)
    column = np.clip(x * (small.width / camera.width), 0, small.width - 1).astype(np.int64)
    row = np.clip(y * (small.height / camera.height), 0, small.height - 1).astype(np.int64)
    reach = np.exp(gaussians.log_scales.amin(1).cpu().numpy().clip(max=0).astype(np.float64))
    return torch.from_numpy(inside & (z - reach <= depth[row, column] * (1 + FRONT_MARGIN)))


@torch.no_grad()
def depths(gaussians: Gaussians, shown: Tensor, camera: Camera) -> Array:
    """The depth map [H, W] of some of the Gaussians, infinite where alpha is low."""
    seen = gaussians if bool(shown.all()) else rows(gaussians, torch.nonzero(shown).squeeze(1))
    if len(seen) == 0:
        return np.full((camera.height, camera.width), np.inf)
    drawn = splat(seen, camera, torch.zeros(3), sh_degree=0)
    assert drawn.depth is not None
    return torch.where(drawn.alpha >= OPAQUE, drawn.depth, torch.inf).double().numpy()


def reduced(camera: Camera, longest: int) -> Camera:
    """The same view with at most `longest` pixels a side."""
    share = min(1.0, longest / max(camera.width, camera.height))
    return camera.resized(max(1, round(camera.width * share)), max(1, round(camera.height * share)))


def rows(gaussians: Gaussians, index: Tensor) -> Gaussians:
    """Some of the Gaussians."""
    return Gaussians(
        gaussians.means[index],
        gaussians.log_scales[index],
        gaussians.quats[index],
        gaussians.logit_opacities[index],
        gaussians.sh[index],
        gaussians.antialiased,
    )


def sphere(means: Tensor, centre: Vector, radius: float) -> Tensor:
    """Centres in a ball, its surface included."""
    return (means.double() - torch.tensor(centre, dtype=torch.float64)).square().sum(1) <= radius**2


def box(means: Tensor, centre: Vector, half_extents: Vector, wxyz: Quaternion) -> Tensor:
    """Centres in a turned box, its surface included."""
    offset = means.double() - torch.tensor(centre, dtype=torch.float64)
    inside: Tensor = (offset @ rotation(wxyz)).abs() <= torch.tensor(half_extents, dtype=torch.float64)
    return inside.all(1)


def plane(means: Tensor, point: Vector, normal: Vector) -> Tensor:
    """Centres on the side that `normal` points to, the plane included."""
    direction = torch.tensor(normal, dtype=torch.float64)
    return (means.double() - torch.tensor(point, dtype=torch.float64)) @ direction >= 0


def colour(gaussians: Gaussians, rgb: Vector, tolerance: float) -> Tensor:
    """Gaussians whose constant colour lies within a distance of `rgb`."""
    offset = colours(gaussians) - torch.tensor(rgb, dtype=torch.float64)
    return offset.square().sum(1) <= tolerance**2


def colours(gaussians: Gaussians) -> Tensor:
    """The constant colour of each, [N, 3] in double precision; not cut to [0, 1]."""
    return gaussians.sh[:, 0].double() * SH_C0 + 0.5


def attribute(gaussians: Gaussians, name: Attribute) -> Tensor:
    """An attribute's values, [N] in double precision: a size is the largest standard deviation, distance is from 0."""
    if name == "opacity":
        return gaussians.logit_opacities.double().sigmoid()
    if name == "size":
        return gaussians.log_scales.amax(1).double().exp()
    if name == "elongation":
        ordered = gaussians.log_scales.double().sort(1).values
        return (ordered[:, 2] - ordered[:, 1]).exp()
    if name == "distance":
        lengths: Tensor = gaussians.means.double().norm(dim=1)
        return lengths
    if name in ("x", "y", "z"):
        return gaussians.means[:, "xyz".index(name)].double()
    return colours(gaussians)[:, ("red", "green", "blue").index(name)]


def nearby(means: Tensor, those: Tensor, others: Tensor, distance: float) -> Tensor:
    """Which of `others` [N] lie within `distance` of one of `those` [N]."""
    taken = torch.zeros_like(others)
    if not bool(those.any()) or not bool(others.any()):
        return taken
    sources, candidates = means[those].double().numpy(), torch.nonzero(others).squeeze(1)
    points = means[candidates].double().numpy()
    low, high = sources.min(0) - distance, sources.max(0) + distance
    inside = np.flatnonzero(((points >= low) & (points <= high)).all(1))
    if len(inside):
        # the tree's own bound is open: the distance itself belongs to it
        bound = np.nextafter(distance, np.inf)
        found = cKDTree(sources).query(points[inside], distance_upper_bound=bound, workers=-1)[0] <= distance
        taken[candidates[torch.from_numpy(inside[found])]] = True
    return taken


def rotation(wxyz: Quaternion) -> Tensor:
    """The rotation matrix [3, 3] of a quaternion of any norm."""
    w, x, y, z = (np.array(wxyz) / np.linalg.norm(wxyz)).tolist()
    return torch.tensor(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ],
        dtype=torch.float64,
    )
