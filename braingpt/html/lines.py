"""Lines over common axes, with shaded bands and a legend."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from braingpt.html.drawing import (
    LINE,
    TEXT,
    axes,
    drawable,
    sheet,
    span,
    text_width,
    tick_labels,
    ticks,
    wrapped,
    write,
)
from braingpt.html.figure import WIDE, Plot
from braingpt.html.palette import LINES
from braingpt.utils.formatting import readable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]
Bands = Mapping[str, Sequence[tuple[float, float, float]]]

# Height of the axes in a wide window and on a phone, and the space of labels around them.
TALL, SHORT, ABOVE, BELOW = 260, 200, 26, 46
# Points at most, and points up to which each is marked.
MAX_POINTS, FEW_POINTS = 400, 12
# Length of a line in the legend, with the space behind it, and between two names.
SWATCH, GAP = 30, 18
# Patterns of lines after all colours have been used; the second is also that of `dashed` names.
PATTERNS = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
# Names that a description tells.
TOLD = 8


def lines(
    named: Mapping[str, Points],
    title: str,
    x_label: str,
    y_label: str,
    *,
    caption: str = "",
    log_x: bool = False,
    log_y: bool = False,
    bands: Bands | None = None,
    dashed: Collection[str] = (),
) -> Plot:
    """One line for each name, over common axes; numbers that no axis can hold are left out.

    Args:
        named: Points (x, y) of each line.
        title: What the plot shows.
        x_label: What is written below the horizontal axis, with its unit.
        y_label: What is written above the vertical axis, with its unit.
        caption: How to read the plot.
        log_x: Whether the horizontal axis is logarithmic, without what is not above zero.
        log_y: The same for the vertical axis.
        bands: For some of the names (x, lowest, highest), shaded behind the line.
        dashed: Names whose lines are dashed, in the colour of the line before.

    Returns:
        The plot.
    """
    curves = {
        name: downsampled([p for p in points if drawable(p[0], log_x) and drawable(p[1], log_y)])
        for name, points in named.items()
    }
    shades = {
        name: [p for p in band if drawable(p[0], log_x) and all(drawable(y, log_y) for y in p[1:])]
        for name, band in (bands or {}).items()
    }
    looks, colour = {}, -1
    for name in curves:
        colour += name not in dashed
        around = colour // len(LINES) + (name in dashed)
        looks[name] = (LINES[colour % len(LINES)], PATTERNS[around % len(PATTERNS)])

    def draw(width: float, header: float) -> "Figure":
        legend = _legend_places(list(curves), width)
        rows = max((row for _, row, _ in legend), default=-1) + 1
        tall = TALL if width >= WIDE else SHORT
        figure = sheet(width, header + ABOVE + tall + BELOW + rows * LINE)
        values = [p for points in curves.values() for p in points]
        values += [(x, y) for band in shades.values() for x, *ys in band for y in ys]
        plane = _plane(figure, header, rows, values, (log_x, log_y), (x_label, y_label))
        for name, points in curves.items():
            ink, pattern = looks[name]
            if band := shades.get(name):
                x, low, high = zip(*band, strict=True)
                plane.fill_between(x, low, high, color=ink, alpha=0.18, linewidth=0, clip_on=False)
            if points:
                x, y = zip(*points, strict=True)
                marker = "o" if len(points) <= FEW_POINTS else ""
                plane.plot(
                    x,
                    y,
                    color=ink,
                    linestyle=pattern,
                    marker=marker,
                    markersize=5,
                    linewidth=1.8,
                    clip_on=False,
                )
        top = figure.get_size_inches()[1] * 72 - rows * LINE
        _legend(figure, legend, looks, top)
        return figure

    return Plot(title, caption, _description(curves, x_label), draw)


def downsampled(points: Points) -> list[tuple[float, float]]:
    """At most `MAX_POINTS` points: means of equally long stretches, at each stretch's last x."""
    stretch = max(1, math.ceil(len(points) / MAX_POINTS))
    stretches = [points[start : start + stretch] for start in range(0, len(points), stretch)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in stretches]


