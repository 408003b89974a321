"""A benchmark as one HTML page, with nothing to load from elsewhere."""

import statistics
from typing import Any

from braingpt.bench.report.comparisons import BUDGETS
from braingpt.bench.report.formatting import kernel_failures, kernel_limits, kernel_row, ratio, where
from braingpt.bench.report.sections import Section, failures, header, sections, verdict
from braingpt.html.bars import bars
from braingpt.html.lines import lines
from braingpt.html.page import page, pairs, paragraphs, table, text
from braingpt.utils.formatting import percent

LOWER, BEFORE = "Lower is better.", "tokens of context"
SPREAD = "The thin line along a bar spans the lowest and the highest round."
KERNEL_MEANINGS = {
    "ran": "the backend that computed the operation",
    "reference / it": "time of the reference in plain torch over the operation's; above 1x it is faster",
    "dense / it": "the same for the dense counterpart, which the last column names",
    "of limit": "the limit over the time taken, and below it the limit in ms: the longer of compulsory bytes "
    "over measured bandwidth and operations over measured peak",
    "bound by": "which of the two times is the limit",
}


def kernels_page(report: dict[str, Any]) -> str:
    """The page of `braingpt bench kernels`."""
    settings, measured = report["settings"], [row for row in report["rows"] if "error" not in row]
    heads = ["operation", "ran", "ms", "reference / it", "dense / it", "of limit", "bound by", "dense is"]
    rows = [
        (
            *words["name"],
            *("\n".join(words[key]) for key in ("ms", "reference", "dense", "limit", "by")),
            row.get("dense_is") or "-",
        )
        for row in report["rows"]
        for words in [kernel_row(row)]
    ]
    share = [
        (row["operation"], 100 * row["share_of_limit"], percent(row["share_of_limit"])) for row in measured
    ]
    against = [(row["operation"], row["reference_over_it"]) for row in measured if row["reference_over_it"]]
    dense = [(row["operation"], row["dense_over_it"]) for row in measured if row["dense_over_it"]]
    failed = [f"failed: {line}" for line in kernel_failures(report)]
    body = [
        paragraphs(f"{where(report)}, {settings['dtype']}", kernel_limits(report)),
        paragraphs(
            f"Shapes of the {settings['size']} recipes over {settings['batch']} x {settings['context']:,} "
            "tokens. Operations of training are timed forward and backward, those named for one token "
            "forward. Every call finds the cache filled with other data. Times are medians of "
            f"{settings['rounds']} rounds in which operation, reference and dense counterpart take turns, "
            "with the lowest and highest round below them; ratios are taken round by round.",
        ),
        table(heads, rows, words=2),
        pairs(KERNEL_MEANINGS),
        paragraphs(*failed),
        "<h2>Plots</h2>",
        bars(
            share,
            "Share of the limit",
            "% of the limit",
            caption="100 %: no implementation on this machine could be faster.",
        ).html(),
        _ratios(against, "Times as fast as the reference", "the reference in plain torch"),
        _ratios(dense, "Times as fast as the dense counterpart", "the dense operation that it replaces"),
    ]
    return page("braingpt bench kernels", body)


def _ratios(rows: list[tuple[str, dict[str, Any]]], title: str, other: str) -> str:
    return bars(
        [(name, series["median"], ratio(series["median"])) for name, series in rows],
        title,
        "times as fast",
        caption=f"Above 1x the operation is faster than {other} (red line). {SPREAD}",
        spread=[(series["min"], series["max"]) for _, series in rows],
        marks=[1.0] * len(rows),
    ).html()


def architectures_page(report: dict[str, Any]) -> str:
    """The page of `braingpt bench v1 v2 ...`."""
    settings = report["settings"]
    body = [paragraphs(*header(report))]
    if lost := failures(report):
        body.append(paragraphs(*lost))
    body += [
        "<h2>Claims of the earlier work</h2>",
        _claims(report),
        "<h2>Tables</h2>",
        *map(_section, sections(report)),
        "<h2>Learning</h2>",
    ]
    body += _learning(report)
    body += ["<h2>Training</h2>", *_training(report), "<h2>Generation</h2>", *_generation(report)]
    return page(f"braingpt bench {' '.join([*settings['architectures'], *settings['peers']])}", body)


def _claims(report: dict[str, Any]) -> str:
    rows = [(claim["claim"], verdict(claim), claim["measured"]) for claim in report["claims"]]
    return table(["claim", "here", "measured"], rows, words=3, name="Claims")


def _section(section: Section) -> str:
    head = f"<h3>{text(section.title)}</h3>" + (paragraphs(section.note, quiet=True) if section.note else "")
    if not section.names:
        return head
    rows: list[list[str]] = []
    for label, cells, below in section.rows:
        # Written into the cells of the row above.
        if below:
            rows[-1] = [
                f"{upper}\n{lower}" if lower else upper
                for upper, lower in zip(rows[-1], [label, *cells], strict=True)
            ]
        else:
            rows.append([label, *cells])
    return head + table(["", *section.names], rows, name=section.title)


