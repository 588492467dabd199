"""The editor: Gaussians under editing, with a history that can be undone, redone, written down and replayed."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anchorfield.app.edit import changing, cleaning, selecting
from anchorfield.app.edit import operations as ops
from anchorfield.app.edit.history import MASKS, Append, Change, Flip, Overwrite, Remove, SetLayer, State, packed
from anchorfield.app.edit.operations import Attribute, Kind, Operation, operation_from_json
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.renderer.types import PARAMETERS, SH_C0, Gaussians

FORMAT, VERSION = "anchorfield edits", 1
SELECTED, PROPOSED = (1.0, 0.75, 0.1), (1.0, 0.1, 0.2)  # colours
TINT = 0.6  # of the colour, over what is below
MOST_OPERATIONS = 100_000  # of a script


@dataclass
class _Step:
    """An operation that was done; without changes where the memory for undoing it was needed for newer ones."""

    operation: Operation
    sentence: str
    changes: list[Change]
    bytes: int = 0


class Editor:
    """Edits Gaussians on the CPU; safe to use from several threads.

    Operations act on what is neither hidden nor locked. `cameras` are those of the photographs, by which clean-up
    judges. Steps beyond `memory` bytes can no longer be undone, the oldest first.
    """

    def __init__(
        self,
        gaussians: Gaussians,
        cameras: Sequence[Camera] = (),
        memory: int = 2**30,
        source_from_world: NDArray[np.float64] | None = None,  # of files that are merged
    ):
        self.cameras = tuple(cameras)
        self.memory = memory
        self.notes: list[str] = []
        self._state = State.of(gaussians)
        self._source_from_world = source_from_world
        self._began = {"gaussians": len(gaussians), "digest": _digest(self._state.gaussians)}
        self._steps: list[_Step] = []
        self._position = 0
        self._first = 0  # steps before it cannot be undone
        self._version = 0
        self._preview: Tensor | None = None
        self._work = threading.RLock()  # one edit at a time
        self._brief = threading.Lock()  # around what readers see
        self._draw = threading.Lock()
        self._shown: tuple[int, Gaussians] | None = None
        self._scores: tuple[Tensor, Tensor, dict[Kind, Tensor]] | None = None

    @property
    def gaussians(self) -> Gaussians:
        """As edited now, hidden ones included."""
        return self._state.gaussians

    @property
    def selection(self) -> Tensor:
        """Which are selected, bool [N]."""
        return self._state.tensors["selection"]

    @property
    def hidden(self) -> Tensor:
        """Which are not shown, bool [N]."""
        return self._state.tensors["hidden"]

    @property
    def locked(self) -> Tensor:
        """Which cannot be selected or changed, bool [N]."""
        return self._state.tensors["locked"]

    @property
    def separated(self) -> dict[str, Gaussians]:
        """What was taken out, by name."""
        return dict(self._state.layers)

    @property
    def version(self) -> int:
        """Grows with every visible change."""
        return self._version

    @property
    def position(self) -> int:
        """How many steps of the history are applied."""
        return self._position

    @property
    def undo_bytes(self) -> int:
        """Memory held for undoing and redoing."""
        return sum(step.bytes for step in self._steps)

    @property
    def undoable(self) -> int:
        """How many steps can be undone from here."""
        return self._position - self._first

    def do(self, operation: Operation) -> str:
        """Apply and record an operation; returns a sentence. Raises UsageError or DataError, with nothing changed."""
        with self._work:
            changes, sentence, operation = self._planned(operation, self._state)
            state = self._state
            for change in changes:
                state = change.forward(state)
            del self._steps[self._position :]
            held = sum(change.bytes for change in changes)
            self._steps.append(_Step(operation, sentence, changes, held))
            self._commit(state, len(self._steps))
            return sentence + self._forgotten()

    def undo(self) -> str | None:
        """Take the last step back, bit for bit; returns its sentence, or None where nothing can be undone."""
        with self._work:
            if self._position <= self._first:
                return None
            step, state = self._steps[self._position - 1], self._state
            for change in reversed(step.changes):
                state = change.backward(state)
            step.bytes = sum(change.bytes for change in step.changes)
            self._commit(state, self._position - 1)
            return f"undone: {step.sentence}"

    def redo(self) -> str | None:
        """Do the step again that was undone last; returns its sentence, or None where there is none."""
        with self._work:
            if self._position == len(self._steps):
                return None
            step, state = self._steps[self._position], self._state
            for change in step.changes:
                state = change.forward(state)
            step.bytes = sum(change.bytes for change in step.changes)
            self._commit(state, self._position + 1)
            return f"done again: {step.sentence}"

    def history(self) -> list[str]:
        """A sentence per step, undone ones included; the first `position` are applied."""
        return [step.sentence for step in list(self._steps)]

    def script(self) -> dict[str, Any]:
        """What replays the applied steps: JSON with the operations and what they were done to."""
        with self._work:
            applied = [step.operation.to_json() for step in self._steps[: self._position]]
            head = {"format": FORMAT, "version": VERSION, "cameras": len(self.cameras)}
            return head | self._began | {"operations": applied}

    def shown(self) -> Gaussians:
        """What to draw: without hidden ones, the selection and a previewed proposal tinted; kept until it changes."""
        with self._draw:
            with self._brief:
                state, version, preview = self._state, self._version, self._preview
            if self._shown is None or self._shown[0] != version:
                self._shown = version, _tinted(state, preview)
            return self._shown[1]

    def preview(self, operation: Operation) -> tuple[Tensor, str]:
        """What a selection would hold, or a deletion, crop or clean-up would take, bool [N], and a sentence."""
        operation, state = _checked(operation), self._state
        if isinstance(operation, ops.CleanUp | ops.Crop | ops.Delete):
            mask = self._goes(operation, state)
            return mask, f"{_count(mask)} would go"
        mask = self._selected(operation, state)
        return mask, f"{_count(mask)} would be selected"

    def show_preview(self, mask: Tensor | None) -> None:
        """Tint a proposal in what is shown, without recording it; None ends that, and so does the next edit."""
        with self._work, self._brief:
            if mask is not None and mask.shape != self.selection.shape:
                raise UsageError(f"preview: expected a mask of {len(self.selection):,} Gaussians, got {len(mask):,}")
            self._preview = mask
            self._version += 1

    def histogram(self, attribute: Attribute, bins: int = 64) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Counts [bins] of an attribute's values among what is not hidden, and the edges between them [bins + 1]."""
        checked = ops.SelectRange(attribute=attribute).attribute
        if not 1 <= bins <= 10_000:
            raise UsageError(f"bins: expected 1 to 10,000, got {bins}")
        state = self._state
        values = selecting.attribute(state.gaussians, checked)[~state.tensors["hidden"]].numpy()
        counts, edges = np.histogram(values[np.isfinite(values)], bins)
        return counts, edges

    def _commit(self, state: State, position: int) -> None:
        with self._brief:
            self._state, self._position, self._preview = state, position, None
            self._version += 1

    def _forgotten(self) -> str:
        """Drop the oldest steps' changes while too much is held; says so where there were any."""
        dropped = 0
        while self.undo_bytes > self.memory and self._first < self._position:
            oldest = self._steps[self._first]
            oldest.changes, oldest.bytes = [], 0
            self._first += 1
            dropped += 1
        if not dropped:
            return ""
        plural = "step" if self._first == 1 else f"{self._first} steps"
        return f" (the first {plural} can no longer be undone: they took too much memory)"

    def _planned(self, operation: Operation, state: State) -> tuple[list[Change], str, Operation]:
        """The changes that make up an operation, its sentence, and the operation as it is written down."""
        operation = _checked(operation)
        if isinstance(operation, ops.Merge):
            return self._merged(operation, state)
        if type(operation) in _PLANS:
            return *_PLANS[type(operation)](state, operation), operation
        if isinstance(operation, ops.CleanUp | ops.Crop | ops.Delete):
            return *_removed(state, self._goes(operation, state), _verb(operation)), operation
        mask = self._selected(operation, state)
        return [Flip.to(state, "selection", mask)], f"{_count(mask)} selected", operation

    def _goes(self, operation: Operation, state: State) -> Tensor:
        """What a removal takes, bool [N]."""
        if isinstance(operation, ops.Delete):
            return _selection(state, "delete")
        if isinstance(operation, ops.CleanUp):
            needed = self._scores_of(operation.kind, state)
            return (needed <= operation.strength) & state.free & (operation.strength > 0)
        assert isinstance(operation, ops.Crop)
        if operation.to == "selection":
            return state.free & ~_selection(state, "crop")
        box = selecting.box(state.tensors["means"], operation.centre, operation.half_extents, operation.wxyz)
        return state.free & ~box

    def _scores_of(self, kind: Kind, state: State) -> Tensor:
        """Clean-up scores, kept as long as no Gaussian changes."""
        means, shown = state.tensors["means"], ~state.tensors["hidden"]
        key = (means, state.tensors["logit_opacities"])
        kept = self._scores
        if kept is None or kept[0] is not key[0] or kept[1] is not key[1]:
            kept = self._scores = (*key, {})
        if kind not in kept[2]:
            kept[2][kind] = cleaning.scores(kind, state.gaussians, shown, self.cameras)
        return kept[2][kind]

    def _selected(self, operation: Operation, state: State) -> Tensor:
        """The selection after an operation, bool [N]."""
        before, free = state.tensors["selection"], state.free
        if isinstance(operation, ops.SelectAll):
            return free
        if isinstance(operation, ops.SelectNone):
            return torch.zeros_like(before)
        if isinstance(operation, ops.Invert):
            return free & ~before
        means = state.tensors["means"]
        if isinstance(operation, ops.Grow):
            return before | selecting.nearby(means, before, free & ~before, operation.distance)
        if isinstance(operation, ops.Shrink):
            return before & ~selecting.nearby(means, free & ~before, before, operation.distance)
        if not isinstance(operation, ops.Selecting):
            raise UsageError(f"{operation.name}: selects nothing that could be shown beforehand")
        taken = _TOOLS[type(operation)](state.gaussians, operation) & free
        if isinstance(operation, ops.OnScreen) and operation.front_only:
            taken &= selecting.in_front(state.gaussians, ~state.tensors["hidden"], operation.camera)
        return selecting.joined(before, taken, operation.mode)

    def _merged(self, operation: ops.Merge, state: State) -> tuple[list[Change], str, Operation]:
        changes: list[Change] = []
        if operation.layer:
            gaussians = state.layers.get(operation.layer)
            if gaussians is None:
                known = ", ".join(state.layers) or "none"
                raise UsageError(f"merge: layer: no '{operation.layer}' was separated. There is: {known}")
            changes.append(SetLayer(operation.layer, gaussians, None))
        else:
            gaussians, digest = changing.from_file(operation.file, operation.digest, self._source_from_world)
            operation = replace(operation, digest=digest)
        rows = changing.as_rows(gaussians, state.tensors["sh"].shape[1])
        return changes + _appended(state, rows), f"{_number(len(gaussians))} merged", operation


