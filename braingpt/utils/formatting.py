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
