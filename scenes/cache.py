"""A bounded store of decoded images: least recently used tensors go first, counted in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock

from torch import Tensor


class TensorCache:
    """Keeps made tensors up to `capacity` bytes. Safe to use from several threads; returned tensors are shared."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._held: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    @property
    def bytes(self) -> int:
        """What the kept tensors occupy."""
        return self._bytes

    def get(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """The tensor of `key`, made now if it is not kept."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        # Made outside the lock: two threads may decode the same image once each, but never wait for each other's.
        made = make()
        with self._lock:
            self._keep(key, made)
        return made

    def _keep(self, key: Hashable, tensor: Tensor) -> None:
        if key in self._held or tensor.nbytes > self.capacity:
            return
        self._held[key] = tensor
        self._bytes += tensor.nbytes
        while self._bytes > self.capacity:
            _, dropped = self._held.popitem(last=False)
            self._bytes -= dropped.nbytes
