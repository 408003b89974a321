"""Results compared between contenders that are alike: equal total or equal active parameters, after equal
tokens or after equal time.

Only contenders that are alike in parameters are compared. Where too few are alike, the text names them and
says which further contender would match.
"""

import statistics
from collections.abc import Iterable
from typing import Any

from braingpt.utils.formatting import short_count

# Parameters that differ by no more, as a share, count as equal.
TOLERANCE = {"total": 0.02, "active": 0.05}
BUDGETS = {"tokens": "equal tokens", "time": "equal wall-clock"}


def matched_comparisons(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Comparisons for those of the four matchings that were measured.

    A matching comes once for each group of contenders that are alike, and once without contenders where no
    two are. A group of equal active parameters that has equal totals as well is not repeated.

    Returns:
        [{"matching", "parameters", "budget", "contenders": {name: figures}, "spread", "words"}].
    """
    found = []
    for budget in BUDGETS:
        if report.get(budget):
            for kind in TOLERANCE:
                found += _comparisons(report, kind, budget)
    return found


def groups_alike(counts: dict[str, int], tolerance: float) -> list[list[str]]:
    """Names whose counts are within `tolerance` of their group's smallest.

    Each name is in one group; groups have two names or more, in the order of `counts`.
    """
    clusters: list[list[str]] = []
    for name in sorted(counts, key=counts.__getitem__):
        if clusters and counts[name] <= counts[clusters[-1][0]] * (1 + tolerance):
            clusters[-1].append(name)
        else:
            clusters.append([name])
    order = list(counts)
    return sorted(
        (sorted(group, key=order.index) for group in clusters if len(group) > 1),
        key=lambda group: order.index(group[0]),
    )


def _comparisons(report: dict[str, Any], kind: str, budget: str) -> list[dict[str, Any]]:
    runs = {name: found for name, found in report[budget]["runs"].items() if found}
    counts = {name: report["contenders"][name][f"parameters_{kind}"] for name in runs}
    view = {"matching": f"equal {kind} parameters, {BUDGETS[budget]}", "parameters": kind, "budget": budget}
    amount = (
        f"{report['tokens']['tokens']:,} tokens each"
        if budget == "tokens"
        else f"{report['time']['seconds']:,.0f} s of training each"
    )
    found, total = (
        [],
        groups_alike(
            {name: report["contenders"][name]["parameters_total"] for name in runs}, TOLERANCE["total"]
        ),
    )
    for group in groups_alike(counts, TOLERANCE[kind]):
        # Equal totals were compared already.
        if kind == "active" and any(set(group) <= set(other) for other in total):
            continue
        spread = max(counts[name] for name in group) / min(counts[name] for name in group) - 1
        figures = {name: _figures(runs[name]) for name in group}
        found.append(
            view
            | {"spread": spread, "words": f"within {100 * spread:.1f} %, {amount}", "contenders": figures}
        )
    if not found:
        hint = (
            "; dense-active has as many active ones as v2"
            if kind == "active" and "v2" in counts and "dense-active" not in counts
            else ""
        )
        sizes = ", ".join(f"{name} {short_count(count)}" for name, count in counts.items())
        others = " of other totals" if kind == "active" and total else ""
        words = f"no two contenders{others} are alike ({sizes}){hint}"
        found = [view | {"spread": None, "words": words, "contenders": {}}]
    return found


def _figures(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The last validation, tokens and seconds of all seeds, as medians and extremes."""
    last = [run["validations"][-1] for run in runs]
    losses, bits = (
        [score[key] for score in last if score[key] is not None] for key in ("loss", "bits_per_byte")
    )
    return {
        "seeds": len(runs),
        "tokens": statistics.median(run["tokens"] for run in runs),
        "seconds": statistics.median(run["seconds"] for run in runs),
        "loss": statistics.median(losses) if losses else None,
        "bits_per_byte": statistics.median(bits) if bits else None,
        "bits_per_byte_low": min(bits, default=None),
        "bits_per_byte_high": max(bits, default=None),
        "by_language": {
            language: score["bits_per_byte"] for language, score in last[0]["by_language"].items()
        },
        "spikes": sum(run["stability"]["spikes"] for run in runs),
        "norm_tail": _largest(run["stability"]["norm_tail"] for run in runs),
    }


def _largest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