def _plane(
    figure: "Figure",
    header: float,
    rows: int,
    values: Points,
    logs: tuple[bool, bool],
    labels: tuple[str, str],
) -> "Axes":
    """Axes around the values, with grid, ticks and labels."""
    width, height = figure.get_size_inches() * 72
    marked = []
    for place, log in enumerate(logs):
        along = [value[place] for value in values]
        low, high = span(along, log)
        many = 5 if place else max(3, int(width // 110))
        whole = all(value == int(value) for value in along)
        at = ticks(low, high, log, whole, many) if values else []
        marked.append((low, high, at, tick_labels(at)))
    (x_low, x_high, x_at, x_names), (y_low, y_high, y_at, y_names) = marked
    left = max((text_width(name) for name in y_names), default=0) + 10
    right = max(12.0, text_width(x_names[-1]) / 2 + 2) if x_names else 12
    plane = axes(figure, left, header + ABOVE, right, BELOW + rows * LINE)
    plane.set_xscale("log" if logs[0] else "linear")
    plane.set_yscale("log" if logs[1] else "linear")
    plane.minorticks_off()
    plane.set_xlim(x_low, x_high)
    room = (y_high / y_low) ** 0.04 if logs[1] else 0.04 * (y_high - y_low)
    plane.set_ylim(*((y_low / room, y_high * room) if logs[1] else (y_low - room, y_high + room)))
    plane.set_xticks(x_at, x_names)
    plane.set_yticks(y_at, y_names)
    plane.grid(True, axis="y", clip_on=False)
    # A mark on the edge is drawn whole.
    plane.margins(0)
    write(figure, 0, header + LINE / 2, labels[1], colour="quiet")
    write(figure, width - 2, height - rows * LINE - LINE, labels[0], "right", "quiet")
    return plane


def _legend_places(names: list[str], width: float) -> list[tuple[float, int, str]]:
    """(x, row, text) of each line of a legend; a name wider than the plot takes several rows."""
    places: list[tuple[float, int, str]] = []
    x, row = 0.0, 0
    for name in names:
        text = wrapped(name, width - SWATCH)
        needed = SWATCH + max(map(text_width, text))
        if x and (x + needed > width or len(text) > 1):
            x, row = 0.0, row + 1
        places += [(x, row + number, line) for number, line in enumerate(text)]
        x, row = x + needed + GAP, row + len(text) - 1
    return places


def _legend(
    figure: "Figure", places: list[tuple[float, int, str]], looks: Mapping[str, tuple], top: float
) -> None:
    from matplotlib.lines import Line2D

    width, height = figure.get_size_inches() * 72
    left = iter(looks.values())
    rest = iter([wrapped(name, width - SWATCH) for name in looks])
    lines_left = 0
    for x, row, text in places:
        y = top + LINE * (row + 0.5)
        if not lines_left:
            lines_left = len(next(rest))
            ink, pattern = next(left)
            ends = [x / width, (x + SWATCH - 8) / width], [1 - y / height] * 2
            figure.add_artist(Line2D(*ends, color=ink, linestyle=pattern, linewidth=2.5))
        lines_left -= 1
        write(figure, x + SWATCH, y, text, fontsize=TEXT)


def _description(curves: Mapping[str, Points], x_label: str) -> str:
    told = []
    for name, points in list(curves.items())[:TOLD]:
        if not points:
            told.append(f"{name}: no values")
            continue
        (first, start), (last, end) = points[0], points[-1]
        one = f"{readable(start)} at {x_label} {readable(first)}"
        told.append(
            f"{name}: {one}"
            if len(points) == 1
            else f"{name}: from {one} to {readable(end)} at {readable(last)}"
        )
    more = len(curves) - TOLD
    return "; ".join(told) + (f"; and {more} more lines" if more > 0 else "") + "."
