"""Benchmarks as one HTML page that stands alone."""

from typing import Any

from braingpt.bench.words import kernel_failures, kernel_limits, kernel_row, ratio, where
from braingpt.report import svg
from braingpt.report.page import page, paragraphs, table
from braingpt.report.words import percent


def kernels_page(report: dict[str, Any]) -> str:
    """The page of `braingpt bench kernels`."""
    settings, measured = report["settings"], [row for row in report["rows"] if "error" not in row]
    heads = ["operation", "ran", "ms", "reference / it", "dense / it", "of limit", "bound by", "dense is"]
    rows = [
        (*words["name"], *("\n".join(words[key]) for key in ("ms", "reference", "dense", "limit", "by")), row.get("dense_is") or "-")
        for row in report["rows"]
        for words in [kernel_row(row)]
    ]
    share = [(row["operation"], row["share_of_limit"], percent(row["share_of_limit"])) for row in measured]
    against = [(row["operation"], row["reference_over_it"]) for row in measured if row["reference_over_it"]]
    dense = [(row["operation"], row["dense_over_it"]) for row in measured if row["dense_over_it"]]
    body = [
        paragraphs(f"{where(report)}, {settings['dtype']}", kernel_limits(report)),
        paragraphs(
            f"Shapes of the {settings['size']} recipes over {settings['batch']} x {settings['context']:,} tokens. Operations of training are timed forward and "
            "backward, those named for one token forward. Every call finds the cache filled with other things. Times are medians of "
            f"{settings['rounds']} rounds in which operation, reference and dense counterpart take turns, with the lowest and highest round below them; ratios are "
            "taken round by round. Below the share of the limit stands the limit in ms.",
            quiet=True,
        ),
        table(heads, rows, words=2),
        paragraphs(*(f"failed: {line}" for line in kernel_failures(report))),
        "<h2>Share of the limit</h2>",
        paragraphs("The limit is the longer of compulsory bytes over measured bandwidth and operations over measured peak.", quiet=True),
        svg.bars(share, "share of the limit"),
        "<h2>Times as fast as the reference</h2>",
        _ratios(against, "times as fast as the reference"),
        "<h2>Times as fast as the dense counterpart</h2>",
        _ratios(dense, "times as fast as the dense counterpart"),
    ]
    return page("braingpt bench kernels", body)


def _ratios(rows: list[tuple[str, dict[str, Any]]], title: str) -> str:
    bars = [(name, series["median"], ratio(series["median"])) for name, series in rows]
    return svg.bars(bars, title, spread=[(series["min"], series["max"]) for _, series in rows])
