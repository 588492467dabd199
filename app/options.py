"""The options of every verb of the command line: one frozen dataclass each, read by tyro."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

Flag = FlagCreatePairsOff[bool]
Which = Annotated[str, arg(metavar="last|best|STEP", help_behavior_hint="(default: last)")]
RunFolder = Annotated[Positional[Path], arg(metavar="RUN_DIR|FILE", help_behavior_hint="")]


def _option(metavar: str, hint: str = "", *aliases: str) -> Any:
    return arg(metavar=metavar, help_behavior_hint=hint, aliases=aliases or None)


Host = Annotated[str, _option("ADDRESS", "(default: 127.0.0.1)")]
Port = Annotated[int | None, _option("N", "(default: 8080 or the next free one)")]
Capture = Annotated[Path | None, _option("CAPTURE", "(default: the run's own)")]


@dataclass(frozen=True)
class Train:
    """Train a scene from a capture. A method's own settings are flags too: see `anchorfield methods NAME`."""

    source: Annotated[Positional[Path | None], _option("SRC")] = None
    """Folder of the capture, or a transforms.json."""
    method: Annotated[str | None, _option("NAME", "(default: gaussian_splatting)")] = None
    """Method, see `anchorfield methods`."""
    minutes: Annotated[float | None, _option("M", "(default: 10)")] = None
    """Training time, without evaluation and saving."""
    steps: Annotated[int | None, _option("N")] = None
    """Number of steps instead of a time; reproducible bit for bit."""
    downscale: Annotated[int | None, _option("K", "(default: 1)")] = None
    """Divide the images' width and height by K."""
    seed: Annotated[int | None, _option("S", "(default: 0)")] = None
    """Seed of every random choice."""
    split: Annotated[str | None, _option("auto|all|N", "(default: auto)")] = None
    """Held-out views: the capture's own, else every 8th; none; or every Nth."""
    background: Annotated[str | None, _option("COLOUR")] = None
    """Behind transparent pixels: white, black or R,G,B in 0..1."""
    out: Annotated[Path | None, _option("RUN_DIR", "(default: runs/SCENE/METHOD-TIME)", "-o")] = None
    """Folder for the run."""
    resume: Flag = False
    """Continue the run in RUN_DIR from its newest checkpoint; steps or minutes may grow."""
    config: Annotated[Path | None, _option("FILE")] = None
    """Take everything that is not given from a run's config.json."""
    backend: Annotated[Literal["auto", "native", "gsplat"] | None, _option("auto|native|gsplat", "(default: auto)")] = (
        None
    )
    """Who renders: our kernels (auto, native) or gsplat on CUDA."""
    save_every: Annotated[float, _option("SECONDS", "(default: 60)")] = 60.0
    """Time between two checkpoints."""
    json: Flag = False
    """Print events as JSON lines."""
    view: Flag = False
    """Watch and steer it in the browser; see `anchorfield view`."""
    host: Host = "127.0.0.1"
    """With --view: the address to serve on."""
    port: Port = None
    """With --view: its port."""


@dataclass(frozen=True)
class View:
    """Train, look, compare, edit and mesh in the browser. Without a path it starts empty."""

    paths: Annotated[Positional[tuple[Path, ...]], _option("RUN_DIR|FILE|CAPTURE...")] = ()
    """Folders of runs, files with models, or a capture that is to be trained."""
    compare: Flag = False
    """Two of them, or one and its photographs, on both sides of a split."""
    scene: Capture = None
    """Where the photographs lie."""
    host: Host = "127.0.0.1"
    """Address to serve on. Any but this machine's own demands a token, which the printed address holds."""
    port: Port = None
    """Port to serve on; an error where it is in use."""
    window: Flag = False
    """Open a window without the browser's bars (Chromium, Chrome or Edge)."""


