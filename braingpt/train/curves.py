"""Curves of a run as one SVG drawing that stands alone: plain text that every browser and GitHub's pages show, without a plotting library."""

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT, LEFT, FOOT, TOP = 640, 260, 56, 34, 26
COLOURS = ("#1b6ca8", "#c8553d", "#2e7d4f", "#8256a8", "#a87d1b", "#555555")
POINTS = 400  # most of them to a curve

Points = Sequence[tuple[float, float]]


def curves(named: dict[str, Points], title: str) -> str:
    """One line for each name over a common x (steps); values that are not finite are left out. An empty drawing where there is none."""
    lines = {name: thinned([(x, y) for x, y in points if math.isfinite(y)]) for name, points in named.items()}
    every = [point for points in lines.values() for point in points] or [(0.0, 0.0)]
    (x_0, x_1), (y_0, y_1) = ((min(values), max(values)) for values in zip(*every, strict=True))
    across, up = (WIDTH - LEFT - 12) / ((x_1 - x_0) or 1), (HEIGHT - TOP - FOOT) / ((y_1 - y_0) or 1)
    parts = [f'<text x="{LEFT}" y="16" font-weight="bold">{escape(title)}</text>']
    for value in (y_0, (y_0 + y_1) / 2, y_1):
        y = HEIGHT - FOOT - (value - y_0) * up
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 12}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - FOOT + 16}">{x_0:,.0f}</text>')
    parts.append(f'<text x="{WIDTH - 12}" y="{HEIGHT - FOOT + 16}" text-anchor="end">step {x_1:,.0f}</text>')
    for number, (name, points) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{LEFT + (x - x_0) * across:.1f},{HEIGHT - FOOT - (y - y_0) * up:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<text x="{LEFT + 120 * number}" y="{HEIGHT - 4}" fill="{colour}">{escape(name)}</text>')
    style = 'font-family="sans-serif" font-size="11"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {style}>{"".join(parts)}</svg>\n'


def thinned(points: Points) -> list[tuple[float, float]]:
    """At most 400 points: means of equal stretches, at the stretch's last x."""
    stretch = max(1, math.ceil(len(points) / POINTS))
    parts = [points[start : start + stretch] for start in range(0, len(points), stretch)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]
