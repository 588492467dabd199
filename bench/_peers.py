"""Other programs beside ours: an image and its gradients, timed only where the image agrees with ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch

from anchorfield.cuda_ext import native
from anchorfield.renderer.metrics import psnr
from bench import _peer_gsplat, image
from bench._operations import Stages
from bench._timing import seconds_of

PEERS = (_peer_gsplat,)  # each has NAME, INSTALL, problem(), version(), image(...), gradients(...)
QUICK, REPEATS = 2.0, 3  # seconds of a run that is repeated, and how often it runs
AGREES = 45.0  # dB between a peer's image and ours, from which they show the same


@dataclass(frozen=True)
class Beside:
    """A peer's figures on one scene."""

    name: str
    psnr: float  # dB against our image
    image_ms: float
    gradients_ms: float  # image included


def missing() -> list[str]:
    """A line for each peer that cannot be measured here."""
    return [f"{peer.NAME}: {peer.problem()}" for peer in PEERS if peer.problem()]


def measured(stages: Stages) -> Iterator[Beside | str]:
    """Every peer that is installed on a scene, or why its time says nothing."""
    for peer in PEERS:
        if peer.problem():
            continue
        name = f"{peer.NAME} {peer.version()}"
        theirs = peer.image(stages.made.gaussians, stages.camera)
        with torch.no_grad():
            likeness = psnr(theirs, image.image(stages))
        if likeness < AGREES:
            yield f"{name}: not timed, its image agrees with ours to {likeness:.1f} dB only"
            continue
        times = [
            _milliseconds(partial(peer.image, stages.made.gaussians, stages.camera)),
            _milliseconds(partial(peer.gradients, stages.gaussians, stages.camera, image.upstream(stages))),
        ]
        yield Beside(name, likeness, *times)


def _milliseconds(run: Callable[[], object]) -> float:
    """The best of a few runs, with one and with all threads of torch, which may wait for each other more than gain."""
    before, times = torch.get_num_threads(), []
    for threads in {1, native.threads()}:
        torch.set_num_threads(threads)
        times.append(seconds_of(run))
        if times[-1] < QUICK:
            times += [seconds_of(run) for _ in range(REPEATS - 1)]
    torch.set_num_threads(before)
    return 1e3 * min(times)
