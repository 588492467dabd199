"""What an editor holds, and changes to it that can be taken back bit for bit.

A state is never changed in place: whoever draws one while another comes to be sees it whole. A change keeps only what
it removed or replaced, masks as compressed bits.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from anchorfield.renderer.types import PARAMETERS, Gaussians

MASKS = ("selection", "hidden", "locked")
"""What an editor knows of every Gaussian beside its parameters."""


@dataclass(frozen=True)
class State:
    """Gaussians as edited, row by row with their masks, and those that were taken out."""

    tensors: Mapping[str, Tensor]  # PARAMETERS and MASKS
    antialiased: bool
    layers: Mapping[str, Gaussians]

    @classmethod
    def of(cls, gaussians: Gaussians) -> State:
        """All Gaussians, none selected, hidden or locked."""
        tensors = {name: getattr(gaussians, name).detach().cpu().float().contiguous() for name in PARAMETERS}
        masks = {name: torch.zeros(len(gaussians), dtype=torch.bool) for name in MASKS}
        return cls(tensors | masks, gaussians.antialiased, {})

    def __len__(self) -> int:
        return len(self.tensors["means"])

    @property
    def gaussians(self) -> Gaussians:
        """All of them, hidden ones included."""
        return Gaussians(**{name: self.tensors[name] for name in PARAMETERS}, antialiased=self.antialiased)

    @property
    def free(self) -> Tensor:
        """What can be selected and changed, bool [N]."""
        return ~(self.tensors["hidden"] | self.tensors["locked"])


class Change(Protocol):
    """Something done to a state that can be undone and done again."""

    def forward(self, state: State) -> State:
        """The state after."""
        ...

    def backward(self, state: State) -> State:
        """The state before, bit for bit."""
        ...

    @property
    def bytes(self) -> int:
        """Memory that the change holds."""
        ...


@dataclass(frozen=True)
class Flip:
    """Another mask."""

    name: str
    packed: bytes  # where it differs

    @classmethod
    def to(cls, state: State, name: str, mask: Tensor) -> Flip:
        """The change that makes a mask of `state` become `mask`."""
        return cls(name, packed(state.tensors[name] ^ mask))

    def forward(self, state: State) -> State:
        """Flip the bits."""
        mask = state.tensors[self.name]
        return _with(state, {self.name: mask ^ unpacked(self.packed, len(mask))})

    backward = forward

    @property
    def bytes(self) -> int:
        """Of the compressed bits."""
        return len(self.packed)


@dataclass
class Remove:
    """Rows are gone; kept here until they come back."""

    packed: bytes  # which
    kept: dict[str, Tensor] = field(default_factory=dict)

    def forward(self, state: State) -> State:
        """Take the rows out."""
        mask = unpacked(self.packed, len(state))
        gone, staying = torch.nonzero(mask).squeeze(1), torch.nonzero(~mask).squeeze(1)
        self.kept = {name: values[gone] for name, values in state.tensors.items()}
        return _with(state, {name: values.index_select(0, staying) for name, values in state.tensors.items()})

    def backward(self, state: State) -> State:
        """Put them back where they were."""
        mask = unpacked(self.packed, len(state) + len(self.kept["means"]))
        gone, staying = torch.nonzero(mask).squeeze(1), torch.nonzero(~mask).squeeze(1)
        whole = {}
        for name, values in state.tensors.items():
            whole[name] = values.new_empty((len(mask), *values.shape[1:]))
            whole[name].index_copy_(0, staying, values)
            whole[name].index_copy_(0, gone, self.kept[name])
        self.kept = {}
        return _with(state, whole)

    @property
    def bytes(self) -> int:
        """Of the rows."""
        return len(self.packed) + _bytes(self.kept)


@dataclass
class Append:
    """Rows are added at the end."""

    added: dict[str, Tensor]

    def forward(self, state: State) -> State:
        """Add them."""
        return _with(state, {name: torch.cat([values, self.added[name]]) for name, values in state.tensors.items()})

    def backward(self, state: State) -> State:
        """Cut them off."""
        count = len(state) - len(self.added["means"])
        return _with(state, {name: values[:count].clone() for name, values in state.tensors.items()})

    @property
    def bytes(self) -> int:
        """Of the rows."""
        return _bytes(self.added)


@dataclass
class Overwrite:
    """Rows have other values; what they had is kept, for an inverse would round."""

    packed: bytes  # which
    other: dict[str, Tensor]  # values of these rows that the state does not have now

    def forward(self, state: State) -> State:
        """Exchange the values."""
        index = torch.nonzero(unpacked(self.packed, len(state))).squeeze(1)
        changed, before = {}, {}
        for name, values in self.other.items():
            before[name] = state.tensors[name][index]
            changed[name] = state.tensors[name].index_copy(0, index, values)
        self.other = before
        return _with(state, changed)

    backward = forward

    @property
    def bytes(self) -> int:
        """Of the values."""
        return len(self.packed) + _bytes(self.other)


@dataclass(frozen=True)
class SetLayer:
    """Gaussians kept aside under a name come or go."""

    name: str
    before: Gaussians | None
    after: Gaussians | None

    def forward(self, state: State) -> State:
        """As after."""
        return self._put(state, self.after)

    def backward(self, state: State) -> State:
        """As before."""
        return self._put(state, self.before)

    def _put(self, state: State, gaussians: Gaussians | None) -> State:
        others = {name: layer for name, layer in state.layers.items() if name != self.name}
        return replace(state, layers=others | ({self.name: gaussians} if gaussians else {}))

    @property
    def bytes(self) -> int:
        """Of the Gaussians."""
        held = [gaussians for gaussians in (self.before, self.after) if gaussians is not None]
        return sum(getattr(gaussians, name).nbytes for gaussians in held for name in PARAMETERS)


def packed(mask: Tensor) -> bytes:
    """A mask [N] in few bytes."""
    return zlib.compress(np.packbits(mask.numpy()).tobytes(), 1)


def unpacked(bits: bytes, count: int) -> Tensor:
    """The mask [count] of `packed`."""
    flags = np.unpackbits(np.frombuffer(zlib.decompress(bits), np.uint8), count=count)
    return torch.from_numpy(flags.view(np.bool_))


def _with(state: State, tensors: Mapping[str, Tensor]) -> State:
    return replace(state, tensors={**state.tensors, **tensors})


def _bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(values.nbytes for values in tensors.values())