@dataclass(frozen=True)
class Eval:
    """Score a run on the held-out views of its capture."""

    run: RunFolder
    """Folder of the run, or a file with a model."""
    scene: Capture = None
    """Where its photographs lie."""
    checkpoint: Which = "last"
    """Which checkpoint."""
    backend: Literal["auto", "native", "gsplat"] = "auto"
    """Who renders: our kernels (auto, native) or gsplat on CUDA."""
    lpips_weights: Annotated[Path | None, _option("FILE")] = None
    """Weights of lpips.LPIPS (safetensors) to compute LPIPS with."""
    report: Flag = False
    """Write eval/report.html anew."""
    json: Flag = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Render:
    """Render views, an orbit or a camera path to pictures (a file or a folder) or an MP4."""

    run: RunFolder
    """Folder of the run, or a file with a model."""
    scene: Capture = None
    """Where its photographs lie."""
    view: Annotated[str | None, _option("NAME|INDEX")] = None
    """One view of the capture."""
    test: Flag = False
    """The held-out views."""
    orbit: Annotated[int | None, _option("N")] = None
    """N frames around the scene."""
    path: Annotated[Path | None, _option("FILE")] = None
    """Camera keyframes (JSON; the format is in the documentation)."""
    frame: Literal["source", "local", "placed"] = "source"
    """Coordinates of a path that does not say its own; with placed, an orbit goes around the placement's up."""
    out: Annotated[Path | None, _option("FILE|DIR", "(default: in renders)", "-o")] = None
    """By ending: .png, .jpg, .webp, .mp4, or a folder."""
    backend: Literal["auto", "native", "gsplat"] = "auto"
    """Who renders: our kernels (auto, native) or gsplat on CUDA."""
    width: Annotated[int | None, _option("PIXELS")] = None
    """Width of the pictures instead of the training images'."""
    fps: Annotated[float | None, _option("F", "(default: 30, or the path's own)")] = None
    """Frames a second of a video."""
    checkpoint: Which = "last"
    """Which checkpoint."""
    json: Flag = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Export:
    """Write a run's scene for other programs (.ply) or its model in few bytes (.safetensors)."""

    run: RunFolder
    """Folder of the run, or a file with a model."""
    scene: Capture = None
    """Where its photographs lie."""
    out: Annotated[Path | None, _option("FILE", "(required)", "-o")] = None
    """File to write."""
    frame: Literal["source", "local", "placed"] = "source"
    """The capture's own coordinates, those of the training, or those of the run's placement.json (metres, z up)."""
    check: bool = True
    """Read the file back and measure what it loses on the held-out views."""
    seconds: Annotated[float, _option("S", "(default: 90)")] = 90.0
    """Time to distil Gaussians from a model that has none."""
    steps: Annotated[int, _option("N", "(default: 0)")] = 0
    """Steps of distilling instead of a time: reproducible bit for bit; 0: by time."""
    points: Annotated[int, _option("N", "(default: 0)")] = 0
    """Most Gaussians to distil; 0: half as many as a view has pixels."""
    seed: Annotated[int, _option("S", "(default: 0)")] = 0
    """Of distilling."""
    checkpoint: Which = "last"
    """Which checkpoint."""
    json: Flag = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Edit:
    """Apply a script of edits to a scene's Gaussians and write the result."""

    run: RunFolder
    """Folder of the run, or a file with a model."""
    script: Annotated[Path | None, _option("FILE", "(required)")] = None
    """Operations (JSON), as the viewer saves them."""
    out: Annotated[Path | None, _option("FILE", "(required)", "-o")] = None
    """File to write: .ply, or .safetensors."""
    scene: Capture = None
    """Where its photographs lie; clean-up looks through their cameras."""
    frame: Literal["source", "local", "placed"] = "source"
    """Of a .ply: the capture's own coordinates, those of the training, or those of the run's placement."""
    checkpoint: Which = "last"
    """Which checkpoint."""
    json: Flag = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Mesh:
    """Make a mesh with colours (.ply, .glb, .obj) of what a run shows."""

    run: RunFolder
    """Folder of the run, or a file with a model."""
    scene: Capture = None
    """Where its photographs lie."""
    out: Annotated[Path | None, _option("FILE", "(required)", "-o")] = None
    """File to write."""
    resolution: Annotated[int, _option("N", "(default: 256)")] = 256
    """Voxels along the longest side of what is meshed."""
    faces: Annotated[int, _option("N", "(default: 200000)")] = 200_000
    """Most faces of the mesh."""
    smallest: Annotated[float, _option("SHARE", "(default: 0.02)")] = 0.02
    """Leave out loose parts whose area is below this share of the largest part's."""
    share: Annotated[float, _option("SHARE", "(default: 0.5)")] = 0.5
    """Mesh what at least this share of the cameras has in its picture; 0 for everything."""
    agreeing: Annotated[int, _option("N", "(default: 3)")] = 3
    """Mesh only what at least this many views see at the same place; fewer where there are few views."""
    views: Annotated[int, _option("N", "(default: 150)")] = 150
    """Most views that are rendered for it."""
    smooth: Annotated[int, _option("N", "(default: 2)")] = 2
    """Rounds of smoothing, which does not shrink."""
    frame: Literal["source", "local"] = "source"
    """The capture's own coordinates, or those of the training."""
    backend: Literal["auto", "native", "gsplat"] = "auto"
    """Who renders: our kernels (auto, native) or gsplat on CUDA."""
    checkpoint: Which = "last"
    """Which checkpoint."""
    json: Flag = False
    """Print one JSON object."""


