"""Plots as inline SVG: bars, histogram, lines, heat map. Plain text, no scripts, nothing loaded.

Colours and fonts come from the style sheet of the page around them (`STYLE`); `standalone` makes a file of a
plot, which brings it along. Numbers that are not finite are left out, and an empty plot is drawn where
nothing is left.
"""

import math
import re
from collections.abc import Mapping, Sequence
from html import escape

# of the drawing, in its own units; it scales with the page
WIDTH = 640
# bars: height of a row, width of the labels and of the written values
ROW, LABEL, VALUE = 24, 150, 110
# characters of a bar's label, and the width of one
LONGEST, CHARACTER = 30, 6.8
# lines: space above, of the plot itself, below, on both sides
TOP, HEIGHT, FOOT, LEFT, RIGHT = 26, 200, 54, 60, 12
# most of them to a line
POINTS = 400
# columns of a histogram that have room for their numbers
FEW = 16
COLOURS = ("#1b6ca8", "#c8553d", "#2e7d4f", "#8256a8", "#a87d1b", "#6b6b6b")

STYLE = """
svg { font: 12px system-ui, Arial, 'DejaVu Sans', 'Liberation Sans', 'Noto Sans', sans-serif; fill: currentColor } .axis { stroke: currentColor } .grid { stroke: #8884 }
.bar { fill: #4a7ab5 } .mark { stroke: #c0392b; stroke-width: 2 } .whisker { stroke: currentColor; opacity: .6 } .end { text-anchor: end }
.line { fill: none; stroke-width: 1.6 } .band { opacity: .18; stroke: none } .middle { text-anchor: middle } .title { font-weight: bold }
"""

Points = Sequence[tuple[float, float]]


def bars(
    rows: Sequence[tuple[str, float, str]],
    title: str,
    spread: Sequence[tuple[float, float]] | None = None,
    marks: Sequence[float | None] = (),
) -> str:
    """Horizontal bars, one row each: a label, a value >= 0, and how the value is written.

    `spread`: lowest and highest of each, as whiskers; `marks`: a line across a row.
    """
    largest = (
        max(
            [value for _, value, _ in rows]
            + [high for _, high in spread or ()]
            + [mark or 0 for mark in marks],
            default=0,
        )
        or 1
    )
    left = max([LABEL, *(min(LONGEST, len(label)) * CHARACTER + 8 for label, _, _ in rows)])
    scale = (WIDTH - left - VALUE) / largest
    parts = []
    for number, (label, value, written) in enumerate(rows):
        y = number * ROW
        low, high = spread[number] if spread else (value, value)
        parts.append(
            f'<text x="{left - 8:g}" y="{y + 16}" class="end">{escape(_short(label, LONGEST))}</text>'
        )
        parts.append(
            f'<rect x="{left:g}" y="{y + 4}" width="{value * scale:.1f}" height="{ROW - 8}" class="bar"/>'
        )
        if spread:
            parts.append(_line(left + low * scale, left + high * scale, y + 12, y + 12, "whisker"))
        mark = marks[number] if number < len(marks) else None
        if mark is not None:
            parts.append(_line(left + mark * scale, left + mark * scale, y + 1, y + ROW - 1, "mark"))
        parts.append(
            f'<text x="{left + max(value, high, mark or 0) * scale + 6:.1f}" y="{y + 16}">{escape(written)}</text>'
        )
    return _svg(len(rows) * ROW + 4, title, parts)


def histogram(
    counts: Sequence[int], edges: Sequence[str], title: str, mark: float | None = None, mark_label: str = ""
) -> str:
    """Columns side by side.

    `edges`: what stands below the left edge of each column, "" for nothing; `mark`: a line at that column.
    """
    height, foot = 150, 36
    largest = max(counts, default=0) or 1
    step = (WIDTH - 20) / max(1, len(counts))
    parts = []
    for number, count in enumerate(counts):
        tall = height * count / largest
        if count:
            place = f'x="{10 + number * step:.1f}" y="{20 + height - tall:.1f}" width="{max(step - 1, 0.5):.1f}" height="{tall:.1f}"'
            parts.append(f'<rect {place} class="bar"><title>{count:,}</title></rect>')
            if len(counts) <= FEW:
                parts.append(
                    f'<text x="{10 + (number + 0.5) * step:.1f}" y="{16 + height - tall:.1f}" class="middle">{count:,}</text>'
                )
    for number, edge in enumerate(edges):
        if edge:
            parts.append(f'<text x="{10 + number * step:.1f}" y="{20 + height + 16}">{escape(edge)}</text>')
    if mark is not None:
        x = 10 + mark * step
        parts.append(_line(x, x, 14, 20 + height, "mark"))
        parts.append(f'<text x="{x + 4:.1f}" y="12">{escape(mark_label)}</text>')
    parts.append(_line(10, WIDTH - 10, 20 + height, 20 + height, "axis"))
    return _svg(20 + height + foot, title, parts)


