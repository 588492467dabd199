"""Decoding of anchors on a CUDA device."""

from __future__ import annotations

import torch
from torch import Tensor

from anchorfield.cuda_ext import anchors
from anchorfield.cuda_ext.cuda import launch


def _anchor_inputs(
    points: Tensor,
    features: Tensor,
    offsets: Tensor,
    log_scales: Tensor,
    heads: list[Tensor],
    centre: Tensor,
    rows: Tensor,
    fade: Tensor | None,
) -> tuple[list[Tensor], Tensor]:
    """What every part of decoding begins with: the arrays of numbers, and the rows."""
    fade = points.new_empty(0) if fade is None else fade
    return launch.dense(points, features, offsets, log_scales, centre, fade, *heads), rows.contiguous()


def _anchor_scratch(inputs: list[Tensor], rows: Tensor, backward: bool) -> Tensor:
    return inputs[0].new_empty(launch.native.anchor_scratch(*launch.capsules((inputs, rows)), backward))


def decode_anchors(
    points: Tensor,
    features: Tensor,
    offsets: Tensor,
    log_scales: Tensor,
    heads: list[Tensor],
    centre: Tensor,
    rows: Tensor,
    fade: Tensor | None,
) -> tuple[Tensor, ...]:
    """The tensors of `anchors.Decoded`. The host waits for their number."""
    if rows.shape[0] == 0:
        return anchors.empty_outputs(points, 0)
    inputs, rows = _anchor_inputs(points, features, offsets, log_scales, heads, centre, rows, fade)
    ranks = rows.new_empty((rows.shape[0], offsets.shape[1]))
    logits = points.new_empty((ranks.numel(), anchors.LOGITS))
    totals = rows.new_empty(2, dtype=torch.int64)
    with launch.queue(points.device):
        scan = rows.new_empty(launch.native.anchor_scan_bytes(ranks.numel()), dtype=torch.uint8)
    launch.run("decode_logits", inputs, rows, logits, ranks, totals, scan, _anchor_scratch(inputs, rows, False))
    outputs = anchors.empty_outputs(points, launch.read_back(totals)()[0])
    launch.run("write_gaussians", inputs, rows, logits, ranks, *outputs)
    return outputs


def decode_anchors_backward(
    points: Tensor,
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
    """Gradients to features, offsets, scales and heads."""
    inputs, rows = _anchor_inputs(points, features, offsets, log_scales, heads, centre, rows, fade)
    outputs = [t.new_zeros(t.shape) for t in (features, offsets, log_scales, *heads)]
    scratch = _anchor_scratch(inputs, rows, True)
    launch.run(
        "decode_anchors_backward", inputs, rows, *launch.dense(*decoded), launch.dense(*gradients), outputs, scratch
    )
    return outputs


IMPLEMENTATIONS: launch.Implementations = {
    anchors._decode_anchors: decode_anchors,
    anchors._decode_anchors_backward: decode_anchors_backward,
}
