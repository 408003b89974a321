"""Numbers as they are written in tables, on a terminal and on a page."""

import math


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table: thousands separated, about `digits` digits where it is small, a dash for None."""
    if value is None:
        return "-"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}f}" if abs(value) < 10 else f"{value:.{max(0, digits - 2)}f}"


def readable(value: float | None) -> str:
    """A number with the digits that a reader uses: 572, 57.2, 2.145, 0.0123, 3e-07; a dash for None, nan."""
    if value is None or not math.isfinite(value):
        return "-"
    size = abs(value)
    if isinstance(value, int) or 100 <= size < 1e9:
        return f"{value:,.0f}"
    if size >= 1e9 or 0 < size < 1e-4:
        return f"{value:.3g}".replace("e+", "e")
    if size == 0:
        return "0"
    return f"{value:.{1 if size >= 10 else 3 if size >= 1 else 4}f}"


def percent(value: float | None) -> str:
    """A fraction as percent, for example 12.5 %; a dash for None."""
    return "-" if value is None else f"{100 * value:.1f} %"


def short_count(count: float) -> str:
    """A count with a unit, for example 60.1M; T, B, M and k are powers of 1000."""
    for unit, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(count) >= scale:
            return f"{count / scale:.1f}{unit}"
    return f"{count:,.0f}"


def planned_duration(seconds: float) -> str:
    """An estimated duration, for example 40 s, 12 min, 3.5 h, 12 days."""
    for unit, scale, from_seconds in (("days", 86400, 2 * 86400), ("h", 3600, 3600), ("min", 60, 60)):
        if seconds >= from_seconds:
            count = seconds / scale
            return f"{count:,.0f} {unit}" if count >= 1000 else f"{count:.3g} {unit}"
    return f"{seconds:.0f} s"


def byte_size(count: float) -> str:
    """Bytes with a unit, for example 1.2 GB; units are powers of 1000."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(count) >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count:,.0f} B"


def duration(seconds: float) -> str:
    """A measured duration, for example 1h02m, 3m05s, 12s."""
    rounded = round(seconds)
    hours, minutes, remainder = rounded // 3600, rounded // 60 % 60, rounded % 60
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{remainder:02}s" if minutes else f"{remainder}s"
