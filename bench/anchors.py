"""Decoding of anchors as Scaffold-GS has them: 6,976 multiply-adds, backward 13,568, where one keeps Gaussians."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from anchorfield.cuda_ext.anchors import Heads, decode_anchors
from bench import _table
from bench._operations import FLOAT, Operation, Stages, backward, forward

MOST = 100_000  # anchors in view: what they decode into would not fit beside the largest scenes
D, K, H = 32, 10, 32  # features and offsets of an anchor, units of a head
LOGITS = 11 * K
ANCHOR, GAUSSIAN = 6 + 3 * K, 3 + 4 + 3 + 1 + 3 + 1  # numbers of an anchor besides its feature, and of what comes out


def operations(stages: Stages) -> Iterator[Operation]:
    """Decoding forward and backward; hidden layers that backward computes again are not part of its floor."""
    visible = min(stages.count, MOST)
    inputs, heads = drawn(visible)
    weights = [weight for weight in heads if weight is not None]
    leaves = (inputs["features"], inputs["offsets"], inputs["log_scales"], *weights)
    decoded = decode_anchors(**inputs, heads=heads)
    count, keeping = len(decoded.means), len((decoded.origin // K).unique())
    yield Operation(
        "decoding",
        forward(lambda: decode_anchors(**inputs, heads=heads)),
        visible * (D + 4 + K) * H + keeping * (2 * (D + 4) + LOGITS - K) * H,
        FLOAT * (visible * (3 + D) + keeping * ANCHOR + count * GAUSSIAN),
    )
    yield Operation(
        "decoding backward",
        backward(decoded[:5], leaves),
        keeping * (2 * LOGITS + (2 * D + 4) * 3) * H,
        FLOAT * (keeping * (3 + D + ANCHOR) + count * (8 + GAUSSIAN - 1) + len(inputs["anchors"]) * (D + ANCHOR)),
    )


def drawn(visible: int) -> tuple[dict[str, Tensor], Heads]:
    """Anchors of which four in five are in view and half of the Gaussians are kept; leaves that want gradients."""
    g = torch.Generator().manual_seed(0)
    anchors = visible * 5 // 4

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(*shape, generator=g)).requires_grad_()

    ends = [normal(*shape, scale=0.2) for outputs in (K, 7 * K, 3 * K) for shape in ((outputs, H), (outputs,))]
    heads = Heads(normal(3 * H, D + 4, scale=0.2), normal(3 * H, scale=0.1), None, None, *ends)
    inputs = {
        "anchors": normal(anchors, 3).detach(),
        "features": normal(anchors, D),
        "offsets": normal(anchors, K, 3),
        "log_scales": normal(anchors, 6),
        "centre": torch.zeros(3),
        "rows": torch.randperm(anchors, generator=g)[:visible].sort().values.to(torch.int32),
    }
    return inputs, heads


if __name__ == "__main__":
    _table.main(operations)
