"""Checks at the border of every operation: each message says what was expected and what came."""

from __future__ import annotations

import torch
from torch import Tensor

_FLOATS = (torch.float32, torch.float64)


def check(**arguments: tuple[Tensor, tuple[int | str, ...]]) -> dict[str, int]:
    """Bind the shapes of the named tensors, e.g. `means=(means, ("N", 3))`, and return the sizes letters stand for.

    All tensors must be on one device and of one floating type; raises TypeError or ValueError otherwise.
    """
    sizes: dict[str, int] = {}
    names: dict[str, str] = {}
    first_name, (first, _) = next(iter(arguments.items()))
    for name, (tensor, shape) in arguments.items():
        if tensor.dtype not in _FLOATS:
            raise TypeError(f"{name}: expected float32 or float64, got {_kind(tensor)}")
        if tensor.dtype != first.dtype or tensor.device != first.device:
            raise TypeError(f"{name}: expected {_kind(first)} as {first_name} is, got {_kind(tensor)}")
        if tensor.dim() != len(shape):
            raise ValueError(f"{name}: expected shape {_show(shape)}, got {_show(tuple(tensor.shape))}")
        for wanted, got in zip(shape, tensor.shape, strict=True):
            known = sizes.get(wanted) if isinstance(wanted, str) else wanted
            if known is not None and got != known:
                where = f" ({wanted} = {known} from {names[wanted]})" if isinstance(wanted, str) else ""
                raise ValueError(f"{name}: expected shape {_show(shape)}{where}, got {_show(tuple(tensor.shape))}")
            if isinstance(wanted, str):
                sizes.setdefault(wanted, got)
                names.setdefault(wanted, name)
    return sizes


def check_kind(
    name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int | str, ...], device: torch.device
) -> None:
    """Require a tensor of one type and `shape` on `device`; a letter stands for any size."""
    if tensor.dtype != dtype or tensor.device != device:
        raise TypeError(f"{name}: expected {str(dtype).removeprefix('torch.')} on {device}, got {_kind(tensor)}")
    sizes = zip(shape, tensor.shape, strict=False)
    if tensor.dim() != len(shape) or any(wanted != got for wanted, got in sizes if isinstance(wanted, int)):
        raise ValueError(f"{name}: expected shape {_show(shape)}, got {_show(tuple(tensor.shape))}")


def check_size(width: int, height: int) -> None:
    """Require an image of at least one pixel and less than 2^15 pixels a side."""
    if not (0 < width < 32768 and 0 < height < 32768):
        raise ValueError(f"image: expected 1 to 32767 pixels a side, got {width}x{height}")


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} on {tensor.device}"


def _show(shape: tuple[int | str, ...]) -> str:
    return "[" + ", ".join(str(size) for size in shape) + "]"
