"""Two sources on one camera, and what each costs and achieves: runs against each other or against the photographs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import asdict, dataclass, replace

import torch

from anchorfield.app import files
from anchorfield.app.evaluation import gaussian_count, rendered, view_psnr
from anchorfield.app.machine import human_bytes, human_time
from anchorfield.app.pictures import Pixels, pixels
from anchorfield.app.run import MISFITS, Run
from anchorfield.app.view import pictures
from anchorfield.app.view.pictures import NOT_SEEN, PHOTOGRAPH, WORST, Look, Pictures, Shown, Split
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.renderer.metrics import ssim
from anchorfield.renderer.types import Frame, stacked


class Comparison:
    """Draws and paints named sources for a broker; without a split the first of them alone."""

    def __init__(self, sources: Mapping[str, Shown]):
        """Raises UsageError where there are none, or one has the photographs' name."""
        if not sources or PHOTOGRAPH in sources:
            raise UsageError(f"a comparison needs at least one source, and none may be called '{PHOTOGRAPH}'")
        self._sources = {name: Pictures(source) for name, source in sources.items()}

    @property
    def names(self) -> list[str]:
        """What may stand on either side; photographs only on the right one."""
        return list(self._sources)

    def draw(self, camera: Camera, look: Look) -> Frame | Iterable[Frame]:
        """The left source's frame; with a split, the right one's picture is in its extras."""
        split = look.split
        if split is None:
            return next(iter(self._sources.values())).draw(camera, look)
        left = _whole(self._source(split.left).draw(camera, look))
        if split.right == PHOTOGRAPH:
            frame = self._source(split.left).beside_photograph(camera)
            beside = {"right": frame.extras["photo"], "right_seen": frame.extras["seen"]}
        else:
            right = _whole(self._source(split.right).draw(camera, look))
            bytes_of_right = torch.from_numpy(pictures.painted(right, camera, look))
            beside = {"right": right.rgb, "right_painted": bytes_of_right}
        return replace(left, extras={**left.extras, **beside})

    def paint(self, frame: Frame, camera: Camera, look: Look) -> Pixels:
        """Both sides, or how they differ."""
        return painted(frame, camera, look)

    def _source(self, name: str) -> Pictures:
        try:
            return self._sources[name]
        except KeyError:
            raise UsageError(f"'{name}' is not open. Open are: {', '.join(self._sources)}") from None


def _whole(drawn: Frame | Iterable[Frame]) -> Frame:
    return drawn if isinstance(drawn, Frame) else stacked(list(drawn))


@torch.no_grad()
def painted(frame: Frame, camera: Camera, look: Look) -> Pixels:
    """The pixels of a frame with another in its extras, as the look's split says."""
    left = pictures.painted(frame, camera, look)
    split = look.split
    if split is None:
        return left
    if split.difference:
        return _difference(frame)
    right = _right(frame)
    column = split_column(split, left.shape[1])
    left[:, column:] = right[:, column:]
    return left


def split_column(split: Split, width: int) -> int:
    """The first column of the right source."""
    return round(min(1.0, max(0.0, split.at)) * width)


def _right(frame: Frame) -> Pixels:
    if "right_painted" in frame.extras:
        found: Pixels = frame.extras["right_painted"].numpy()
        return found
    photo = pixels(frame.extras["right"])
    photo[~frame.extras["right_seen"].cpu().numpy()] = NOT_SEEN
    return photo


def _difference(frame: Frame) -> Pixels:
    """The mean difference of the colours on the scale of colours, whatever the mode."""
    found = pictures.coloured((frame.rgb - frame.extras["right"]).abs().mean(-1) / WORST)
    if "right_seen" in frame.extras:
        found[~frame.extras["right_seen"].cpu().numpy()] = NOT_SEEN
    return found


@dataclass(frozen=True)
class Row:
    """What a run costs and achieves on its held-out views."""

    name: str
    method: str
    psnr: float | None  # dB; None without held-out views
    ssim: float | None
    seconds: float  # of training
    bytes: int  # of the model
    milliseconds: float | None  # a held-out view, median
    gaussians: int | None = None
    views: int = 0


