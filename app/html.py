"""A scene as one HTML file that any browser shows without a network: the viewer's program, its style and the splats.

The viewer is SuperSplat's (MIT, `app/static/supersplat-viewer`, from npm as VERSION says). It turns a splat file
half round about z, so that the file's -y points up. The splats lie in the page as a PLY in base64, with all their
spherical harmonics.
"""

from __future__ import annotations

import base64
import html
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anchorfield.app import files
from anchorfield.app.placement import mean_up
from anchorfield.app.run import FrameOfReference, Run
from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.renderer.types import Gaussians
from anchorfield.scenes.similarity import transformed, turn_between
from anchorfield.scenes.splat_ply import write_ply

VERSION = "1.36.2"  # of @playcanvas/supersplat-viewer
PAGE = ".html"
VIEWER = Path(__file__).parent / "static" / "supersplat-viewer"
UP = np.array([0.0, -1.0, 0.0])  # up in a splat file, as the viewer takes it
HALF_TURN = np.diag([-1.0, -1.0, 1.0])

Array = NDArray[np.float64]
TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<style>{style}</style><style>html, body {{ height: 100%; margin: 0; overflow: hidden; }}</style>
</head><body>
<!-- SuperSplat Viewer {version}
{licence}
-->
<script type="application/json" id="settings">{settings}</script>
<script type="text/plain" id="splats">{splats}</script>
<script type="module">{program}
{{
const text = document.getElementById("splats").textContent;
const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
createViewer({{
  container: document.body,
  settings: JSON.parse(document.getElementById("settings").textContent),
  contentUrl: "scene.ply", contentFilename: "scene.ply", contents: Promise.resolve(new Response(bytes)),
  renderer: "webgl", ui: true, exposeGlobals: true,
}});
}}
</script></body></html>
"""


def write_page(run: Run, out: Path, frame: FrameOfReference) -> int:
    """Write the run's Gaussians as a page to `out`; returns how many they are."""
    gaussians = run.gaussians(frame)
    if len(gaussians) == 0:
        raise DataError(f"{run.path}: no Gaussian to write")
    pose, fov = _start(run, frame)
    turn = np.eye(4)
    turn[:3, :3] = turn_between(_up(run, frame, pose), UP)
    centre = np.median(gaussians.means.detach().cpu().numpy().astype(np.float64), axis=0)
    settings = _settings(HALF_TURN @ turn[:3, :3], pose, fov, centre)
    page = TEMPLATE.format(
        title=html.escape(run.path.name),
        style=(VIEWER / "index.css").read_text(encoding="utf-8"),
        version=VERSION,
        licence=(VIEWER / "LICENSE").read_text(encoding="utf-8").strip(),
        settings=json.dumps(settings),
        splats=_encoded(transformed(gaussians, turn)),
        program=_program(),
    )
    files.write_atomically(files.output_file(out), page)
    return len(gaussians)


def _encoded(gaussians: Gaussians) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.ply"
        write_ply(path, gaussians)
        return base64.b64encode(path.read_bytes()).decode("ascii")


def _program() -> str:
    """The viewer's module without its exports, for a page may not import from file://."""
    text = (VIEWER / "index.js").read_text(encoding="utf-8")
    return text[: text.rindex("export {")]


def _start(run: Run, frame: FrameOfReference) -> tuple[Array | None, float]:
    """The pose of the first photograph in `frame`, [4, 4] with axes right, down, forward, and its field of view."""
    try:
        camera = run.scene.views[0].camera
    except (DataError, UsageError, IndexError):
        return None, 60.0  # nobody knows where the photographs were taken
    pose = run.from_world(frame) @ camera.camera_to_world.detach().cpu().numpy().astype(np.float64)
    pose[:3, :3] /= np.linalg.norm(pose[:3, 0])
    return pose, float(np.degrees(2 * np.arctan(camera.height / (2 * camera.fy))))


def _up(run: Run, frame: FrameOfReference, pose: Array | None) -> Array:
    """Up in `frame`: where the run was placed, else the photographs' mean, else that of a splat file."""
    linear = run.from_world(frame)[:3, :3]
    try:
        up = np.asarray(run.placed().up, np.float64)
    except DataError:
        if pose is None:
            return UP
        up = np.asarray(mean_up([view.camera for view in run.scene.views]))
    up = linear @ up
    length = float(np.linalg.norm(up))
    return up / length if length > 1e-9 else UP


def _settings(turn: Array, pose: Array | None, fov: float, centre: Array) -> dict[str, Any]:
    """What the viewer starts with; `turn` leads from the frame of `pose` to the viewer's."""
    if pose is None:
        position, target = centre + np.linalg.inv(turn) @ [0.0, 0.0, 3.0], centre
    else:
        position, forward = pose[:3, 3], pose[:3, 2]
        target = position + forward * max(float((centre - position) @ forward), 1e-2)
    initial = {"position": (turn @ position).tolist(), "target": (turn @ target).tolist(), "fov": fov}
    off = {"enabled": False}
    return {
        "version": 2,
        "tonemapping": "none",
        "highPrecisionRendering": False,
        "background": {"color": [0.0, 0.0, 0.0]},
        "postEffectSettings": {
            "sharpness": off | {"amount": 0},
            "bloom": off | {"intensity": 1, "blurLevel": 2},
            "grading": off | {"brightness": 1, "contrast": 1, "saturation": 1, "tint": [1, 1, 1]},
            "vignette": off | {"intensity": 0.5, "inner": 0.3, "outer": 0.75, "curvature": 1},
            "fringing": off | {"intensity": 0.5},
        },
        "animTracks": [],
        "cameras": [{"initial": initial}],
        "annotations": [],
        "startMode": "default",
    }
