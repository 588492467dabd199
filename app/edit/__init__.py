"""Editing Gaussians without a window: operations, undo, clean-up proposals and scripts that can be replayed."""

from anchorfield.app.edit.editor import Editor, replay
from anchorfield.app.edit.operations import Operation, operation_from_json

__all__ = ["Editor", "Operation", "operation_from_json", "replay"]
