"""Line charts as inline SVG, drawn with the page's own colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 40
MOST_POINTS = 400

Point = tuple[float, float]


def chart(points: Sequence[Point], title: str, x_label: str, y_label: str, logarithmic: bool = False) -> str:
    """A line through `points` with ticks and axis labels; words instead where there is nothing to draw."""
    drawn = _thinned([(x, y) for x, y in points if _drawable(x, y, logarithmic)])
    heading = f"<figcaption>{escape(title)}</figcaption>"
    if not drawn:
        return f'<figure class="chart">{heading}<p>nothing was recorded</p></figure>'
    scaled = [(x, math.log10(y) if logarithmic else y) for x, y in drawn]
    x_ticks, heights = _ticks([x for x, _ in scaled]), [y for _, y in scaled]
    y_ticks = _logarithmic_ticks(heights) if logarithmic else _ticks(heights)
    horizontal = _Axis(x_ticks[0], x_ticks[-1], LEFT, WIDTH - RIGHT)
    vertical = _Axis(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    line = " ".join(f"{horizontal(x):.1f},{vertical(y):.1f}" for x, y in scaled)
    parts = [_vertical_tick(tick, vertical(tick), logarithmic) for tick in y_ticks]
    parts += [_horizontal_tick(tick, horizontal(tick)) for tick in x_ticks]
    parts.append(f'<polyline class="curve" points="{line}"/>')
    if len(scaled) <= 12:
        parts += [f'<circle class="dot" cx="{horizontal(x):.1f}" cy="{vertical(y):.1f}" r="3"/>' for x, y in scaled]
    parts.append(f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 6}" class="axis">{escape(x_label)}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<text transform="translate(13 {middle:.0f}) rotate(-90)" class="axis">{escape(y_label)}</text>')
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    return f'<figure class="chart">{heading}{svg}</figure>'


class _Axis:
    """Maps values to pixels."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self._low, self._start = low, start
        self._scale = (end - start) / (high - low)

    def __call__(self, value: float) -> float:
        return self._start + (value - self._low) * self._scale


def _drawable(x: float, y: float, logarithmic: bool) -> bool:
    return math.isfinite(x) and math.isfinite(y) and not (logarithmic and y <= 0)


def _thinned(points: Sequence[Point]) -> list[Point]:
    """At most MOST_POINTS points, means of neighbours."""
    size = -(-len(points) // MOST_POINTS) or 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def _ticks(values: Sequence[float]) -> list[float]:
    """Four to seven round numbers that enclose the values."""
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    step = 10 ** math.floor(math.log10(span / 4))
    step *= next((factor for factor in (1, 2, 5) if span / (factor * step) <= 5), 10)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [index * step for index in range(first, max(last, first + 1) + 1)]


def _logarithmic_ticks(values: Sequence[float]) -> list[float]:
    """Logarithms of 1, 2, 5, 10, ... that enclose the values; of powers of ten only, where they span many."""
    decades = range(math.floor(min(values)), math.ceil(max(values)) + 1)
    factors = (1, 2, 5) if len(decades) <= 3 else (1,)
    ticks = [decade + math.log10(factor) for decade in decades for factor in factors]
    first = max(i for i, tick in enumerate(ticks) if tick <= min(values) or i == 0)
    last = min(i for i, tick in enumerate(ticks) if tick >= max(values) or i == len(ticks) - 1)
    ticks = ticks[first : max(last, first + 1) + 1]
    if len(ticks) < 2:
        ticks = [ticks[0], ticks[0] + 1]
    return ticks[:: -(-len(ticks) // 8)] + ticks[-1:] * ((len(ticks) - 1) % -(-len(ticks) // 8) != 0)


def _number(value: float) -> str:
    if abs(value) >= 1e6:
        return f"{value / 1e6:.3g}M"
    return f"{value / 1e3:.3g}k" if abs(value) >= 1e4 else f"{value:.4g}"


def _vertical_tick(tick: float, y: float, logarithmic: bool) -> str:
    text = _number(10**tick if logarithmic else tick)
    line = f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return f'{line}<text x="{LEFT - 6}" y="{y + 4:.1f}" class="tick left">{text}</text>'


def _horizontal_tick(tick: float, x: float) -> str:
    return f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" class="tick">{_number(tick)}</text>'
