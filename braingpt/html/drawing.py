"""What all plots share: a sheet of paper, axes in units of a page's pixels, ticks, text that is wrapped.

matplotlib (https://matplotlib.org) draws.
It is imported by the first plot, because the import takes as long as a short command.
Widths of text are estimated, because the reader's browser has fonts that this machine does not.
"""

import logging
import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from braingpt.html.palette import DAY
from braingpt.utils.terminal_text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Size of text, and the height of one line of it.
TEXT, LINE = 12, 16
# Widths of letters in sizes of the text: those of DejaVu Sans, a wide font.
LETTER, CAPITAL, EAST_ASIAN, WIDEST = 0.62, 0.78, 1.0, "MW@%mw…"
# Values beyond this, or on a logarithmic axis below its inverse, overflow in the arithmetic of axes.
LARGEST = 1e100


@contextmanager
def drawing_style() -> Iterator[None]:
    """Until the end of the block, matplotlib's own defaults and ours, whatever the user configured."""
    # That matplotlib looks for fonts, or keeps their list in a temporary folder, is no event for the user.
    log = logging.getLogger("matplotlib")
    level = log.level
    log.setLevel(logging.ERROR)
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.fonttype": "none",
                # A dollar in a name is a dollar.
                "text.parse_math": False,
                "font.size": TEXT,
                "text.color": DAY["ink"],
                "axes.edgecolor": DAY["frame"],
                "axes.facecolor": "none",
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.axisbelow": True,
                "axes.unicode_minus": False,
                "xtick.color": DAY["quiet"],
                "ytick.color": DAY["quiet"],
                "xtick.major.size": 0,
                "ytick.major.size": 0,
                "grid.color": DAY["grid"],
                "grid.linewidth": 1,
            }
        )
        try:
            yield
        finally:
            log.setLevel(level)


def sheet(width: float, height: float) -> "Figure":
    """An empty drawing without paper."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="none")


def axes(figure: "Figure", left: float, top: float, right: float, bottom: float) -> "Axes":
    """Axes that keep these distances from the sheet's edges."""
    width, height = figure.get_size_inches() * 72
    return figure.add_axes(
        (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    )


def write(
    figure: "Figure", x: float, y: float, text: str, align: str = "left", colour: str = "ink", **more
) -> None:
    """Write text on the sheet, `y` below its upper edge at the text's middle."""
    width, height = figure.get_size_inches() * 72
    figure.text(
        x / width, 1 - y / height, visible(text), ha=align, va="center_baseline", color=DAY[colour], **more
    )


def text_width(text: str, size: float = TEXT) -> float:
    """About the width of one line of text, rather more than less."""
    return size * sum(map(_letter_width, text))


def _letter_width(letter: str) -> float:
    if letter in WIDEST or unicodedata.east_asian_width(letter) in "WF":
        return EAST_ASIAN
    return CAPITAL if letter.isupper() else LETTER


def wrapped(text: str, width: float) -> list[str]:
    """The text in lines of a width: divided at spaces, longer words behind punctuation or anywhere."""
    lines = [""]
    for word in visible(text).split():
        parts = [word] if text_width(word) <= width else _parts(word, width)
        for number, part in enumerate(parts):
            joined = lines[-1] + (" " if lines[-1] and not number else "") + part
            if lines[-1] and text_width(joined) > width:
                lines.append(part)
            else:
                lines[-1] = joined
    return lines


def _parts(word: str, width: float) -> list[str]:
    parts = []
    for part in re.findall(r"[^/_\-=,.:]+[/_\-=,.:]*|[/_\-=,.:]+", word):
        letters = max(1, int(width / (EAST_ASIAN * TEXT)))
        fits = text_width(part) <= width
        parts += [part] if fits else [part[at : at + letters] for at in range(0, len(part), letters)]
    return parts


def drawable(value: float, log: bool = False) -> bool:
    """Whether an axis has a place for the value."""
    return math.isfinite(value) and abs(value) < LARGEST and (value > 1 / LARGEST or not log)


def span(values: Sequence[float], log: bool) -> tuple[float, float]:
    """The lowest and the highest value, apart where they are one."""
    low, high = (min(values), max(values)) if values else (1.0, 1.0)
    if low == high:
        pad = 0.5 * abs(low) or 0.5
        return (low / 2, high * 2) if log else (low - pad, high + pad)
    return low, high


def ticks(low: float, high: float, log: bool, whole: bool, many: int = 5) -> list[float]:
    """Round values within an axis; whole numbers where every value is one."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    found: list[float] = []
    if log:
        digits = (1.0, 2.0, 5.0) if high / low < 1000 else (1.0,)
        found = list(LogLocator(subs=digits, numticks=many + 1).tick_values(low, high))
        found = [value for value in found if low <= value <= high]
        # matplotlib keeps the number of decades only, and 1, 2 and 5 make three of each.
        found = found[:: math.ceil(len(found) / (2 * many))] if found else []
    if len(found) < 2:
        found = list(MaxNLocator(many, steps=[1, 2, 2.5, 5, 10], integer=whole).tick_values(low, high))
    if whole and not log:
        found = [value for value in found if value == int(value)]
    slack = 1e-9 * (high - low)
    return [value for value in found if low - slack <= value <= high + slack]


def tick_labels(values: Sequence[float]) -> list[str]:
    """The values as short as they can be told apart: 0.25, 1.5k, 2M, 1e-12."""
    labels: list[str] = []
    for digits in range(3, 17):
        labels = [_tick_label(value, digits) for value in values]
        if len(set(labels)) == len(set(values)):
            break
    return labels


def _tick_label(value: float, digits: int) -> str:
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size <= abs(value) < 1e15:
            return f"{value / size:.{digits}g}{unit}"
    return f"{value:.{digits}g}".replace("e-0", "e-").replace("e+", "e")


def thinned(labels: Sequence[str], step: float) -> list[str]:
    """The labels of places that are `step` apart, without those that have no room."""
    widest = max((text_width(label) for label in labels), default=0.0) + 8
    every = max(1, math.ceil(widest / step)) if step else 1
    return [label if number % every == 0 else "" for number, label in enumerate(labels)]