def measuring(name: str, run: Run) -> Generator[tuple[float, str], None, Row]:
    """Measure a run view by view, as a job: yields progress and a sentence, returns its row.

    What `anchorfield eval` has written for the same checkpoint is taken as it is.
    """
    known = _evaluated(name, run)
    if known:
        return known
    try:
        scene = run.scene
    except DataError:  # its photographs are gone: what needs none is still known
        return _row(name, run, [], [], [])
    scores, structures, times = [], [], []
    for done, index in enumerate(scene.test):
        yield done / len(scene.test), f"{name}: view {done + 1} of {len(scene.test)}"
        begin = time.perf_counter()
        image = rendered(run.model, scene, index)
        times.append(1000 * (time.perf_counter() - begin))
        scores.append(view_psnr(scene, index, image))
        structures.append(ssim(image, scene.photo(index)))
    return _row(name, run, scores, structures, times)


def _row(name: str, run: Run, scores: list[float], structures: list[float], times: list[float]) -> Row:
    try:
        count = gaussian_count(run.model, run.scene)
    except (DataError, *MISFITS):
        count = None
    return Row(
        name=name,
        method=run.job.method,
        psnr=statistics.fmean(scores) if scores else None,
        ssim=statistics.fmean(structures) if structures else None,
        seconds=run.seconds,
        bytes=run.model_bytes,
        milliseconds=statistics.median(times) if times else None,
        gaussians=count,
        views=len(scores),
    )


def _evaluated(name: str, run: Run) -> Row | None:
    """The row of an evaluation of the same checkpoint; None where there is none that fits."""
    path = run.folder / "eval" / "metrics.json" if run.folder else None
    if path is None or not path.is_file():
        return None
    try:
        content = files.read_json(path)
        if (content["steps"], content["seconds"]) != (run.step, run.seconds):
            return None
        return Row(
            name=name,
            method=str(content["method"]),
            psnr=float(content["psnr"]),
            ssim=float(content["ssim"]),
            seconds=float(content["seconds"]),
            bytes=int(content["bytes"]),
            milliseconds=float(content["render_ms"]),
            gaussians=content.get("gaussians"),
            views=int(content["views"]),
        )
    except (DataError, KeyError, TypeError, ValueError):
        return None


HEAD = ("", "method", "PSNR dB", "SSIM", "training", "size", "ms a view", "Gaussians")
BEST = {"psnr": max, "ssim": max, "seconds": min, "bytes": min, "milliseconds": min}


def table(rows: Iterable[Row]) -> str:
    """The rows as a table in Markdown, a column each; where several are given, the best of a figure is bold."""
    rows = list(rows)
    columns = [list(HEAD)]
    best = {}
    for column, choose in BEST.items():
        values = [value for row in rows if (value := asdict(row)[column]) is not None]
        if len(values) > 1:
            best[column] = choose(values)
    for row in rows:
        cells = [
            _escaped(row.name),
            row.method,
            _cell(row, "psnr", best, lambda value: f"{value:.2f}"),
            _cell(row, "ssim", best, lambda value: f"{value:.4f}"),
            _cell(row, "seconds", best, human_time),
            _cell(row, "bytes", best, human_bytes),
            _cell(row, "milliseconds", best, lambda value: f"{value:.0f}"),
            "" if row.gaussians is None else f"{row.gaussians:,}",
        ]
        columns.append(cells)
    head, *lines = ["| " + " | ".join(line) + " |" for line in zip(*columns, strict=True)]
    return "\n".join([head, "|" + " --- |" * len(columns), *lines])


def _cell(row: Row, column: str, best: Mapping[str, float], text: Callable[[float], str]) -> str:
    value = asdict(row)[column]
    if value is None:
        return "not measured"
    return f"**{text(value)}**" if best.get(column) == value else text(value)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
