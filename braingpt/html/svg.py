"""Plots as inline SVG: bars, histogram, lines, heat map. Plain text, no scripts, nothing loaded.

Colours and fonts come from the style sheet of the page around a plot (`STYLE`).
`standalone` makes a file of a plot, which brings the style sheet along.
Numbers that are not finite are left out, and a plot without numbers is drawn empty.
"""

import math
import re
from collections.abc import Mapping, Sequence
from html import escape

from braingpt.html.axis import Axis

# Width of a plot in its own units; a page scales the plot to its column.
WIDTH = 640
# Bars: height of a row, least width of the labels, width of the written values.
BAR_ROW, LABEL_WIDTH, VALUE_WIDTH = 24, 150, 110
# Bars: characters of a label at most, and the width of a character.
LABEL_CHARACTERS, CHARACTER_WIDTH = 30, 6.8
# Histogram: height of the columns, space below, columns up to which each carries its number.
HISTOGRAM_HEIGHT, HISTOGRAM_BOTTOM, FEW_COLUMNS = 150, 36, 16
# Heat map: height of a row, characters of a row's label at most.
HEATMAP_ROW, HEATMAP_CHARACTERS = 18, 20
# Lines: height of the plot itself, and the space around it.
HEIGHT, TOP, BOTTOM, LEFT, RIGHT = 200, 26, 54, 60, 12
# Lines: points at most, and points up to which each is marked.
MAX_POINTS, FEW_POINTS = 400, 12
# Legend: height of a row, width of a character.
LEGEND_ROW, LEGEND_CHARACTER = 16, 7
COLOURS = ("#1b6ca8", "#c8553d", "#2e7d4f", "#8256a8", "#a87d1b", "#6b6b6b")

STYLE = """
svg { font: 12px system-ui, Arial, 'DejaVu Sans', 'Liberation Sans', 'Noto Sans', sans-serif }
svg { fill: currentColor } .axis { stroke: currentColor } .grid { stroke: #8884 }
.bar { fill: #4a7ab5 } .mark { stroke: #c0392b; stroke-width: 2 }
.whisker { stroke: currentColor; opacity: .6 } .end { text-anchor: end } .middle { text-anchor: middle }
.line { fill: none; stroke-width: 1.6 } .band { opacity: .18; stroke: none } .title { font-weight: bold }
"""

Points = Sequence[tuple[float, float]]


def bars(
    rows: Sequence[tuple[str, float, str]],
    title: str,
    spread: Sequence[tuple[float, float]] | None = None,
    marks: Sequence[float | None] = (),
) -> str:
    """Horizontal bars.

    Args:
        rows: For each bar its label, its value >= 0, and the value as it is written.
        title: What the plot shows, for screen readers and for `standalone`.
        spread: Lowest and highest value of each bar, drawn as whiskers.
        marks: Value at which a line crosses the bar; None for no line.

    Returns:
        An `svg` element.
    """
    values = [value for _, value, _ in rows]
    largest = max([*values, *(high for _, high in spread or ()), *(mark or 0 for mark in marks)], default=0)
    widest = (min(LABEL_CHARACTERS, len(label)) * CHARACTER_WIDTH + 8 for label, _, _ in rows)
    left = max([LABEL_WIDTH, *widest])
    scale = (WIDTH - left - VALUE_WIDTH) / (largest or 1)
    parts = []
    for number, (label, value, written) in enumerate(rows):
        y = number * BAR_ROW
        low, high = spread[number] if spread else (value, value)
        parts.append(_text(f"{left - 8:g}", f"{y + 16}", _shortened(label, LABEL_CHARACTERS), "end"))
        parts.append(
            f'<rect x="{left:g}" y="{y + 4}" width="{value * scale:.1f}" height="{BAR_ROW - 8}" class="bar"/>'
        )
        if spread:
            parts.append(_line(left + low * scale, left + high * scale, y + 12, y + 12, "whisker"))
        mark = marks[number] if number < len(marks) else None
        if mark is not None:
            x = left + mark * scale
            parts.append(_line(x, x, y + 1, y + BAR_ROW - 1, "mark"))
        parts.append(_text(f"{left + max(value, high, mark or 0) * scale + 6:.1f}", f"{y + 16}", written))
    return _svg(len(rows) * BAR_ROW + 4, title, parts)


