"""A benchmark's figures in words, the same on the terminal and on the page."""

from collections.abc import Callable
from typing import Any

from braingpt.utils.formatting import percent, readable


def where(report: dict[str, Any]) -> str:
    """The machine in one line."""
    facts = report["machine"]
    place = (
        facts["gpu"]
        if report["settings"]["device"].startswith("cuda")
        else f"{facts['cpu']}, {facts['threads']} threads"
    )
    return f"{place}, torch {facts['torch']}"


def figure(value: float | None) -> str:
    """Three to four digits: 1,186 or 42.3 or 0.0559."""
    return readable(value)


def ratio(value: float | None) -> str:
    """`0.58x`, `4.20x`, `23.1x`, `310x`; a dash for None."""
    return "-" if value is None else f"{value:.{max(0, 2 - max(0, len(str(int(value))) - 1))}f}x"


def spread(series: dict[str, Any] | None, write: Callable[[float], str] = figure, unit: float = 1.0) -> str:
    """Lowest and highest round; empty where there is no series."""
    return f"{write(series['min'] * unit).removesuffix('x')}-{write(series['max'] * unit)}" if series else ""


def median(series: dict[str, Any] | None, write: Callable[[float], str] = figure, unit: float = 1.0) -> str:
    """The middle round; a dash where there is no series."""
    return write(series["median"] * unit) if series else "-"


def kernel_limits(report: dict[str, Any]) -> str:
    """The limits of the machine, in one line."""
    limits = report["limits"]
    flops = [f"{limit['flops'] / 1e12:,.3g} TFLOP/s in {dtype}" for dtype, limit in limits.items()]
    bandwidth = next(iter(limits.values()))["bytes_per_second"]
    return f"measured limits: {bandwidth / 1e9:,.3g} GB/s, {', '.join(flops)}"


def kernel_row(row: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """An operation's figures, each in words and with the text below it.

    Below the name is the backend, below the share of the limit the limit in ms, below the others their
    spread.
    """
    if "error" in row:
        return {"name": (row["operation"], "failed")} | dict.fromkeys(
            ("ms", "reference", "dense", "limit", "by"), ("-", "")
        )
    reference, dense, seconds = row["reference_over_it"], row["dense_over_it"], row["seconds"]
    return {
        "name": (row["operation"], row["path"]),
        "ms": (median(seconds, unit=1e3), spread(seconds, unit=1e3)),
        "reference": (median(reference, ratio), spread(reference, ratio)),
        "dense": (median(dense, ratio), spread(dense, ratio)),
        "limit": (percent(row["share_of_limit"]), figure(1e3 * row["limit_seconds"])),
        "by": ("FLOPs" if row["bound_by"] == "operations" else "bytes", ""),
    }


def kernel_failures(report: dict[str, Any]) -> list[str]:
    """One line for each measurement that failed, with the reason."""
    found = []
    for row in report["rows"]:
        failed = {"": row["error"]} if "error" in row else row["failed"]
        found += [
            f"{row['operation']}{f', {part}' if part else ''}: {reason}" for part, reason in failed.items()
        ]
    return found
