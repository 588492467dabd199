"""Gaussians decoded from anchors, one anchor after the other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def hidden_units(x: Tensor, anchor: int, heads: Any) -> list[Tensor]:
    """The units of the hidden layers of each of the three heads, before ReLU: those of one layer, or of two."""
    bias = heads.hidden_bias if heads.hidden_bias.ndim == 1 else heads.hidden_bias[anchor]
    layers = list((heads.hidden @ x + bias).chunk(3))
    if heads.middle is not None:
        layers += [heads.middle[i] @ layers[i].relu() + heads.middle_bias[i] for i in range(3)]
    return layers


def margin(anchors: Tensor, features: Tensor, heads: Any, centre: Tensor) -> Tensor:
    """How far the nearest of an anchor's hidden units and opacities is from zero, where decisions change, [N]."""
    least = []
    for anchor in range(len(anchors)):
        units = hidden_units(network_input(anchors[anchor], features[anchor], centre), anchor, heads)
        logits = heads.opacity @ units[-3].relu() + heads.opacity_bias
        least.append(torch.cat([*units, logits]).abs().min())
    return torch.stack(least) if least else anchors.new_empty(0)


def network_input(anchor: Tensor, feature: Tensor, centre: Tensor) -> Tensor:
    """Feature, direction and distance, [D + 4]."""
    sight = anchor - centre
    distance = sight.norm()
    return torch.cat([feature, sight / distance, distance[None]])


def decode_anchors(
    anchors: Tensor,
    features: Tensor,
    offsets: Tensor,
    log_scales: Tensor,
    heads: Any,
    centre: Tensor,
    rows: Tensor,
    fade: Tensor | None = None,
) -> dict[str, Tensor]:
    """As `anchors.decode_anchors`, the fields of `Decoded` by name."""
    k = offsets.shape[1]
    # begun with no Gaussians, so that the results belong to the graph even so
    means, quats, scales = [offsets[:0, 0]], [heads.covariance[:0, :4]], [log_scales[:0, :3]]
    opacities, colours, origin = [heads.opacity_bias[:0]], [heads.colour[:0, :3]], [rows[:0]]
    for anchor in rows.tolist():
        x = network_input(anchors[anchor], features[anchor], centre)
        opacity_units, covariance_units, colour_units = (u.relu() for u in hidden_units(x, anchor, heads)[-3:])
        opacity = (heads.opacity @ opacity_units + heads.opacity_bias).tanh()
        if fade is not None:
            opacity = opacity * fade[anchor]
        keep = opacity.detach() > 0
        covariance = (heads.covariance @ covariance_units + heads.covariance_bias).reshape(k, 7)[keep]
        colour = (heads.colour @ colour_units + heads.colour_bias).reshape(k, 3)[keep]
        means.append(anchors[anchor] + offsets[anchor, keep] * log_scales[anchor, :3].exp())
        scales.append(log_scales[anchor, 3:].exp() * covariance[:, :3].sigmoid())
        quats.append(covariance[:, 3:])
        opacities.append(opacity[keep])
        colours.append(colour.sigmoid())
        origin.append(anchor * k + keep.nonzero()[:, 0].to(torch.int32))
    names = ("means", "quats", "scales", "opacities", "colours", "origin")
    lists = (means, quats, scales, opacities, colours, origin)
    return {name: torch.cat(parts) for name, parts in zip(names, lists, strict=True)}
