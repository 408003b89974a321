"""Figures as they are written in tables, on a terminal and on a page."""


def number(value: float | None, digits: int = 3) -> str:
    """A figure for a table: thousands separated, `digits` significant where it is small, a dash for None."""
    if value is None:
        return "-"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}f}" if abs(value) < 10 else f"{value:.{max(0, digits - 2)}f}"


def percent(value: float | None) -> str:
    """A share as percent; a dash for None."""
    return "-" if value is None else f"{100 * value:.1f} %"


def short_count(count: float) -> str:
    """A count in thousands, millions, ...: 60.1M."""
    for unit, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(count) >= scale:
            return f"{count / scale:.1f}{unit}"
    return f"{count:,.0f}"


def planned_duration(seconds: float) -> str:
    """A duration for planning: 40 s, 12 min, 3.5 h, 12 days."""
    for unit, scale in (("days", 86400 * 2), ("h", 3600), ("min", 60)):
        if seconds >= scale:
            count = seconds / (86400 if unit == "days" else scale)
            return f"{count:,.0f} {unit}" if count >= 1000 else f"{count:.3g} {unit}"
    return f"{seconds:.0f} s"


def byte_size(count: float) -> str:
    """Bytes in powers of 1000: 1.2 GB."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(count) >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count:,.0f} B"


def duration(seconds: float) -> str:
    """1h02m, 3m05s, 12s."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"
