"""What a view can show besides colour: frames into pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from anchorfield.app.pictures import Pixels, pixels
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.types import Frame

Mode = Literal["rgb", "depth", "normal", "alpha", "error", "count"]
MODES: tuple[Mode, ...] = ("rgb", "depth", "normal", "alpha", "error", "count")


@dataclass(frozen=True)
class Look:
    """How a client wants to see the scene."""

    mode: Mode = "rgb"
    depth: bool = True  # send the depth along: what viser draws itself is hidden behind the scene


def stacked(strips: Sequence[Frame]) -> Frame:
    """One frame of strips from top to bottom."""
    if len(strips) == 1:
        return strips[0]
    extras = {name: _joined([strip.extras[name] for strip in strips]) for name in strips[0].extras}
    rgb, alpha, depth = (torch.cat([getattr(strip, name) for strip in strips]) for name in ("rgb", "alpha", "depth"))
    return Frame(rgb, alpha, depth, extras)


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    """Parts of a picture put together; a number of the whole frame is the same in all."""
    return torch.cat(parts) if parts[0].dim() else parts[0]


def painted(frame: Frame, camera: Camera, look: Look) -> Pixels:
    """The pixels that `look` asks for."""
    return pixels(frame.rgb)