def replay(gaussians: Gaussians, script: Any, cameras: Sequence[Camera] = (), **options: Any) -> Editor:
    """An editor after all operations of a script (what `Editor.script` gave, or a list of operations).

    Everything is read before anything is done. Raises UsageError or DataError naming the operation. `options` are those
    of Editor. What the script says of the Gaussians it was made for goes into `notes` where it does not fit these.
    """
    listed = operations_of(script)
    editor = Editor(gaussians, cameras, **options)
    if isinstance(script, Mapping):
        editor.notes += _misfits(script, editor)
    for index, operation in enumerate(listed):
        try:
            editor.do(operation)
        except (UsageError, DataError) as problem:
            raise type(problem)(f"operation {index + 1} of {len(listed)}: {problem}") from problem
    return editor


def operations_of(script: Any) -> list[Operation]:
    """The operations of a script; raises UsageError in words."""
    listed = script
    if isinstance(script, Mapping):
        if script.get("format", FORMAT) != FORMAT or script.get("version", VERSION) != VERSION:
            raise UsageError(f"script: expected the format '{FORMAT}', version {VERSION}")
        listed = script.get("operations")
    if not isinstance(listed, list):
        raise UsageError("script: expected a list under 'operations'")
    if len(listed) > MOST_OPERATIONS:
        raise UsageError(f"script: expected at most {MOST_OPERATIONS:,} operations, got {len(listed):,}")
    found = []
    for index, entry in enumerate(listed):
        try:
            found.append(operation_from_json(entry))
        except UsageError as problem:
            raise UsageError(f"operation {index + 1} of {len(listed)}: {problem}") from problem
    return found


