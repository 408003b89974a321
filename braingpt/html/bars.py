"""Horizontal bars, and columns side by side."""

from collections.abc import Sequence
from itertools import pairwise
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
from braingpt.html.figure import WIDE, Plot
from braingpt.html.palette import DAY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Height of a bar, space between two rows, share of the width that labels beside bars may take.
BAR, BETWEEN, BESIDE = 16, 8, 0.36
# Space below the bars, and below columns, for ticks and the axis label.
BELOW = 36
# Columns: height in a wide window and on a phone, space above, columns up to which each carries its number.
TALL, SHORT, ABOVE, FEW_COLUMNS = 190, 150, 40, 16
# Bars that a description tells.
TOLD = 12


def bars(
    rows: Sequence[tuple[str, float, str]],
    title: str,
    unit: str,
    *,
    caption: str = "",
    spread: Sequence[tuple[float, float]] | None = None,
    marks: Sequence[float | None] = (),
) -> Plot:
    """Horizontal bars.

    Args:
        rows: For each bar its label, its value >= 0, and the value as it is written.
        title: What the plot shows.
        unit: What is written below the axis: the quantity with its unit.
        caption: How to read the plot.
        spread: Lowest and highest value of each bar, drawn as whiskers.
        marks: Value at which a line crosses the bar; None for no line.

    Returns:
        The plot. A value that is not a finite number has no bar.
    """
    finite = [(label, value if drawable(value) else 0.0, written) for label, value, written in rows]
    ends = [
        end if all(map(drawable, end)) else (0.0, 0.0) for end in spread or [(v, v) for _, v, _ in finite]
    ]
    crossed = [*marks, *[None] * (len(rows) - len(marks))]
    reach = [
        max(value, high, mark or 0.0)
        for (_, value, _), (_, high), mark in zip(finite, ends, crossed, strict=True)
    ]

    def draw(width: float, header: float) -> "Figure":
        widest = max((text_width(label) for label, _, _ in finite), default=0.0) + 10
        beside = widest <= BESIDE * width
        texts = [[] if beside else wrapped(label, width) for label, _, _ in finite]
        heights = [LINE * len(text) + BAR + BETWEEN for text in texts]
        figure = sheet(width, header + sum(heights) + BELOW)
        left, right = (widest if beside else 2.0), max([text_width(w) for *_, w in finite] or [0]) + 12
        plane = axes(figure, left, header, right, BELOW)
        largest = max(reach, default=0.0) or 1.0
        plane.set_xlim(0, largest)
        plane.set_ylim(sum(heights) or 1, 0)
        at = ticks(0, largest, False, False, max(2, int((width - left - right) // 90))) if rows else []
        plane.set_xticks(at, tick_labels(at))
        plane.set_yticks([])
        plane.spines["left"].set_visible(False)
        if beside:
            plane.grid(True, axis="x", clip_on=False)
        y = 0.0
        for number, (label, value, written) in enumerate(finite):
            middle = y + heights[number] - BETWEEN / 2 - BAR / 2
            for line, text in enumerate([label] if beside else texts[number]):
                where = (left - 8, middle, "right") if beside else (0, y + LINE * (line + 0.6), "left")
                write(figure, where[0], header + where[1], text, where[2])
            plane.barh(middle, value, BAR, color=DAY["line0"], clip_on=False)
            low, high = ends[number]
            if spread and high > low:
                plane.plot([low, high], [middle] * 2, color=DAY["ink"], linewidth=1.5, clip_on=False)
            if (mark := crossed[number]) is not None:
                over = BAR / 2 + (3 if beside else 0)
                edges = [middle - over, middle + over]
                plane.plot([mark] * 2, edges, color=DAY["mark"], linewidth=2.5, clip_on=False)
            x = left + (width - left - right) * reach[number] / largest
            write(figure, x + 6, header + middle, written)
            y += heights[number]
        write(figure, left, header + y + BELOW - LINE / 2, unit, colour="quiet")
        return figure

    told = "; ".join(f"{label}: {written}" for label, _, written in rows[:TOLD])
    more = len(rows) - TOLD
    return Plot(title, caption, f"{told or 'no values'}{f'; and {more} more' if more > 0 else ''}.", draw)


def histogram(
    counts: Sequence[int],
    edges: Sequence[str],
    title: str,
    x_label: str,
    y_label: str,
    *,
    caption: str = "",
    mark: float | None = None,
    mark_label: str = "",
    centred: bool = False,
) -> Plot:
    """Columns side by side.

    Args:
        counts: Height of each column.
        edges: What is written below the left edge of each column; "" for nothing.
        title: What the plot shows.
        x_label: What is written below the columns, with its unit.
        y_label: What is counted.
        caption: How to read the plot.
        mark: Number of the column at whose left edge a line is drawn, fractions allowed.
        mark_label: What is written above that line.
        centred: Write `edges` below the middle of the columns, as names of them.

    Returns:
        The plot.
    """

    def draw(width: float, header: float) -> "Figure":
        tall, many, largest = (TALL if width >= WIDE else SHORT), max(1, len(counts)), max([1, *counts])
        figure = sheet(width, header + ABOVE + LINE + tall + BELOW)
        at = ticks(0, largest, False, True, 4)
        left = max(map(text_width, tick_labels(at))) + 10
        plane = axes(figure, left, header + ABOVE + LINE, 12, BELOW)
        plane.set_xlim(0, many)
        plane.set_ylim(0, largest)
        plane.set_yticks(at, tick_labels(at))
        plane.grid(True, axis="y", clip_on=False)
        step = (width - left - 12) / many
        plane.bar(
            [n + 0.5 for n in range(len(counts))],
            counts,
            max(0.5, 1 - 2 / step),
            color=DAY["line0"],
            clip_on=False,
        )
        offset = 0.5 if centred else 0.0
        named = [(place, edge) for place, edge in enumerate(edges) if edge]
        spacing = step * min([b - a for (a, _), (b, _) in pairwise(named)] or [1])
        shown = thinned([edge for _, edge in named], spacing)
        ticks_at = {place + offset: name for (place, _), name in zip(named, shown, strict=True) if name}
        plane.set_xticks(list(ticks_at), list(ticks_at.values()))
        written = [f"{count:,}" for count in counts]
        if len(counts) <= FEW_COLUMNS and max(map(text_width, written), default=0) + 4 < step:
            for place, text in enumerate(written):
                y = header + ABOVE + LINE + tall * (1 - counts[place] / largest) - LINE / 2
                write(figure, left + step * (place + 0.5), y, text, "center")
        if mark is not None:
            plane.plot([mark] * 2, [0, largest], color=DAY["mark"], linewidth=2, clip_on=False)
            x = left + step * mark
            # The words stand on the side that has the room.
            before = x + text_width(mark_label) + 6 > width
            write(figure, x, header + LINE + 8, mark_label, "right" if before else "left", "mark")
        write(figure, 0, header + LINE / 2, y_label, colour="quiet")
        write(figure, width - 2, header + ABOVE + LINE + tall + BELOW - LINE / 2, x_label, "right", "quiet")
        return figure

    highest = max(range(len(counts)), key=lambda place: counts[place], default=None)
    told = f"{sum(counts):,} in {len(counts)} columns"
    if highest is not None and counts[highest]:
        name = next((edge for edge in reversed(edges[: highest + 1]) if edge), str(highest))
        told += f", most, {counts[highest]:,}, at {name}"
    return Plot(title, caption, f"{told}{f'; {mark_label}' if mark_label else ''}.", draw)
