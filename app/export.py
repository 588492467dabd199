"""Scenes for other programs, by the file's ending."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from anchorfield.app import files
from anchorfield.app.run import FrameOfReference, Run
from anchorfield.renderer.errors import UsageError
from anchorfield.renderer.types import Gaussians
from anchorfield.scenes.splat_ply import write_ply

WRITERS: dict[str, Callable[[Path, Gaussians], None]] = {".ply": write_ply}


def export(run: Run, out: Path, frame: FrameOfReference = "source") -> int:
    """Write the run's Gaussians to `out`; returns their number."""
    check_ending(out)
    gaussians = run.gaussians(frame)
    WRITERS[out.suffix.lower()](files.output_file(out), gaussians)
    return len(gaussians)


def check_ending(out: Path) -> None:
    """Raise UsageError where no writer knows the file's ending."""
    if out.suffix.lower() not in WRITERS:
        raise UsageError(f"{out}: unknown ending '{out.suffix}'. Known: {', '.join(WRITERS)}")