def _checked(operation: Operation) -> Operation:
    """The operation as a script would hold it, so that what is done is what replaying does."""
    if not isinstance(operation, Operation):
        raise UsageError(f"expected an operation, got a {type(operation).__name__}")
    return operation_from_json(operation.to_json())


def _misfits(script: Mapping[str, Any], editor: Editor) -> list[str]:
    notes, mine = [], editor.script()
    if script.get("digest", mine["digest"]) != mine["digest"]:
        notes.append("the script was made for other Gaussians: its selections may take others here")
    cleans = any(isinstance(operation, ops.CleanUp) for operation in operations_of(script))
    if cleans and script.get("cameras", mine["cameras"]) != mine["cameras"]:
        counts = f"{_short(script['cameras'])} cameras, here are {mine['cameras']}"
        notes.append(f"the script was made with {counts}: clean-up may take others")
    return notes


def _short(value: Any) -> str:
    return repr(value)[:20]


def _selection(state: State, name: str) -> Tensor:
    """What is selected; raises UsageError where nothing is."""
    selected = state.tensors["selection"]
    if not bool(selected.any()):
        raise UsageError(f"{name}: nothing is selected")
    return selected


def _selected_or_all(state: State, name: str) -> Tensor:
    """What is selected, or all that is free where nothing is; raises UsageError where nothing is free."""
    selected = state.tensors["selection"]
    chosen = selected if bool(selected.any()) else state.free
    if not bool(chosen.any()):
        raise UsageError(f"{name}: everything is hidden or locked")
    return chosen