def histogram(
    counts: Sequence[int], edges: Sequence[str], title: str, mark: float | None = None, mark_label: str = ""
) -> str:
    """Columns side by side.

    Args:
        counts: Height of each column.
        edges: What is written below the left edge of each column; "" for nothing.
        title: What the plot shows.
        mark: Number of the column at whose left edge a line is drawn, fractions allowed.
        mark_label: What is written above that line.

    Returns:
        An `svg` element.
    """
    largest = max(counts, default=0) or 1
    step = (WIDTH - 20) / max(1, len(counts))
    parts = []
    for number, count in enumerate(counts):
        if not count:
            continue
        x, tall = 10 + number * step, HISTOGRAM_HEIGHT * count / largest
        y = 20 + HISTOGRAM_HEIGHT - tall
        box = f'x="{x:.1f}" y="{y:.1f}" width="{max(step - 1, 0.5):.1f}" height="{tall:.1f}"'
        parts.append(f'<rect {box} class="bar"><title>{count:,}</title></rect>')
        if len(counts) <= FEW_COLUMNS:
            middle = f"{10 + (number + 0.5) * step:.1f}"
            parts.append(_text(middle, f"{16 + HISTOGRAM_HEIGHT - tall:.1f}", f"{count:,}", "middle"))
    for number, edge in enumerate(edges):
        if edge:
            parts.append(_text(f"{10 + number * step:.1f}", f"{20 + HISTOGRAM_HEIGHT + 16}", edge))
    if mark is not None:
        x = 10 + mark * step
        parts.append(_line(x, x, 14, 20 + HISTOGRAM_HEIGHT, "mark"))
        parts.append(_text(f"{x + 4:.1f}", "12", mark_label))
    parts.append(_line(10, WIDTH - 10, 20 + HISTOGRAM_HEIGHT, 20 + HISTOGRAM_HEIGHT, "axis"))
    return _svg(20 + HISTOGRAM_HEIGHT + HISTOGRAM_BOTTOM, title, parts)


def lines(
    named: Mapping[str, Points],
    title: str,
    x_label: str = "",
    *,
    log_x: bool = False,
    log_y: bool = False,
    bands: Mapping[str, Sequence[tuple[float, float, float]]] | None = None,
) -> str:
    """One line for each name, over common axes.

    Args:
        named: Points (x, y) of each line.
        title: What the plot shows, written above it.
        x_label: What is written below the horizontal axis.
        log_x: Whether the horizontal axis is logarithmic, without what is not above zero.
        log_y: The same for the vertical axis.
        bands: For some of the names (x, lowest, highest), shaded behind the line.

    Returns:
        An `svg` element.
    """
    curves = {
        name: downsampled([p for p in points if _drawable(p[0], log_x) and _drawable(p[1], log_y)])
        for name, points in named.items()
    }
    shades = {
        name: [p for p in band if _drawable(p[0], log_x) and all(_drawable(y, log_y) for y in p[1:])]
        for name, band in (bands or {}).items()
    }
    drawn = [p for points in curves.values() for p in points]
    drawn += [(x, y) for band in shades.values() for x, *ys in band for y in ys]
    across = Axis([x for x, _ in drawn], LEFT, WIDTH - RIGHT, log_x)
    up = Axis([y for _, y in drawn], TOP + HEIGHT, TOP, log_y)
    parts = [_text(f"{LEFT}", "16", title, "title"), *_axes(across, up, x_label)]
    for number, (name, points) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        if band := shades.get(name):
            edge = [(x, high) for x, _, high in band] + [(x, low) for x, low, _ in reversed(band)]
            parts.append(f'<polygon points="{_path(edge, across, up)}" fill="{colour}" class="band"/>')
        parts.append(f'<polyline points="{_path(points, across, up)}" stroke="{colour}" class="line"/>')
        if len(points) <= FEW_POINTS:
            parts += [
                f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="2.5" fill="{colour}"/>' for x, y in points
            ]
    legend, rows = _legend(list(curves))
    return _svg(TOP + HEIGHT + BOTTOM + LEGEND_ROW * (rows - 1), title, parts + legend)