def lines(
    named: Mapping[str, Points],
    title: str,
    x_label: str = "",
    *,
    log_x: bool = False,
    log_y: bool = False,
    bands: Mapping[str, Sequence[tuple[float, float, float]]] | None = None,
) -> str:
    """One line for each name over common axes.

    `bands`: for some of the names (x, lowest, highest), shaded behind the line.

    On a logarithmic axis what is not above zero is left out.
    """
    curves = {
        name: thinned([p for p in points if _drawable(p[0], log_x) and _drawable(p[1], log_y)])
        for name, points in named.items()
    }
    shades = {
        name: [p for p in band if _drawable(p[0], log_x) and all(_drawable(y, log_y) for y in p[1:])]
        for name, band in (bands or {}).items()
    }
    every = [p for points in curves.values() for p in points] + [
        (x, y) for band in shades.values() for x, *ys in band for y in ys
    ]
    across = _Axis([x for x, _ in every], LEFT, WIDTH - RIGHT, log_x)
    up = _Axis([y for _, y in every], TOP + HEIGHT, TOP, log_y)
    parts = [f'<text x="{LEFT}" y="16" class="title">{escape(title)}</text>']
    for value, y in up.ticks():
        parts.append(_line(LEFT, WIDTH - RIGHT, y, y, "grid"))
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" class="end">{_written(value)}</text>')
    for value, x in across.ticks():
        parts.append(_line(x, x, TOP + HEIGHT, TOP + HEIGHT + 4, "axis"))
        parts.append(f'<text x="{x:.1f}" y="{TOP + HEIGHT + 17}" class="middle">{_written(value)}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{TOP + HEIGHT + 32}" class="end">{escape(x_label)}</text>')
    for number, (name, points) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        if band := shades.get(name):
            edge = [(x, high) for x, _, high in band] + [(x, low) for x, low, _ in reversed(band)]
            parts.append(f'<polygon points="{_path(edge, across, up)}" fill="{colour}" class="band"/>')
        parts.append(f'<polyline points="{_path(points, across, up)}" stroke="{colour}" class="line"/>')
        if len(points) <= 12:
            parts += [
                f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="2.5" fill="{colour}"/>' for x, y in points
            ]
    legend, rows = _legend(list(curves))
    return _svg(TOP + HEIGHT + FOOT + 16 * (rows - 1), title, parts + legend)


def heatmap(
    rows: Sequence[Sequence[float]],
    labels: Sequence[str],
    title: str,
    columns: Sequence[str] = (),
    most: float | None = None,
) -> str:
    """A cell for each value >= 0, the darker the larger; `most` is the value of the darkest (the largest by
    default).

    `labels` name the rows, `columns` what stands below each column ("" for nothing).
    """
    width = max((len(row) for row in rows), default=0) or 1
    step, tall = (WIDTH - LABEL - RIGHT) / width, 18
    most = most or max((value for row in rows for value in row if math.isfinite(value)), default=0) or 1
    parts = [f'<text x="{LABEL}" y="16" class="title">{escape(title)}</text>']
    for r, (row, label) in enumerate(zip(rows, labels, strict=True)):
        y = TOP + r * tall
        parts.append(f'<text x="{LABEL - 8}" y="{y + 13}" class="end">{escape(_short(label))}</text>')
        for c, value in enumerate(row):
            if math.isfinite(value):
                place = f'x="{LABEL + c * step:.1f}" y="{y}" width="{step:.2f}" height="{tall - 1}"'
                parts.append(
                    f'<rect {place} fill="{COLOURS[0]}" fill-opacity="{min(1, value / most):.3f}"><title>{value:.4g}</title></rect>'
                )
    for c, name in enumerate(columns):
        if name:
            parts.append(
                f'<text x="{LABEL + (c + 0.5) * step:.1f}" y="{TOP + len(rows) * tall + 14}" class="middle">{escape(name)}</text>'
            )
    return _svg(TOP + len(rows) * tall + 22, title, parts)