def _learning(report: dict[str, Any]) -> list[str]:
    """Plots of loss by tokens and by the clock, validation in both trainings, gradient norms."""
    first = {name: runs[0] for name, runs in report["tokens"]["runs"].items() if runs}
    plots = [
        lines(
            _curves(first, "tokens", "loss"),
            "Training loss, equal tokens",
            "tokens",
            "nats a token",
            caption=LOWER,
        ).html(),
        lines(
            _curves(first, "seconds", "loss"),
            "Training loss, by each contender's own clock",
            "seconds",
            "nats a token",
            caption=LOWER,
        ).html(),
        _validation(report["tokens"]["runs"], "tokens"),
    ]
    if report["time"]:
        plots.append(_validation(report["time"]["runs"], "seconds"))
    norms = lines(
        _curves(first, "tokens", "grad_norm"),
        "Gradient norm before clipping, equal tokens",
        "tokens",
        "norm",
        caption="Peaks are updates that gradient clipping shortens.",
        log_y=True,
    )
    return [*plots, norms.html()]


def _validation(runs: dict[str, list[dict[str, Any]]], x: str) -> str:
    """The median of all seeds, with the lowest and the highest around it."""
    middles, bands, several = {}, {}, False
    for name, found in runs.items():
        points = list(zip(*_scores({run["seed"]: run for run in found}, x).values(), strict=False))
        bits = [(statistics.median(at for at, _ in seeds), [bits for _, bits in seeds]) for seeds in points]
        several = several or len(found) > 1
        middles[name] = [(x, statistics.median(values)) for x, values in bits]
        bands[name] = [(x, min(values), max(values)) for x, values in bits]
    return lines(
        middles,
        f"Validation, bits per byte, {BUDGETS['tokens' if x == 'tokens' else 'time']}",
        x,
        "bits per byte",
        caption=LOWER
        + (" Median of the seeds; the band spans the lowest and the highest." if several else ""),
        bands=bands if several else None,
    ).html()


def _curves(runs: dict[str, dict[str, Any]], x: str, y: str) -> dict[str, list[tuple[float, float]]]:
    curves = {name: run["curve"] for name, run in runs.items()}
    return {
        name: [(a, b) for a, b in zip(curve[x], curve[y], strict=True) if b is not None]
        for name, curve in curves.items()
    }


def _scores(runs: dict[Any, dict[str, Any]], x: str) -> dict[Any, list[tuple[float, float]]]:
    return {
        name: [
            (score[x], score["bits_per_byte"])
            for score in run["validations"]
            if score["bits_per_byte"] is not None
        ]
        for name, run in runs.items()
    }


def _training(report: dict[str, Any]) -> list[str]:
    steps = {name: parts["step"] for name, parts in report["speed"].items()}
    speed = [(name, series["median"], f"{series['median']:,.0f}") for name, series in steps.items()]
    memory = [(name, value / 1e6, f"{value / 1e6:,.0f} MB") for name, value in report["memory"].items()]
    return [
        bars(
            speed,
            "Speed of training, whole steps",
            "tokens a second",
            caption=f"Higher is better. {SPREAD}",
            spread=[(series["min"], series["max"]) for series in steps.values()],
        ).html(),
        bars(memory, "Peak memory of training", "MB", caption=LOWER).html(),
    ]


def _generation(report: dict[str, Any]) -> list[str]:
    """Plots over the context: speed for each number of rows, time to the first token and state of one row."""
    plots = []
    for rows in report["settings"]["batches"]:
        points = [point for point in report["generation"] if point["rows"] == rows]
        series = _by_context(points, "tokens_per_second")
        bands = {name: [(x, one["min"], one["max"]) for x, one in found] for name, found in series.items()}
        middles = {name: [(x, one["median"]) for x, one in found] for name, found in series.items()}
        what = "one text" if rows == 1 else f"{rows} texts at once"
        plots.append(
            lines(
                middles,
                f"Speed of generation, {what}",
                BEFORE,
                "tokens a second",
                caption="Higher is better. The band spans the lowest and the highest round.",
                log_x=True,
                log_y=True,
                bands=bands,
            )
        )
    points = [point for point in report["generation"] if point["rows"] == report["settings"]["batches"][0]]
    first = {
        name: [(x, one["median"]) for x, one in found]
        for name, found in _by_context(points, "first_token_seconds").items()
    }
    state = _by_context(points, "state_bytes")
    plots += [
        lines(first, "Time to the first token", BEFORE, "seconds", caption=LOWER, log_x=True, log_y=True),
        lines(state, "State of one text in memory", BEFORE, "bytes", caption=LOWER, log_x=True, log_y=True),
    ]
    return [plot.html() for plot in plots]


def _by_context(points: list[dict[str, Any]], key: str) -> dict[str, list[tuple[int, Any]]]:
    names = points[0]["results"] if points else {}
    return {
        name: [
            (point["context"], point["results"][name][key])
            for point in points
            if key in point["results"][name]
        ]
        for name in names
    }
