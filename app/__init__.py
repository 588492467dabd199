"""The application: command line, training, checkpoints, evaluation, reports, renders, exports.

The Python API, loaded when first used so that the command line answers at once:

    scene = load_scene("photos/")
    run = train(scene, method="gaussian_splatting", minutes=10)
    run.render(camera), run.gaussians(), evaluate(run)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anchorfield.app.evaluation import Evaluation, evaluate
    from anchorfield.app.run import Run
    from anchorfield.app.training import train
    from anchorfield.scenes.load import load_scene

__all__ = ["Evaluation", "Run", "evaluate", "load_scene", "train"]

_HOMES = {
    "Evaluation": "anchorfield.app.evaluation",
    "Run": "anchorfield.app.run",
    "evaluate": "anchorfield.app.evaluation",
    "load_scene": "anchorfield.scenes.load",
    "train": "anchorfield.app.training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
