"""The bundled capture from photographs to a splat and a report in one command."""

from __future__ import annotations

import shutil
from pathlib import Path

from anchorfield.app.export import export
from anchorfield.app.journal import Show
from anchorfield.app.training import train


def demo(capture: Path, minutes: float, show: Show) -> float | None:
    """Train on `capture`, put splat.ply and report.html into the working directory; returns the held-out PSNR."""
    run = train(capture, minutes=minutes, show=show)
    splat, report = Path("splat.ply"), Path("report.html")
    count = export(run, splat).count
    shutil.copyfile(run.path / "eval" / "report.html", report)
    for line in (
        "",
        f"{splat.resolve()}: {count:,} Gaussians; open it in any splat viewer, e.g. https://superspl.at/editor",
        f"{report.resolve()}: open it in a browser: curves, scores, and photographs beside renders",
    ):
        show({"event": "message", "text": line})
    psnr: float | None = run.status["psnr"]
    return psnr
