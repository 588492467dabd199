"""Gaussians that a browser draws itself: they travel once, and the camera moves without a picture from the program.

Only for browsers with a graphics processor; all others, and everything that is not plain colour, keep the program's
pictures. What a browser has is less exact: half-precision shapes, eight bits of opacity and colour, and the colours
that the Gaussians have as seen from where the camera stood when they were sent.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from anchorfield.cuda_ext.spherical_harmonics import spherical_harmonics
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.types import Gaussians

if TYPE_CHECKING:
    import viser

Array = NDArray[np.float32]
NODE = "/gaussians"
BREATH, LEAST = 4.0, 0.1  # times what sending took, and seconds, until what has changed meanwhile is sent
TRAINING = 5.0  # seconds at least between two sendings of a model in training


@dataclass(frozen=True)
class Sent:
    """What travels, in the browser's units; rows of the N Gaussians."""

    centers: Array  # [N, 3]
    covariances: Array  # [N, 3, 3]
    rgbs: Array  # [N, 3] in [0, 1]
    opacities: Array  # [N, 1] in [0, 1]


@torch.no_grad()
def as_sent(gaussians: Gaussians, camera: Camera, scale: float) -> Sent:
    """The Gaussians with their colours as seen from the camera's place, at `scale` units of the browser to one."""
    everywhere = torch.ones(len(gaussians), dtype=torch.bool)
    colours = spherical_harmonics(gaussians.sh, gaussians.means, camera.centre, gaussians.sh_degree, everywhere)
    tensors = (
        scale * gaussians.means,
        scale**2 * gaussians.covariances(),
        colours.clamp(0, 1),
        gaussians.logit_opacities.sigmoid()[:, None],
    )
    return Sent(*(tensor.cpu().numpy() for tensor in tensors))


class InBrowser:
    """Keeps the browsers that draw for themselves up to date, in a thread of its own."""

    def __init__(
        self,
        make: Callable[[Camera], Sent | None],
        done: Callable[[int, Sent | None, float], None],
        training: Callable[[], bool],
    ) -> None:
        """`make` gives what a camera sees, None where that is not made of Gaussians; `done` hears of it, in seconds."""
        self._make, self._done, self._training = make, done, training
        self._wanted: dict[int, tuple[viser.ClientHandle, Camera]] = {}
        self._stale: set[int] = set()
        self._nodes: dict[int, viser.GaussianSplatHandle] = {}
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="in-browser", daemon=True)
        self._thread.start()

    def camera(self, handle: viser.ClientHandle, camera: Camera) -> bool:
        """This client draws for itself, and stands here; returns whether it did not do so before."""
        with self._changed:
            new = handle.client_id not in self._wanted
            self._wanted[handle.client_id] = handle, camera
            if new:
                self._stale.add(handle.client_id)
                self._changed.notify()
            return new

    def forget(self, client: int) -> None:
        """The client is gone, or gets pictures again."""
        with self._changed:
            self._wanted.pop(client, None)
            self._stale.discard(client)
            node = self._nodes.pop(client, None)
        if node is not None:
            node.remove()

    def refresh(self) -> None:
        """The Gaussians have changed."""
        with self._changed:
            self._stale.update(self._wanted)
            self._changed.notify()

    def close(self) -> None:
        """End the thread; waits for what it sends."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._stale)
                if self._closed:
                    return
                client = self._stale.pop()
                handle, camera = self._wanted[client]
            begin = time.monotonic()
            try:
                self._send(handle, camera)
            except Exception:  # the client may have left, the model may be none any more: the thread lives on
                traceback.print_exc()
            pause = max(LEAST, BREATH * (time.monotonic() - begin), TRAINING if self._training() else 0.0)
            with self._changed:
                self._changed.wait_for(lambda: self._closed, pause)

    def _send(self, handle: viser.ClientHandle, camera: Camera) -> None:
        begin, client = time.monotonic(), handle.client_id
        sent = self._make(camera)
        if sent is None:
            self.forget(client)
        else:
            node = handle.scene.add_gaussian_splats(NODE, **vars(sent))  # in the place of those before
            with self._changed:
                wanted = client in self._wanted
                if wanted:
                    self._nodes[client] = node
            if not wanted:  # it left meanwhile
                node.remove()
                return
        self._done(client, sent, time.monotonic() - begin)