def heatmap(
    rows: Sequence[Sequence[float]],
    labels: Sequence[str],
    title: str,
    columns: Sequence[str] = (),
    darkest: float | None = None,
) -> str:
    """A cell for each value, the darker the larger.

    Args:
        rows: Values >= 0.
        labels: Name of each row.
        title: What the plot shows, written above it.
        columns: What is written below each column; "" for nothing.
        darkest: Value of the darkest cell; by default the largest value.

    Returns:
        An `svg` element.
    """
    width = max((len(row) for row in rows), default=0) or 1
    step = (WIDTH - LABEL_WIDTH - RIGHT) / width
    finite = (value for row in rows for value in row if math.isfinite(value))
    darkest = darkest or max(finite, default=0) or 1
    parts = [_text(f"{LABEL_WIDTH}", "16", title, "title")]
    for r, (row, label) in enumerate(zip(rows, labels, strict=True)):
        y = TOP + r * HEATMAP_ROW
        parts.append(_text(f"{LABEL_WIDTH - 8}", f"{y + 13}", _shortened(label, HEATMAP_CHARACTERS), "end"))
        for c, value in enumerate(row):
            if math.isfinite(value):
                box = (
                    f'x="{LABEL_WIDTH + c * step:.1f}" y="{y}" width="{step:.2f}" height="{HEATMAP_ROW - 1}"'
                )
                shade = f'fill="{COLOURS[0]}" fill-opacity="{min(1, value / darkest):.3f}"'
                parts.append(f"<rect {box} {shade}><title>{value:.4g}</title></rect>")
    below = TOP + len(rows) * HEATMAP_ROW
    for c, name in enumerate(columns):
        if name:
            parts.append(_text(f"{LABEL_WIDTH + (c + 0.5) * step:.1f}", f"{below + 14}", name, "middle"))
    return _svg(below + 22, title, parts)


def standalone(svg: str) -> str:
    """The plot as the text of an SVG file, which browsers and GitHub's pages show.

    A file has no heading above the plot, so a plot without a written title gets one.
    """
    svg = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    svg = svg.replace("<title>", f"<style>{STYLE}</style><title>", 1)
    if 'class="title"' not in svg:
        svg = re.sub(
            r'viewBox="0 0 \d+ ([\d.]+)"',
            lambda size: f'viewBox="0 -{TOP} {WIDTH} {float(size[1]) + TOP:g}"',
            svg,
            count=1,
        )
        svg = re.sub(
            r"<title>(.*?)</title>",
            lambda name: f'{name[0]}<text x="10" y="-10" class="title">{name[1]}</text>',
            svg,
            count=1,
        )
    return svg + "\n"


def downsampled(points: Points) -> list[tuple[float, float]]:
    """At most `MAX_POINTS` points: means of equally long stretches, at each stretch's last x."""
    stretch = max(1, math.ceil(len(points) / MAX_POINTS))
    stretches = [points[start : start + stretch] for start in range(0, len(points), stretch)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in stretches]


def _axes(across: Axis, up: Axis, x_label: str) -> list[str]:
    """Grid, ticks and their values."""
    floor = TOP + HEIGHT
    parts = []
    for value, y in up.ticks():
        parts.append(_line(LEFT, WIDTH - RIGHT, y, y, "grid"))
        parts.append(_text(f"{LEFT - 6}", f"{y + 4:.1f}", _tick_label(value), "end"))
    for value, x in across.ticks():
        parts.append(_line(x, x, floor, floor + 4, "axis"))
        parts.append(_text(f"{x:.1f}", f"{floor + 17}", _tick_label(value), "middle"))
    return [*parts, _text(f"{WIDTH - RIGHT}", f"{floor + 32}", x_label, "end")]


def _legend(names: list[str]) -> tuple[list[str], int]:
    """The names in their lines' colours, side by side, and how many rows they take."""
    parts, x, row = [], LEFT, 0
    for number, name in enumerate(names):
        width = 20 + LEGEND_CHARACTER * len(name)
        if x > LEFT and x + width > WIDTH:
            x, row = LEFT, row + 1
        y = TOP + HEIGHT + BOTTOM - 6 + LEGEND_ROW * row
        parts.append(f'<text x="{x}" y="{y}" fill="{COLOURS[number % len(COLOURS)]}">{escape(name)}</text>')
        x += width
    return parts, row + 1


def _path(points: Points, across: Axis, up: Axis) -> str:
    return " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)


def _drawable(value: float, log: bool) -> bool:
    return math.isfinite(value) and (value > 0 or not log)


def _tick_label(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:.3g}"


def _shortened(label: str, characters: int) -> str:
    return label if len(label) <= characters else label[: characters - 1] + "…"


def _text(x: str, y: str, text: str, kind: str = "") -> str:
    """Plain text, escaped; `kind` is its class in `STYLE`."""
    attributes = f'x="{x}" y="{y}"' + (f' class="{kind}"' if kind else "")
    return f"<text {attributes}>{escape(text)}</text>"


def _line(x_1: float, x_2: float, y_1: float, y_2: float, kind: str) -> str:
    return f'<line x1="{x_1:.1f}" x2="{x_2:.1f}" y1="{y_1:.1f}" y2="{y_2:.1f}" class="{kind}"/>'


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    name, inside = escape(title), "".join(parts)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{name}">'
        f"<title>{name}</title>{inside}</svg>"
    )
