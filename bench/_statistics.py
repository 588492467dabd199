"""What a trained scene looks like to the kernels: a few numbers fitted to it, from which scenes of any size are made.

    python -m bench._statistics STATE CAPTURE      # fit again; prints the JSON that bench/fox.json holds

Described are Gaussians as a camera sees them: position in the image, depth, the two axes of the projected ellipse
before it is widened, and opacity. Of each the quantiles are kept, and of all together the correlation of their normal
scores (a Gaussian copula). Positions are distances from the image's middle, because what lies far outside and is still
seen is large. Lengths are in units of the square root of the image's area.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.splatting import DILATION, flattened
from anchorfield.renderer.types import PARAMETERS, Gaussians
from anchorfield.scenes.load import load_scene

Array = NDArray[np.float64]

NAMES = ("aside", "above", "log_depth", "log_major", "log_ratio", "logit_opacity")
LEVELS = (0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 1)
THINNEST = 1e-3  # least ratio of the axes that is told apart: the rest vanishes in the widening


class Statistics(NamedTuple):
    """What is known of a trained scene."""

    seen: float  # Gaussians in view, mean over views
    quantiles: Array  # [6, levels] of NAMES
    correlation: Array  # [6, 6] of the normal scores


def load(path: Path) -> Statistics:
    """The statistics in a JSON file."""
    content = json.loads(path.read_text())
    return Statistics(content["seen"], np.array(content["quantiles"]), np.array(content["correlation"]))


def fitted(gaussians: Gaussians, cameras: list[Camera]) -> Statistics:
    """The statistics of a scene, every camera counting the same."""
    tables = [seen(gaussians, camera) for camera in cameras]
    quantiles = np.mean([np.quantile(table, LEVELS, axis=0).T for table in tables], axis=0)
    correlation = np.mean([np.corrcoef(_scores(table), rowvar=False) for table in tables], axis=0)
    return Statistics(float(np.mean([len(table) for table in tables])), quantiles, correlation)


def seen(gaussians: Gaussians, camera: Camera) -> Array:
    """The values of NAMES for every Gaussian in view, [V, 6]."""
    flat = flattened(gaussians, camera)
    rows = flat.visible
    means, conics, depths = (t[rows].double() for t in (flat.means2d, flat.conics, flat.depths))
    major, minor = _axes(conics)
    unit = math.sqrt(camera.width * camera.height)
    columns = (
        (means[:, 0] / camera.width - 0.5).abs(),
        (means[:, 1] / camera.height - 0.5).abs(),
        (depths / depths.median()).log(),
        (major / unit).log(),
        (minor / major).clamp_min(THINNEST).log(),
        gaussians.logit_opacities.detach()[rows].double(),
    )
    return np.stack([column.numpy() for column in columns], axis=1)


def _axes(conics: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviations along the ellipses' axes without the widening, pixels."""
    a, b, c = conics.unbind(1)
    mean, spread = (a + c) / 2, ((a - c).square() / 4 + b.square()).sqrt()
    least, most = 1 / (mean + spread), 1 / (mean - spread).clamp_min(1e-12)
    return (most - DILATION).clamp_min(1e-6).sqrt(), (least - DILATION).clamp_min(1e-6).sqrt()


def _scores(table: Array) -> Array:
    """The normal scores of each column."""
    ranks = table.argsort(axis=0).argsort(axis=0)
    return np.asarray(ndtri((ranks + 0.5) / len(table)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("state", type=Path, help="a checkpoint's state written by torch.save")
    parser.add_argument("capture", type=Path)
    arguments = parser.parse_args()
    model = torch.load(arguments.state, weights_only=True)["model"]
    scene = load_scene(arguments.capture, downscale=1)
    gaussians = Gaussians(**{name: model[name] for name in PARAMETERS})
    found = fitted(gaussians, [view.camera for view in scene.views])
    quantiles, correlation = (np.round(values, 4).tolist() for values in (found.quantiles, found.correlation))
    print(json.dumps({"seen": round(found.seen), "quantiles": quantiles, "correlation": correlation}))


if __name__ == "__main__":
    main()