@dataclass(frozen=True)
class FitImage:
    """Fit a picture by a hash grid field and write what it has learnt. The smallest use of the encodings."""

    image: Annotated[Positional[Path], _option("IMAGE")]
    """The picture."""
    out: Annotated[Path | None, _option("FILE", "(required)", "-o")] = None
    """Picture to write: .png, .jpg or .webp."""
    seconds: Annotated[float, _option("S", "(default: 20)")] = 20.0
    """Time to learn."""
    size: Annotated[int, _option("N", "(default: 16)")] = 16
    """Most rows of a level of the grid, as a power of two: the field's size."""
    seed: Annotated[int, _option("S", "(default: 0)")] = 0
    """Seed of every random choice."""
    json: Flag = False
    """Print one JSON object."""


@dataclass(frozen=True)
class FitMesh:
    """Fit a mesh's signed distance by a hash grid field and mesh it again."""

    mesh: Annotated[Positional[Path], _option("MESH")]
    """A mesh, best a closed one: .ply, .obj, .glb, .stl and what else trimesh reads."""
    out: Annotated[Path | None, _option("FILE", "(required)", "-o")] = None
    """Mesh to write: .ply, .glb or .obj."""
    seconds: Annotated[float, _option("S", "(default: 20)")] = 20.0
    """Time to learn."""
    size: Annotated[int, _option("N", "(default: 16)")] = 16
    """Most rows of a level of the grid, as a power of two: the field's size."""
    resolution: Annotated[int, _option("N", "(default: 256)")] = 256
    """Voxels along the longest side, for learning and meshing."""
    json: Flag = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Methods:
    """List the methods, or the settings of one."""

    name: Annotated[Positional[str | None], _option("NAME")] = None
    """A method."""
    json: Flag = False
    """Print JSON."""


@dataclass(frozen=True)
class Doctor:
    """What runs on this machine, and why the rest does not."""

    json: Flag = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Demo:
    """Train a capture for a few minutes; leave splat.ply and report.html here."""

    capture: Annotated[Positional[Path], _option("SRC")] = Path("assets/sample")
    """Folder of the capture."""
    minutes: Annotated[float, _option("M", "(default: 3.6)")] = 3.6
    """Training time."""
    json: Flag = False
    """Print events as JSON lines."""


VERBS: dict[str, type] = {
    "train": Train,
    "eval": Eval,
    "render": Render,
    "view": View,
    "export": Export,
    "edit": Edit,
    "mesh": Mesh,
    "fit-image": FitImage,
    "fit-mesh": FitMesh,
    "methods": Methods,
    "doctor": Doctor,
    "demo": Demo,
}
