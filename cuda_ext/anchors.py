"""Gaussians decoded from anchors by small perceptrons (Scaffold-GS, Lu et al. 2024)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from anchorfield.cuda_ext import _kernels
from anchorfield.cuda_ext._checks import check, check_kind

MOST_OFFSETS, MOST_FEATURES = 16, 128  # of an anchor
LOGITS = 1 + 7 + 3  # of a Gaussian: opacity, covariance, colour
UNITS = (16, 32, 48, 64)  # of a head's hidden layer


class Heads(NamedTuple):
    """Perceptrons with ReLU for opacity, covariance and colour; hidden layers lie one head after the other."""

    hidden: Tensor  # [3H, D + 4] inputs: feature, direction [3], distance [1]
    hidden_bias: Tensor  # [3H], or [N, 3H] where every anchor has its own
    middle: Tensor | None  # [3, H, H] a second hidden layer, outputs by inputs
    middle_bias: Tensor | None  # [3, H]
    opacity: Tensor  # [k, H]
    opacity_bias: Tensor  # [k]
    covariance: Tensor  # [7k, H] for each offset 3 logits of scales, then a quaternion
    covariance_bias: Tensor  # [7k]
    colour: Tensor  # [3k, H]
    colour_bias: Tensor  # [3k]


class Decoded(NamedTuple):
    """The Gaussians that are kept, by row and then by offset."""

    means: Tensor  # [M, 3]
    quats: Tensor  # [M, 4] wxyz, any norm
    scales: Tensor  # [M, 3] standard deviations
    opacities: Tensor  # [M] in (0, 1]
    colours: Tensor  # [M, 3] in (0, 1)
    origin: Tensor  # [M] int32: anchor k + offset; no gradient


def decode_anchors(
    anchors: Tensor,  # [N, 3] world
    features: Tensor,  # [N, D]
    offsets: Tensor,  # [N, k, 3] in units of exp(log_scales[:, :3])
    log_scales: Tensor,  # [N, 6] of the offsets, then of the Gaussians
    heads: Heads,
    centre: Tensor,  # [3] the camera's
    rows: Tensor,  # [V] int32, the anchors to decode, ascending
    fade: Tensor | None = None,  # [N] multiplies opacities
) -> Decoded:
    """The Gaussians of the anchors in `rows`, seen from `centre`, whose opacity tanh(logit) fade is above zero.

    D is 0 to 128, k is 1 to 16, H is 16, 32, 48 or 64. Differentiable in features, offsets, scales and heads. Anchors
    are fixed points: neither they nor `centre` and `fade` have a gradient. On CUDA, `rows` is not checked.
    """
    _check(anchors, features, offsets, log_scales, heads, centre, fade)
    check_kind("rows", rows, torch.int32, ("V",), anchors.device)
    weights = [anchors.new_empty(0) if t is None else t for t in heads]
    return Decoded(*_decode_anchors(anchors, features, offsets, log_scales, weights, centre, rows, fade))


def _check(
    anchors: Tensor,
    features: Tensor,
    offsets: Tensor,
    log_scales: Tensor,
    heads: Heads,
    centre: Tensor,
    fade: Tensor | None,
) -> None:
    """Sizes that are multiples of others have letters of their own, compared at the end."""
    shapes: dict[str, tuple[int | str, ...]] = {
        "hidden": ("3H", "D + 4"),
        "hidden_bias": ("N", "3H") if heads.hidden_bias.dim() == 2 else ("3H",),
        "middle": (3, "H", "H"),
        "middle_bias": (3, "H"),
        "opacity": ("k", "H"),
        "opacity_bias": ("k",),
        "covariance": ("7k", "H"),
        "covariance_bias": ("7k",),
        "colour": ("3k", "H"),
        "colour_bias": ("3k",),
    }
    weights = {name: (tensor, shapes[name]) for name, tensor in heads._asdict().items() if tensor is not None}
    sizes = check(
        anchors=(anchors, ("N", 3)),
        features=(features, ("N", "D")),
        offsets=(offsets, ("N", "k", 3)),
        log_scales=(log_scales, ("N", 6)),
        **weights,
        centre=(centre, (3,)),
        **({} if fade is None else {"fade": (fade, ("N",))}),
    )
    d, h, k = sizes["D"], sizes["H"], sizes["k"]
    if (heads.middle is None) != (heads.middle_bias is None):
        raise ValueError("middle and middle_bias: expected both or neither, got one")
    if not (d <= MOST_FEATURES and 1 <= k <= MOST_OFFSETS and h in UNITS):
        raise ValueError(
            f"features, offsets, opacity: expected D <= {MOST_FEATURES}, k = 1 to {MOST_OFFSETS} and H in {UNITS}, "
            f"got D = {d}, k = {k}, H = {h}"
        )
    if sizes["N"] * k >= 2**31:
        raise ValueError(f"offsets: expected N k < 2^31, got N = {sizes['N']}, k = {k}")
    wanted = {"D + 4": (d + 4, "hidden, of features"), "3H": (3 * h, "hidden, of opacity")}
    wanted |= {"7k": (7 * k, "covariance, of offsets"), "3k": (3 * k, "colour, of offsets")}
    for letters, (size, names) in wanted.items():
        if sizes[letters] != size:
            raise ValueError(f"{names}: expected {letters} = {size}, got {sizes[letters]}")


@torch.library.custom_op("anchorfield::decode_anchors", mutates_args=(), device_types="cpu")
def _decode_anchors(
    anchors: Tensor,
    features: Tensor,
    offsets: Tensor,
    log_scales: Tensor,
    heads: list[Tensor],
    centre: Tensor,
    rows: Tensor,
    fade: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    arrays = _kernels.decode_anchors(*dense(anchors, features, offsets, log_scales, heads, centre, rows, fade))
    means, quats, scales, opacities, colours, origin = map(torch.from_numpy, arrays)
    return means, quats, scales, opacities, colours, origin


@_decode_anchors.register_fake
def _(anchors: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return empty_outputs(anchors, torch.library.get_ctx().new_dynamic_size())


def empty_outputs(anchors: Tensor, count: int | torch.SymInt) -> tuple[Tensor, ...]:
    """Room for what `Decoded` holds, on the anchors' device."""
    shapes = [(count, 3), (count, 4), (count, 3), (count,), (count, 3)]
    return (*(anchors.new_empty(shape) for shape in shapes), anchors.new_empty(count, dtype=torch.int32))