def _removed(state: State, mask: Tensor, verb: str) -> tuple[list[Change], str]:
    if bool(mask.all()):
        raise UsageError("nothing would be left: the last Gaussians cannot be removed")
    changes: list[Change] = [Remove(packed(mask))] if bool(mask.any()) else []
    return changes, f"{_count(mask)} {verb}"


def _appended(state: State, rows: Mapping[str, Tensor]) -> list[Change]:
    """Add rows and select just them."""
    count = len(rows["means"])
    masks = {name: torch.full((count,), name == "selection") for name in MASKS}
    none = torch.zeros_like(state.tensors["selection"])
    return [Flip.to(state, "selection", none), Append({**rows, **masks})]


def _duplicate(state: State, operation: Operation) -> tuple[list[Change], str]:
    index = torch.nonzero(_selection(state, "duplicate")).squeeze(1)
    rows = {name: state.tensors[name][index] for name in PARAMETERS}
    return _appended(state, rows), f"{_number(len(index))} duplicated"


def _separate(state: State, operation: Operation) -> tuple[list[Change], str]:
    assert isinstance(operation, ops.Separate)
    mask = _selection(state, "separate")
    if operation.layer in state.layers:
        raise UsageError(f"separate: layer: '{operation.layer}' exists; choose another name")
    taken = selecting.rows(state.gaussians, torch.nonzero(mask).squeeze(1))
    changes, sentence = _removed(state, mask, f"separated as '{operation.layer}'")
    return [SetLayer(operation.layer, None, taken), *changes], sentence


def _hide(state: State, operation: Operation) -> tuple[list[Change], str]:
    return _set_aside(state, "hidden", "hide")


def _lock(state: State, operation: Operation) -> tuple[list[Change], str]:
    return _set_aside(state, "locked", "lock")


def _set_aside(state: State, name: str, verb: str) -> tuple[list[Change], str]:
    mask = _selection(state, verb)
    changes: list[Change] = [
        Flip.to(state, name, state.tensors[name] | mask),
        Flip.to(state, "selection", torch.zeros_like(mask)),
    ]
    return changes, f"{_count(mask)} {name}"


def _unhide(state: State, operation: Operation) -> tuple[list[Change], str]:
    hidden = state.tensors["hidden"]
    return [Flip.to(state, "hidden", torch.zeros_like(hidden))], f"{_count(hidden)} shown again"