def standalone(svg: str) -> str:
    """The plot as the text of a file of its own, which browsers and GitHub's pages show.

    No heading stands above it: a plot without a title gets one.
    """
    svg = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(
        "<title>", f"<style>{STYLE}</style><title>", 1
    )
    if 'class="title"' not in svg:
        size, name = re.search(r'viewBox="0 0 \d+ ([\d.]+)"', svg), re.search(r"<title>(.*?)</title>", svg)
        above = f'viewBox="0 -{TOP} {WIDTH} {float(size[1]) + TOP:g}"'
        svg = svg.replace(size[0], above, 1).replace(
            name[0], f'{name[0]}<text x="10" y="-10" class="title">{name[1]}</text>', 1
        )
    return svg + "\n"


def thinned(points: Points) -> list[tuple[float, float]]:
    """At most 400 points: means of equal stretches, at the stretch's last x."""
    stretch = max(1, math.ceil(len(points) / POINTS))
    parts = [points[start : start + stretch] for start in range(0, len(points), stretch)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]


class _Axis:
    """From values to places in the drawing, along one direction."""

    def __init__(self, values: Sequence[float], begin: float, end: float, log: bool) -> None:
        self.log, self.begin, self.end = log, begin, end
        self.low, self.high = (min(values), max(values)) if values else (1.0, 1.0)
        if self.low == self.high:
            pad = max(0.5, 0.01 * abs(self.low))
            self.low, self.high = (self.low / 2, self.high * 2) if log else (self.low - pad, self.high + pad)
        # steps, layers: nothing stands between them
        self.whole = all(value == int(value) for value in values)

    def __call__(self, value: float) -> float:
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.begin + (self.end - self.begin) * (value - low) / (high - low)

    def ticks(self) -> list[tuple[float, float]]:
        """Round values within the axis, and their places: 1, 2 and 5 times powers of ten, about five of them."""
        values = self._inside(self._powers()) if self.log else []
        return [
            (value, self(value)) for value in (values if len(values) > 1 else self._inside(self._steps()))
        ]

    def _powers(self) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        every = max(1, len(powers) // 6)
        return [
            digit * 10.0**power
            for power in powers[::every]
            for digit in ((1, 2, 5) if len(powers) < 5 else (1,))
        ]

    def _steps(self) -> list[float]:
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = power * min((1, 2, 5, 10), key=lambda digit: abs(digit - rough / power))
        if self.whole:
            step = max(1.0, step)
        return [
            step * number for number in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)
        ]

    def _inside(self, values: Sequence[float]) -> list[float]:
        return [value for value in values if self.low <= value <= self.high]


def _path(points: Points, across: _Axis, up: _Axis) -> str:
    return " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)


def _legend(names: list[str]) -> tuple[list[str], int]:
    """The names in their lines' colours, beside each other, and how many rows they take."""
    parts, x, row = [], LEFT, 0
    for number, name in enumerate(names):
        width = 20 + 7 * len(name)
        if x > LEFT and x + width > WIDTH:
            x, row = LEFT, row + 1
        y = TOP + HEIGHT + FOOT - 6 + 16 * row
        parts.append(f'<text x="{x}" y="{y}" fill="{COLOURS[number % len(COLOURS)]}">{escape(name)}</text>')
        x += width
    return parts, row + 1


def _drawable(value: float, log: bool) -> bool:
    return math.isfinite(value) and (value > 0 or not log)


def _written(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:.3g}"


def _line(x_1: float, x_2: float, y_1: float, y_2: float, kind: str) -> str:
    return f'<line x1="{x_1:.1f}" x2="{x_2:.1f}" y1="{y_1:.1f}" y2="{y_2:.1f}" class="{kind}"/>'


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    name = escape(title)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{name}"><title>{name}</title>{"".join(parts)}</svg>'


def _short(label: str, most: int = 20) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"