def dense(*arguments: Any) -> list[Any]:
    """The arguments with every tensor, in lists too, dense and without a graph."""
    return [
        a.detach().contiguous() if isinstance(a, Tensor) else dense(*a) if isinstance(a, list) else a for a in arguments
    ]


@torch.library.custom_op("anchorfield::decode_anchors_backward", mutates_args=(), device_types="cpu")
def _decode_anchors_backward(
    anchors: Tensor,
    features: Tensor,
    offsets: Tensor,
    log_scales: Tensor,
    heads: list[Tensor],
    centre: Tensor,
    rows: Tensor,
    fade: Tensor | None,
    decoded: list[Tensor],
    gradients: list[Tensor],
) -> list[Tensor]:
    inputs = dense(anchors, features, offsets, log_scales, heads, centre, rows, fade)
    outputs = [torch.empty_like(t) for t in (*inputs[1:4], *inputs[4])]
    _kernels.decode_anchors_backward(*inputs, *dense(*decoded, gradients), outputs)
    return outputs


@_decode_anchors_backward.register_fake
def _(
    anchors: Tensor, features: Tensor, offsets: Tensor, log_scales: Tensor, heads: list[Tensor], *_: Any
) -> list[Tensor]:
    return [t.new_empty(t.shape) for t in (features, offsets, log_scales, *heads)]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *first, heads, centre, rows, fade = inputs
    ctx.save_for_backward(*first, centre, rows, fade, *heads, *output[2:])
    ctx.mark_non_differentiable(output[5])
    ctx.set_materialize_grads(True)


def _backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
    saved = [None if t is None else t.detach() for t in ctx.saved_tensors]
    first, (centre, rows, fade), heads, decoded = saved[:4], saved[4:7], saved[7:-4], saved[-4:]
    inputs = (*first, heads, centre, rows, fade)
    v_features, v_offsets, v_log_scales, *v_heads = _decode_anchors_backward(*inputs, decoded, list(gradients[:5]))
    return None, v_features, v_offsets, v_log_scales, v_heads, None, None, None


_decode_anchors.register_autograd(_backward, setup_context=_setup)
