"""Editing a million Gaussians: how long each operation takes, and what undoing costs.

    python -m bench.editing [--gaussians N] [--edits N]

Every operation is done and undone several times; medians of milliseconds. Then many edits in a row, with the memory of
the process and of the history.
"""

from __future__ import annotations

import argparse
import math
import statistics

from anchorfield.app import machine
from anchorfield.app.edit import Editor
from anchorfield.app.edit import operations as ops
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.types import Gaussians
from bench import _table
from bench._scenes import made
from bench._timing import seconds_of

LIMIT = 300.0  # milliseconds of each of `LIMITED` and of its undoing
LIMITED = ("rectangle", "lasso", "brush", "sphere", "box", "plane", "colour", "range", "invert", "hide", "delete")
ROUNDS = 5
MEMORY = 2**28


def main() -> None:
    """Print both tables; exit code 1 where a limit is passed."""
    arguments = _arguments()
    machine.single_torch_thread()
    scene = made(arguments.gaussians, 960, 540)
    print(_table.machine_line())
    print(f"{arguments.gaussians:,} Gaussians, median of {ROUNDS} rounds\n")
    print("| operation | Gaussians | do, ms | undo, ms | shown again, ms |\n| --- | --- | --- | --- | --- |")
    late = [name for name, operation in _operations(scene.camera).items() if not _row(scene.gaussians, name, operation)]
    bounded = _many(Editor(scene.gaussians, memory=MEMORY), scene.camera, arguments.edits)
    if late or not bounded:
        raise SystemExit(f"over the limit: {', '.join(late) or 'memory'}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.editing", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gaussians", type=int, default=1_000_000)
    parser.add_argument("--edits", type=int, default=200)
    return parser.parse_args()


def _operations(camera: Camera) -> dict[str, ops.Operation]:
    circle = tuple((480 + 150 * math.cos(t / 20), 270 + 150 * math.sin(t / 20)) for t in range(126))
    wave = tuple((200.0 + 4 * t, 270 + 60 * math.sin(t / 10)) for t in range(140))
    return {
        "rectangle": ops.SelectRectangle(camera=camera, x0=300, y0=150, x1=600, y1=400),
        "lasso": ops.SelectLasso(camera=camera, points=circle),
        "brush": ops.SelectBrush(camera=camera, points=wave, radius=25),
        "sphere": ops.SelectSphere(centre=(0, 0, 2), radius=0.5),
        "box": ops.SelectBox(centre=(0, 0, 2), half_extents=(0.5, 0.5, 0.5), wxyz=(0.9, 0.1, 0.2, 0.3)),
        "plane": ops.SelectPlane(point=(0, 0, 2), normal=(0, 0, 1)),
        "colour": ops.SelectColour(rgb=(0.5, 0.5, 0.5), tolerance=0.2),
        "range": ops.SelectRange(attribute="opacity", high=0.1),
        "invert": ops.Invert(),
        "hide": ops.Hide(),
        "delete": ops.Delete(),
        "duplicate": ops.Duplicate(),
        "transform": ops.Transform(),
        "adjust": ops.Adjust(contrast=1.1),
        "rectangle, front only": ops.SelectRectangle(camera=camera, x0=300, y0=150, x1=600, y1=400, front_only=True),
    }


def _row(gaussians: Gaussians, name: str, operation: ops.Operation) -> bool:
    """Measure and print one operation; whether it keeps its limit."""
    editor = Editor(gaussians)
    editor.do(ops.SelectSphere(centre=(0, 0, 2), radius=0.5))
    count = int(editor.selection.sum())
    do, undo, show = [], [], []
    for _ in range(ROUNDS):
        do.append(1e3 * seconds_of(lambda: editor.do(operation)))
        if isinstance(operation, ops.Selecting | ops.Invert):
            count = int(editor.selection.sum())
        show.append(1e3 * seconds_of(editor.shown))
        undo.append(1e3 * seconds_of(editor.undo))
    done, undone, shown = (statistics.median(times) for times in (do, undo, show))
    print(f"| {name} | {count:,} | {done:.0f} | {undone:.0f} | {shown:.0f} |", flush=True)
    return name not in LIMITED or max(done, undone) < LIMIT


def _many(editor: Editor, camera: Camera, edits: int) -> bool:
    """Select and change again and again; whether the history kept to its memory, and the process to its own."""
    print(f"\n{edits} edits in a row, {MEMORY / 2**20:,.0f} MiB for undoing\n")
    print("| edits | can be undone | held for undoing, MiB | process, MiB |\n| --- | --- | --- | --- |")
    settled, kept = 0.0, True
    for number in range(1, edits + 1):
        editor.do(_edit(number, camera))
        kept &= editor.undo_bytes <= MEMORY
        if number % max(1, edits // 5) == 0:
            resident = machine.resident_bytes() / 2**20
            settled = settled or resident
            kept &= resident < 1.25 * settled + 100
            print(f"| {number} | {editor.undoable} | {editor.undo_bytes / 2**20:,.0f} | {resident:,.0f} |", flush=True)
    return kept


def _edit(number: int, camera: Camera) -> ops.Operation:
    """Recolour, select, copy, delete the copy, select."""
    if number % 5 in (0, 2):
        return ops.SelectRectangle(camera=camera, x0=(37 * number) % 800, y0=100, x1=(37 * number) % 800 + 150, y1=400)
    return {1: ops.Adjust(contrast=1.01), 3: ops.Duplicate(), 4: ops.Delete()}[number % 5]


if __name__ == "__main__":
    main()
