"""Scripts and edited scenes on the disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anchorfield.app import files, model_files
from anchorfield.app.edit.editor import Editor, operations_of, replay
from anchorfield.app.edit.operations import CleanUp
from anchorfield.app.model_files import COMPACT, SPLATS
from anchorfield.app.run import FrameOfReference, Run
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.scenes.compact import write_compact
from anchorfield.scenes.similarity import transformed
from anchorfield.scenes.splat_ply import write_ply

LARGEST_SCRIPT = 256 * 2**20  # bytes


def check_ending(out: Path) -> None:
    """Raise UsageError where the file's ending is not known."""
    if out.suffix.lower() not in (SPLATS, COMPACT):
        raise UsageError(f"{out}: unknown ending '{out.suffix}'. Known: {SPLATS}, {COMPACT}")


def read_script(path: Path) -> Any:
    """The content of a script whose operations are all known to be good; raises DataError that names the file."""
    try:
        if path.stat().st_size > LARGEST_SCRIPT:
            raise DataError(f"{path}: expected a script of at most {LARGEST_SCRIPT:,} bytes")
        script = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as problem:
        raise DataError(f"{path} does not exist") from problem
    except (OSError, ValueError, RecursionError) as problem:
        raise DataError(f"{path} cannot be read as JSON: {problem or 'nested too deeply'}") from problem
    try:
        operations_of(script)
    except UsageError as problem:
        raise DataError(f"{path}: {problem}") from problem
    return script


def write_script(path: Path, editor: Editor) -> None:
    """Write what replays the editor's applied steps."""
    files.write_atomically(files.output_file(path), files.dump(editor.script()))


def edited(run: Run, script: Any, warn: Callable[[str], Any]) -> Editor:
    """An editor of the run's Gaussians after a script; `warn` hears where the script was made for something else."""
    cleans = any(isinstance(operation, CleanUp) for operation in operations_of(script))
    cameras = training_cameras(run, warn) if cleans else ()
    editor = replay(run.gaussians(), script, cameras, source_from_world=run.source_from_world)
    for note in editor.notes:
        warn(note)
    return editor


def training_cameras(run: Run, warn: Callable[[str], Any]) -> tuple[Camera, ...]:
    """The cameras of the photographs that the run was trained on; none, with a warning, where the capture is away."""
    try:
        scene = run.scene
    except (DataError, UsageError) as problem:
        warn(f"{problem}; clean-up judges without cameras")
        return ()
    return tuple(scene.views[i].camera for i in scene.train)


def write(editor: Editor, run: Run, out: Path, frame: FrameOfReference = "source") -> None:
    """Write the edited Gaussians, hidden ones included: splats in `frame`, or a model in few bytes."""
    check_ending(out)
    if out.suffix.lower() == SPLATS:
        gaussians = editor.gaussians if frame == "local" else transformed(editor.gaussians, run.from_world(frame))
        write_ply(files.output_file(out), gaussians)
        return
    background = run.job.background or (tuple(run.status["scene"]["background"]) if run.folder else (0.0, 0.0, 0.0))
    write_compact(files.output_file(out), model_files.of_gaussians(editor.gaussians, run.source_from_world, background))
