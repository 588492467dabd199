"""report.html: everything about a run in one file that needs no network."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anchorfield.app import files
from anchorfield.app.charts import Point, chart
from anchorfield.app.evaluation import Evaluation, ViewScore, rendered
from anchorfield.app.journal import read_events
from anchorfield.app.machine import human_bytes, human_time
from anchorfield.app.pictures import Pixels, jpeg, pixels
from anchorfield.app.run import Run

MOST_TRIPLETS = 16
PICTURE_WIDTH = 480  # pixels, at most
FULL_SCALE = 0.25  # absolute error that is shown in the last colour

# Black, purple, orange, yellow, white: even steps of lightness, so that a grey copy still reads.
COLOURS = np.array([[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]], float)


def write_report(run: Run, evaluation: Evaluation | None) -> Path:
    """Write eval/report.html into the run's folder; `evaluation` is None where the capture has no held-out views."""
    path = files.output_folder(run.path / "eval") / "report.html"
    files.write_atomically(path, page(run, evaluation))
    return path


def page(run: Run, evaluation: Evaluation | None) -> str:
    """The report's HTML."""
    events = read_events(run.path)
    scores = evaluation.scores if evaluation else ()
    title = f"{run.scene.name} · {run.job.method}"
    sections = [
        f"<header><h1>{escape(title)}</h1><p>{escape(_subtitle(run))}</p></header>",
        _figures(run, evaluation),
        f'<section><h2>Curves</h2><div class="charts">{"".join(_curves(events))}</div></section>',
        _views(scores),
        _triplets(run, scores),
        _section("Protocol", _protocol(run, evaluation)),
        _section("Configuration", _table(_flat(run.job.to_json()))),
        _section("Environment", _table(_flat(run.status["environment"]))),
        _section("Split", _split(run)),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = "".join(sections)
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head><body>{body}</body></html>\n'


def error_colours(error: NDArray[np.float32]) -> Pixels:
    """Absolute errors [H, W] in colour, full scale at FULL_SCALE."""
    position = np.clip(error / FULL_SCALE, 0, 1) * (len(COLOURS) - 1)
    grid = np.arange(len(COLOURS))
    return np.stack([np.interp(position, grid, channel) for channel in COLOURS.T], axis=-1).round().astype(np.uint8)


def _subtitle(run: Run) -> str:
    status = run.status
    width, height = status["scene"]["resolution"]
    views = f"{len(status['scene']['train'])} training and {len(status['scene']['test'])} held-out views"
    return f"{views} of {width} x {height} · step {run.step:,} · {time.strftime('%Y-%m-%d %H:%M')}"


def _figures(run: Run, evaluation: Evaluation | None) -> str:
    figures: list[tuple[str, str, str]] = []
    if evaluation:
        summary = evaluation.summary
        low, high = summary["psnr_interval"]
        figures.append(("PSNR", f"{summary['psnr']:.2f} dB", f"95 %: {low:.2f} to {high:.2f}"))
        low, high = summary["ssim_interval"]
        figures.append(("SSIM", f"{summary['ssim']:.4f}", f"95 %: {low:.4f} to {high:.4f}"))
        lpips = summary["lpips"]
        figures.append(("LPIPS", lpips if isinstance(lpips, str) else f"{lpips:.4f}", ""))
        if "gaussians" in summary:
            figures.append(("Gaussians", f"{summary['gaussians']:,}", ""))
        figures.append(("render", f"{summary['render_ms']:.1f} ms", "median of a view"))
    figures.append(("training", human_time(run.seconds), f"{run.step / max(run.seconds, 1e-9):.1f} steps/s"))
    figures.append(("model", human_bytes(run.model_bytes), f"peak memory {human_bytes(run.status['peak_memory'])}"))
    tiles = (
        f'<div class="figure"><span>{escape(name)}</span><b>{escape(value)}</b><small>{escape(note)}</small></div>'
        for name, value, note in figures
    )
    return f'<section class="figures">{"".join(tiles)}</section>'


def _curves(events: Iterable[Any]) -> list[str]:
    curves: dict[str, list[Point]] = {"loss": [], "psnr": [], "count": []}
    for event in events:
        if event["event"] == "step":
            _add(curves["loss"], event, "loss")
            _add(curves["count"], event, "count")
        elif event["event"] == "evaluated":
            _add(curves["psnr"], event, "psnr")
    seconds = "training time / s"
    return [
        chart(curves["psnr"], "Held-out PSNR while training", seconds, "PSNR / dB"),
        chart(curves["loss"], "Training loss", seconds, "loss (logarithmic)", logarithmic=True),
        chart(curves["count"], "Gaussians", seconds, "count"),
    ]


def _add(points: list[Point], event: Any, name: str) -> None:
    if isinstance(event.get(name), int | float) and isinstance(event.get("seconds"), int | float):
        points.append((float(event["seconds"]), float(event[name])))


def _views(scores: tuple[ViewScore, ...]) -> str:
    if not scores:
        return _section("Held-out views", "<p>The capture has no held-out views: nothing was measured.</p>")
    rows = "".join(
        f"<tr><td>{escape(score.name)}</td><td>{score.psnr:.2f}</td><td>{score.ssim:.4f}</td>"
        f"<td>{'' if score.lpips is None else f'{score.lpips:.4f}'}</td><td>{score.render_ms:.1f}</td></tr>"
        for score in scores
    )
    head = "<tr><th>view</th><th>PSNR / dB</th><th>SSIM</th><th>LPIPS</th><th>render / ms</th></tr>"
    worst = ", ".join(f"{score.name} ({score.psnr:.2f} dB)" for score in scores[:3])
    note = f"<p>Worst first. The worst views: {escape(worst)}.</p>"
    table = f"<div class='scroll'><table class='n'>{head}{rows}</table></div>"
    return f"<section><h2>Held-out views</h2>{note}{table}</section>"


def _triplets(run: Run, scores: tuple[ViewScore, ...]) -> str:
    if not scores:
        return ""
    index_of = {view.name: index for index, view in enumerate(run.scene.views)}
    shown = scores[:MOST_TRIPLETS]
    left_out = f" The {len(shown)} worst of {len(scores)} views." if len(shown) < len(scores) else ""
    note = (
        "<p>Photograph, render, and the absolute error (mean over channels), worst view first."
        f"{left_out}</p><p class='scale'>error 0 <i></i> {FULL_SCALE:g} or more</p>"
    )
    rows = "".join(_triplet(run, index_of[score.name], score) for score in shown)
    return f"<section><h2>Photograph | render | error</h2>{note}{rows}</section>"


def _triplet(run: Run, index: int, score: ViewScore) -> str:
    photo, image = run.scene.photo(index), rendered(run.model, run.scene, index)
    error = (photo - image).abs().mean(dim=2).numpy()
    pictures = (pixels(_reduced(photo)), pixels(_reduced(image)), _thin(error_colours(error)))
    names = ("photograph", "render", "error")
    cells = "".join(
        f'<img alt="{name} of {escape(score.name)}" src="data:image/jpeg;base64,{_base64(picture)}">'
        for name, picture in zip(names, pictures, strict=True)
    )
    caption = f"{escape(score.name)} · {score.psnr:.2f} dB · SSIM {score.ssim:.4f}"
    return f'<figure class="triplet"><figcaption>{caption}</figcaption><div>{cells}</div></figure>'


def _reduced(image: Tensor) -> Tensor:
    step = -(-image.shape[1] // PICTURE_WIDTH)
    if step == 1:
        return image
    rows, columns = image.shape[0] // step * step, image.shape[1] // step * step
    blocks = image[:rows, :columns].reshape(rows // step, step, columns // step, step, 3)
    return blocks.mean(dim=(1, 3))


def _thin(picture: Pixels) -> Pixels:
    """The picture with every n-th pixel, like `_reduced` in size (colours of errors must not be averaged)."""
    step = -(-picture.shape[1] // PICTURE_WIDTH)
    return np.ascontiguousarray(picture[::step, ::step])


def _base64(picture: Pixels) -> str:
    return base64.b64encode(jpeg(picture)).decode()


def _protocol(run: Run, evaluation: Evaluation | None) -> str:
    text = evaluation.summary["protocol"] if evaluation else "Nothing was measured."
    apart = f"evaluation {run.status['evaluation_seconds']:.1f} s, saving {run.status['saving_seconds']:.1f} s"
    warnings = "".join(f"<li>{escape(text)}</li>" for text in run.status["scene"]["warnings"])
    noted = f"<p>The capture's reader warned:</p><ul>{warnings}</ul>" if warnings else ""
    return f"<p>{escape(text)}</p><p>Not counted as training in the last session: {apart}.</p>{noted}"


def _split(run: Run) -> str:
    scene = run.status["scene"]
    names = (("held out", scene["test"]), ("training", scene["train"]))
    return "".join(f"<h3>{len(n)} {label}</h3><p class='names'>{escape(', '.join(n))}</p>" for label, n in names)


def _section(title: str, body: str) -> str:
    return f"<section><details open><summary><h2>{escape(title)}</h2></summary>{body}</details></section>"


def _flat(content: Any, prefix: str = "") -> list[tuple[str, str]]:
    if not isinstance(content, dict):
        return [(prefix, content if isinstance(content, str) else json.dumps(content))]
    return [row for name, value in content.items() for row in _flat(value, f"{prefix}.{name}" if prefix else name)]


def _table(rows: list[tuple[str, str]]) -> str:
    body = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    return f"<div class='scroll'><table>{body}</table></div>"


STYLE = """
:root { color-scheme: light dark; --ink: #1c2128; --soft: #5f6b7a; --line: #dfe3e8; --paper: #ffffff; --tile: #f5f7f9;
  --accent: #0b6bcb; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --soft: #9aa5b1; --line: #333b45; --paper: #14181d;
  --tile: #1d232a; --accent: #6cb2ff; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1080px;
  margin: 0 auto; padding: 24px 20px 64px; }
header p, small, figcaption, .names, p { color: var(--soft); }
h1 { margin: 0; font-size: 26px; } h2 { font-size: 18px; margin: 32px 0 8px; } h3 { font-size: 14px; margin: 12px 0 0; }
header p { margin: 2px 0 18px; } summary h2 { display: inline-block; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(138px, 1fr)); gap: 10px; }
.figure { background: var(--tile); border-radius: 8px; padding: 10px 12px; display: flex; flex-direction: column; }
.figure span { color: var(--soft); font-size: 13px; } .figure b { font-size: 20px; font-variant-numeric: tabular-nums; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 16px; }
figure { margin: 0; } .chart svg { width: 100%; height: auto; }
.chart .grid { stroke: var(--line); } .chart .curve { fill: none; stroke: var(--accent); stroke-width: 1.8; }
.chart .dot { fill: var(--accent); } .chart text { fill: var(--soft); font-size: 11px; text-anchor: middle; }
.chart text.left { text-anchor: end; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 14px; }
th, td { text-align: left; padding: 4px 16px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
table.n td:not(:first-child), table.n th:not(:first-child) { text-align: right; font-variant-numeric: tabular-nums; }
th { font-weight: 500; color: var(--soft); } td { overflow-wrap: anywhere; } .names { font-size: 13px; margin: 2px 0; }
.triplet { margin: 14px 0; } .triplet div { display: grid; grid-template-columns: repeat(3, 1fr); gap: 6px; }
.triplet img { width: 100%; border-radius: 4px; display: block; }
.scale i { display: inline-block; width: 160px; height: 10px; vertical-align: middle; border-radius: 3px;
  background: linear-gradient(90deg, #000004, #420a68, #932667, #dd513a, #fca50a, #fcffa4); }
"""