def _unlock(state: State, operation: Operation) -> tuple[list[Change], str]:
    locked = state.tensors["locked"]
    return [Flip.to(state, "locked", torch.zeros_like(locked))], f"{_count(locked)} unlocked"


def _transform(state: State, operation: Operation) -> tuple[list[Change], str]:
    assert isinstance(operation, ops.Transform)
    mask = _selected_or_all(state, "transform")
    rows = selecting.rows(state.gaussians, torch.nonzero(mask).squeeze(1))
    moved = changing.moved(rows, operation.matrix)
    if not all(bool(values.isfinite().all()) for values in moved.values()):
        raise UsageError("transform: matrix: takes Gaussians beyond the largest number")
    return [Overwrite(packed(mask), moved)], f"{_count(mask)} transformed"


def _adjust(state: State, operation: Operation) -> tuple[list[Change], str]:
    assert isinstance(operation, ops.Adjust)
    mask = _selected_or_all(state, "adjust")
    rows = selecting.rows(state.gaussians, torch.nonzero(mask).squeeze(1))
    return [Overwrite(packed(mask), changing.adjusted(rows, operation))], f"{_count(mask)} adjusted"


_PLANS: dict[type[Operation], Callable[[State, Operation], tuple[list[Change], str]]] = {
    ops.Duplicate: _duplicate,
    ops.Separate: _separate,
    ops.Hide: _hide,
    ops.Unhide: _unhide,
    ops.Lock: _lock,
    ops.Unlock: _unlock,
    ops.Transform: _transform,
    ops.Adjust: _adjust,
}

_TOOLS: dict[type[Operation], Callable[[Gaussians, Any], Tensor]] = {
    ops.SelectRectangle: lambda g, o: selecting.rectangle(g.means, o.camera, o.x0, o.y0, o.x1, o.y1),
    ops.SelectLasso: lambda g, o: selecting.lasso(g.means, o.camera, o.points),
    ops.SelectBrush: lambda g, o: selecting.brush(g.means, o.camera, o.points, o.radius),
    ops.SelectSphere: lambda g, o: selecting.sphere(g.means, o.centre, o.radius),
    ops.SelectBox: lambda g, o: selecting.box(g.means, o.centre, o.half_extents, o.wxyz),
    ops.SelectPlane: lambda g, o: selecting.plane(g.means, o.point, o.normal),
    ops.SelectColour: lambda g, o: selecting.colour(g, o.rgb, o.tolerance),
    ops.SelectRange: lambda g, o: _between(selecting.attribute(g, o.attribute), o.low, o.high),
}


def _between(values: Tensor, low: float, high: float) -> Tensor:
    return (values >= low) & (values <= high)


def _verb(operation: Operation) -> str:
    if isinstance(operation, ops.CleanUp):
        return f"cleaned up ({operation.kind}, strength {operation.strength:g})"
    return "cropped" if isinstance(operation, ops.Crop) else "deleted"


def _count(mask: Tensor) -> str:
    return _number(int(mask.sum()))


def _number(count: int) -> str:
    return f"{count:,} Gaussian{'s' * (count != 1)}"


def _tinted(state: State, preview: Tensor | None) -> Gaussians:
    """What is not hidden, the selection and a proposal in colours of their own."""
    tensors = {name: state.tensors[name] for name in PARAMETERS}
    marked = [(state.tensors["selection"], SELECTED), (preview, PROPOSED)]
    for mask, colour in marked:
        if mask is not None and bool(mask.any()):
            index = torch.nonzero(mask).squeeze(1)
            sh = tensors["sh"][index] * (1 - TINT)
            sh[:, 0] += TINT * (torch.tensor(colour) - 0.5) / SH_C0
            tensors["sh"] = tensors["sh"].index_copy(0, index, sh)
    gaussians = Gaussians(**tensors, antialiased=state.antialiased)
    hidden = state.tensors["hidden"]
    return selecting.rows(gaussians, torch.nonzero(~hidden).squeeze(1)) if bool(hidden.any()) else gaussians


def _digest(gaussians: Gaussians) -> str:
    """Tells whether a script fits: of the centres."""
    return hashlib.sha256(np.ascontiguousarray(gaussians.means.numpy()).tobytes()).hexdigest()
