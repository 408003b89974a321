"""A benchmark's report as tables of words, the same on the terminal and on the page."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from braingpt.bench.report.formatting import figure, median, ratio, spread, where
from braingpt.utils.formatting import percent

# Parts of a training step that are timed.
STEP_PARTS = ("forward", "backward", "step")


@dataclass
class Section:
    """A table with a column for each of `names`."""

    title: str
    names: list[str] = field(default_factory=list)
    note: str = ""
    # Label, cells, and whether the row only adds to the row above.
    rows: list[tuple[str, list[str], bool]] = field(default_factory=list)

    def row(self, label: str, values: list[Any], write: Callable[[Any], str] = figure) -> None:
        """Add a value for each name; a dash for None."""
        self.rows.append((label, ["-" if value is None else write(value) for value in values], False))

    def timed(
        self,
        label: str,
        series: list[dict[str, Any] | None],
        over: list[dict[str, Any] | None],
        base: str,
        unit: float = 1.0,
    ) -> None:
        """Add medians, and below each its ratio to `base` with the lowest and highest round."""
        self.rows.append((label, [median(one, unit=unit) for one in series], False))
        if len(series) > 1:
            ratios = [None if name == base else one for name, one in zip(self.names, over, strict=True)]
            self.rows.append((f"times {base}", [median(one, ratio) if one else "" for one in ratios], True))
            self.rows.append(("lowest-highest", [spread(one, ratio) for one in ratios], True))


def header(report: dict[str, Any]) -> list[str]:
    """What was measured, on what, one line each."""
    s = report["settings"]
    peers = ", peers by the dense recipe" if s["peers"] else ""
    changed = f"; {', '.join(s['changes'])}" if s["changes"] else ""
    limits = report["limits"]
    speeds = f"{limits['bytes_per_second'] / 1e9:,.3g} GB/s, {limits['flops'] / 1e12:,.3g} TFLOP/s"
    text = f"{s['batch']} x {s['context']:,} tokens of {', '.join(s['folders'])}"
    compiled = "all compiled" if s["compile"] else "nothing compiled"
    return [
        f"{where(report)}, {report['precision']}; measured: {speeds}",
        f"size {s['size']}: steps of {text}, the same batches for all{peers}{changed}",
        f"ratios are to {s['architectures'][0]}, of {s['rounds']} rounds in turns: "
        f"median, lowest-highest; {compiled}",
    ]


def sections(report: dict[str, Any]) -> list[Section]:
    """Every table of the report."""
    return [
        _sizes(report),
        _speed(report),
        *(_comparison(view) for view in report["views"]),
        _languages(report),
        _stability(report),
        *(_generation(point, report) for point in report["generation"]),
        _few_shot(report),
    ]


def failures(report: dict[str, Any]) -> list[str]:
    """Contenders that fell out, trainings that were lost, generation that was impossible, one line each."""
    found = [f"{name} fell out in {one['stage']}: {one['reason']}" for name, one in report["failed"].items()]
    for budget in ("tokens", "time"):
        for name, runs in (report[budget] or {"runs": {}})["runs"].items():
            for run in runs:
                if run["lost"]:
                    where_lost = f"{run['steps']} steps (equal {budget}, seed {run['seed']})"
                    found.append(f"{name} was lost after {where_lost}: {run['lost']}")
    for point in report["generation"]:
        for name, result in point["results"].items():
            if "error" in result:
                found.append(f"{name} after {point['rows']} x {point['context']:,} tokens: {result['error']}")
    for name, result in report["few_shot"].items():
        if reason := result.get("error") or result.get("memory_error"):
            found.append(f"few-shot of {name}: {reason}")
    return found


def verdict(claim: dict[str, Any]) -> str:
    """Whether a claim is reached, in a word or two."""
    return {True: "reached", False: "not reached", None: "open"}[claim["reached"]]


def _sizes(report: dict[str, Any]) -> Section:
    section = Section("Size and memory", list(report["contenders"]))
    facts = list(report["contenders"].values())
    section.row("total parameters", [one["parameters_total"] for one in facts])
    section.row("active parameters", [one["parameters_active"] for one in facts])
    section.row("forward MFLOP/token", [one["flops_per_token"] / 1e6 for one in facts])
    memory = [report["memory"].get(name) for name in section.names]
    section.row("training peak MB", [value and value / 1e6 for value in memory])
    if len(memory) > 1 and memory[0]:
        section.rows.append(
            (
                f"times {section.names[0]}",
                ["", *(ratio(value and value / memory[0]) for value in memory[1:])],
                True,
            )
        )
    return section


def _speed(report: dict[str, Any]) -> Section:
    speed = report["speed"]
    section = Section(
        "Training, tokens a second", list(speed), "the gradient of our head is computed in the forward pass"
    )
    base = section.names[0]
    for part in STEP_PARTS:
        over = [one["over"][part] for one in speed.values()]
        section.timed(
            part if part != "step" else "whole step", [one[part] for one in speed.values()], over, base
        )
    return section


def _comparison(view: dict[str, Any]) -> Section:
    figures = view["contenders"]
    section = Section(view["matching"].capitalize(), list(figures), view["words"])
    if not figures:
        return section
    every = list(figures.values())
    section.row("bits per byte", [one["bits_per_byte"] for one in every])
    if every[0]["seeds"] > 1:
        spans = [
            {"min": one["bits_per_byte_low"], "max": one["bits_per_byte_high"]}
            if one["bits_per_byte"]
            else None
            for one in every
        ]
        section.rows.append((f"of {every[0]['seeds']} seeds", [spread(one) for one in spans], True))
    section.row("validation loss", [one["loss"] for one in every])
    section.row("tokens trained", [round(one["tokens"]) for one in every])
    section.row("seconds of training", [one["seconds"] for one in every])
    return section


def _languages(report: dict[str, Any]) -> Section:
    last = {
        name: runs[0]["validations"][-1]["by_language"]
        for name, runs in report["tokens"]["runs"].items()
        if runs
    }
    section = Section("Bits per byte by language, equal tokens", list(last))
    for language in next(iter(last.values())):
        section.row(language, [scores[language]["bits_per_byte"] for scores in last.values()])
    return section


def _stability(report: dict[str, Any]) -> Section:
    runs = {name: found for name, found in report["tokens"]["runs"].items() if found}
    section = Section(
        "Stability, equal tokens",
        list(runs),
        "norm tail: the 99th of a hundred gradient norms over the median, the largest of all seeds",
    )
    stable = [[run["stability"] for run in found] for found in runs.values()]
    section.row("loss spikes", [sum(one["spikes"] for one in found) for found in stable])
    lost = [[run["lost"] for run in found if run["lost"]] for found in runs.values()]
    if any(lost):
        section.row("runs lost", [len(found) for found in lost])
    section.row("not finite", [sum(one["not_finite"] for one in found) for found in stable])
    section.row(
        "norm tail",
        [max((one["norm_tail"] for one in found if one["norm_tail"]), default=None) for found in stable],
    )
    bits = [[run["validations"][-1]["bits_per_byte"] for run in found] for found in runs.values()]
    if report["tokens"]["seeds"] > 1:
        section.row(
            "seeds' bits per byte",
            [max(one) - min(one) if None not in one else None for one in bits],
            lambda value: f"+-{value / 2:.4f}",
        )
    return section


def _generation(point: dict[str, Any], report: dict[str, Any]) -> Section:
    rows = point["rows"]
    section = Section(
        f"Generation after {point['context']:,} tokens, {'batch 1' if rows == 1 else f'{rows} rows at once'}",
        list(point["results"]),
    )
    every = list(point["results"].values())
    base = next((one["over"] for one in every if "over" in one), "")
    section.timed(
        "tokens/s",
        [one.get("tokens_per_second") for one in every],
        [one.get("speed_over") for one in every],
        base,
    )
    section.timed(
        "first token ms",
        [one.get("first_token_seconds") for one in every],
        [one.get("first_token_over") for one in every],
        base,
        1e3,
    )
    section.row(
        "state kB a row", [one["state_bytes"] / 1e3 if "state_bytes" in one else None for one in every]
    )
    if rows == 1:
        section.row("of the bandwidth", [one.get("share_of_bandwidth") for one in every], percent)
    return section


def _few_shot(report: dict[str, Any]) -> Section:
    found = {name: one for name, one in report["few_shot"].items() if "error" not in one}
    section = Section("Few-shot, after equal tokens", list(found))
    every = list(found.values())
    section.row("in-context gain, nats", [one["in_context_gain"] for one in every])
    for key, label in (
        ("repetition", "repetition"),
        ("facts_never_told", "facts, never told"),
        ("facts_in_context", "facts, told before"),
        ("facts_in_memory", "facts, in memory"),
        ("facts_in_memory_behind", "  after a sentence"),
    ):
        section.row(label, [one[key] for one in every], percent)
    return section
