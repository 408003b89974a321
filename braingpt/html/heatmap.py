"""A cell for each value, coloured by a scale that is drawn below."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from braingpt.html.drawing import (
    LINE,
    axes,
    drawable,
    sheet,
    text_width,
    thinned,
    tick_labels,
    ticks,
    wrapped,
    write,
)
from braingpt.html.figure import Plot
from braingpt.html.palette import DAY, SCALE, SCALE_STEPS, scale_step
from braingpt.utils.formatting import readable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Height of a row, of all rows at most, and space above and below them.
ROW, MOST_HEIGHT, ABOVE, BELOW = 20, 640, 22, 44
# The scale: width of a step, height, and space with its numbers.
STEP, STEP_HEIGHT, SCALE_SPACE = 24, 12, 36
# Share of the width that the names of rows may take.
NAMES = 0.3


def heatmap(
    rows: Sequence[Sequence[float]],
    labels: Sequence[str],
    title: str,
    x_label: str,
    y_label: str,
    scale_label: str,
    *,
    caption: str = "",
    highest: float | None = None,
) -> Plot:
    """A cell for each value, with a scale from zero to the highest value.

    Args:
        rows: Values >= 0; one that is not finite leaves its cell empty.
        labels: Name of each row.
        title: What the plot shows.
        x_label: What the columns are; each is numbered from 0.
        y_label: What the rows are.
        scale_label: What the colours count, with its unit.
        caption: How to read the plot.
        highest: Value of the last colour; larger values have it too. By default the largest value.

    Returns:
        The plot.
    """
    finite = [value for row in rows for value in row if drawable(value)]
    top = highest or max(finite, default=0.0) or 1.0
    columns = max((len(row) for row in rows), default=0)

    def draw(width: float, header: float) -> "Figure":
        height = min(MOST_HEIGHT, ROW * len(rows))
        names = wrapped(scale_label, width - 2)
        figure = sheet(width, header + ABOVE + height + BELOW + LINE * len(names) + SCALE_SPACE)
        short = [_shortened(label, NAMES * width) for label in labels]
        left = max(map(text_width, short), default=0.0) + 10
        plane = axes(figure, left, header + ABOVE, 12, BELOW + LINE * len(names) + SCALE_SPACE)
        plane.set_xlim(0, max(1, columns))
        plane.set_ylim(max(1, len(rows)), 0)
        plane.spines[:].set_visible(False)
        _cells(plane, rows, top)
        step = height / max(1, len(rows))
        named = range(0, len(rows), max(1, math.ceil(LINE / (step or 1))))
        plane.set_yticks([n + 0.5 for n in named], [short[n] for n in named])
        at = ticks(0, columns - 1, False, True, 6) if columns > 1 else [0.0][:columns]
        step = (width - left - 12) / max(1, columns)
        every = step * (at[1] - at[0]) if len(at) > 1 else width
        plane.set_xticks([value + 0.5 for value in at], thinned([f"{value:.0f}" for value in at], every))
        write(figure, 0, header + LINE / 2, y_label, colour="quiet")
        below = header + ABOVE + height + BELOW
        write(figure, width - 12, below - LINE, x_label, "right", "quiet")
        _scale(figure, below, names, top, any(value > top for value in finite))
        return figure

    return Plot(title, caption, _description(rows, labels, x_label, y_label), draw)


def _cells(plane: "Axes", rows: Sequence[Sequence[float]], top: float) -> None:
    """One path for each colour: neighbours of one colour in a row are one rectangle."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    corners: list[list[tuple[float, float]]] = [[] for _ in range(SCALE_STEPS)]
    gap = 0.04 if len(rows) * ROW <= MOST_HEIGHT else 0.0
    for y, row in enumerate(rows):
        steps = [scale_step(value, top) if drawable(value) else None for value in row]
        start = 0
        for x in range(1, len(steps) + 1):
            if x < len(steps) and steps[x] == steps[start]:
                continue
            if (step := steps[start]) is not None:
                above, under = y + gap, y + 1 - gap
                corners[step] += [(start, above), (x, above), (x, under), (start, under), (start, above)]
            start = x
    for step, points in enumerate(corners):
        if points:
            codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * (len(points) // 5)
            cells = PathPatch(Path(points, codes), facecolor=SCALE[step], linewidth=0)
            plane.add_artist(cells).set_clip_on(False)


def _scale(figure: "Figure", y: float, names: list[str], top: float, capped: bool) -> None:
    """The colours with their numbers, and what they count."""
    from matplotlib.patches import Rectangle

    width, height = figure.get_size_inches() * 72
    for number, line in enumerate(names):
        write(figure, 0, y + LINE * (number + 0.5), line, colour="quiet")
    y += LINE * len(names) + 4
    for step, colour in enumerate(SCALE):
        corner = ((2 + STEP * step) / width, 1 - (y + STEP_HEIGHT) / height)
        box = Rectangle(
            corner,
            STEP / width,
            STEP_HEIGHT / height,
            facecolor=colour,
            edgecolor=DAY["frame"],
            linewidth=0.5,
        )
        figure.add_artist(box)
    thirds = [0.0, top / 3, 2 * top / 3, top]
    for number, label in enumerate(tick_labels(thirds)):
        last = number == len(thirds) - 1
        text = f"{label} or more" if last and capped else label
        align = "left" if number == 0 or (last and capped) else "center"
        write(figure, 2 + STEP * 3 * number, y + STEP_HEIGHT + 10, text, align, "quiet")


def _shortened(label: str, width: float) -> str:
    """A name cut in its middle to a width: the beginning and the end tell names of one kind apart."""
    kept = len(label)
    while kept > 3 and text_width(label if kept == len(label) else label[:kept] + "…") > width:
        kept -= 1
    return label if kept == len(label) else f"{label[: kept - kept // 2]}…{label[len(label) - kept // 2 :]}"


def _description(rows: Sequence[Sequence[float]], labels: Sequence[str], x_label: str, y_label: str) -> str:
    cells = [(value, r, c) for r, row in enumerate(rows) for c, value in enumerate(row) if drawable(value)]
    if not cells:
        return "No values."
    told = [f"{len(rows)} rows, {len(cells):,} values"]
    for word, (value, r, c) in (("lowest", min(cells)), ("highest", max(cells))):
        told.append(f"{word} {readable(value)} at {y_label} {labels[r]}, {x_label} {c}")
    return "; ".join(told) + "."
