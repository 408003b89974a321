"""The claims of the earlier work of this name beside the measurements of this run: reached, not reached, or
not measured here.

The earlier numbers came without data, tokenizer or machine. So those of perplexity and of memory by size
cannot be repeated, only compared with ours.
"""

from collections.abc import Callable
from typing import Any

from braingpt.bench.clock import Series
from braingpt.utils.formatting import byte_size, percent

# Whether the claim is reached (None: not measured or not comparable), and the measurement in words.
Verdict = tuple[bool | None, str]

PERPLEXITIES = {"small": 32.4, "medium": 24.7, "large": 19.8}
MEMORY_GB = {"small": 0.5, "medium": 2.8, "large": 6.2, "xlarge": 24.0}


def claims(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The claims in the order they were made.

    Returns:
        [{"claim", "reached", "measured"}]; "reached" is None for what is not measured here or not comparable,
        and "measured" says which.
    """
    size = report["settings"]["size"]
    table: list[tuple[str, Callable[[dict[str, Any]], Verdict]]] = [
        ("v2 trains 3 to 5 times as fast as v1", _training),
        ("v2 takes 50 to 67 % less memory than v1", _memory),
        ("v2 generates 4 to 5 times as fast as v1", _generation),
        ("v2 generates more than 200 tokens a second, v1 45", _speeds),
        ("training v2 is stable: no loss spikes where v1 or dense has none", _stability),
        ("v2 learns from a few examples", lambda report: _few_shot(report, "v2")),
        ("v1 does not", _not_few_shot),
        ("95 % fewer active parameters than dense at like quality", _active),
        ("10 to 20 times as fast as dense in generation", _inference),
        ("5 to 10 times less memory than dense when generating", _edge),
    ]
    if size in PERPLEXITIES:
        table.append((f"perplexity {PERPLEXITIES[size]} at size {size}", _perplexity))
    if size in MEMORY_GB:
        table.append((f"{MEMORY_GB[size]} GB of memory at size {size}", _memory_by_size))
    return [
        {"claim": claim, "reached": reached, "measured": words}
        for claim, judge in table
        for reached, words in [judge(report)]
    ]


def _missing(*names: str) -> Verdict:
    return None, f"not measured here: needs {' and '.join(names)}"


def _has(report: dict[str, Any], stage: str, *names: str) -> bool:
    return all(name in (report.get(stage) or {}) for name in names)


def _range(series: dict[str, Any]) -> str:
    return f"{series['median']:.2f} times ({series['min']:.2f}-{series['max']:.2f})"


def _over(rounds: dict[str, Any], below: dict[str, Any]) -> dict[str, float]:
    """The ratio of two series of the same interleaved rounds."""
    return Series(rounds["rounds"]).over(Series(below["rounds"])).as_dict()


def _training(report: dict[str, Any]) -> Verdict:
    if not _has(report, "speed", "v1", "v2"):
        return _missing("v1", "v2")
    ratio = _over(report["speed"]["v2"]["step"], report["speed"]["v1"]["step"])
    s = report["settings"]
    return ratio["median"] >= 3, f"{_range(ratio)}, whole steps of {s['batch']} x {s['context']:,} tokens"


def _memory(report: dict[str, Any]) -> Verdict:
    if not _has(report, "memory", "v1", "v2"):
        return _missing("v1", "v2")
    v1, v2 = (report["memory"][name] for name in ("v1", "v2"))
    change = f"{100 * abs(1 - v2 / v1):.0f} % {'less' if v2 <= v1 else 'more'}"
    return v2 <= 0.5 * v1, f"{change}: {byte_size(v2)} against {byte_size(v1)}, training's peak"


def _point(report: dict[str, Any], *names: str) -> dict[str, Any] | None:
    """Generation of one row after the context nearest 1,024 at which all the names were measured."""
    points = [
        p
        for p in report.get("generation") or []
        if p["rows"] == 1 and all("error" not in p["results"].get(n, {"error": ""}) for n in names)
    ]
    return min(points, key=lambda point: abs(point["context"] - 1024), default=None)


def _generated(report: dict[str, Any], base: str, least: float) -> Verdict:
    point = _point(report, "v2", base)
    if point is None:
        return _missing("v2", base, "one row")
    ratio = _over(*(point["results"][name]["tokens_per_second"] for name in ("v2", base)))
    words = f"{_range(ratio)}, batch 1 after {point['context']:,} tokens, {_how(report)}"
    return ratio["median"] >= least, words


def _how(report: dict[str, Any]) -> str:
    return "compiled" if report["settings"]["compile"] else "eager"


def _generation(report: dict[str, Any]) -> Verdict:
    return _generated(report, "v1", 4)


def _inference(report: dict[str, Any]) -> Verdict:
    return _generated(report, "dense", 10)


def _speeds(report: dict[str, Any]) -> Verdict:
    point = _point(report, "v2")
    if point is None:
        return _missing("v2", "one row")
    speeds = {
        name: point["results"][name]["tokens_per_second"]["median"]
        for name in ("v1", "v2")
        if "tokens_per_second" in point["results"].get(name, {})
    }
    words = ", ".join(f"{name} {value:,.0f}" for name, value in speeds.items())
    where = f"size {report['settings']['size']}, batch 1 after {point['context']:,} tokens, {_how(report)}"
    return speeds["v2"] > 200, f"{words} tokens a second, {where}"


def _stability(report: dict[str, Any]) -> Verdict:
    """All trainings count, for equal tokens and for equal time."""
    stages = [report[stage]["runs"] for stage in ("tokens", "time") if report.get(stage)]
    runs = {name: [run for stage in stages for run in stage.get(name, [])] for name in ("v2", "v1", "dense")}
    others = [name for name in ("v1", "dense") if runs[name]]
    if not runs["v2"] or not others:
        return _missing("v2", "v1 or dense")
    spikes = {name: sum(run["stability"]["spikes"] for run in runs[name]) for name in ("v2", *others)}
    words = ", ".join(
        f"{name} {count} in {sum(run['steps'] for run in runs[name]):,} steps"
        for name, count in spikes.items()
    )
    return spikes["v2"] <= min(spikes[name] for name in others), f"spikes: {words}"


def _few_shot(report: dict[str, Any], name: str) -> Verdict:
    """Whether most facts come back that were told in the context, or taught once to the model's memory."""
    found = (report.get("few_shot") or {}).get(name, {})
    if "facts_in_context" not in found:
        return _missing(name)
    behind = percent(found["facts_in_memory_behind"])
    words = (
        f"facts recalled: never told {percent(found['facts_never_told'])}, "
        f"told in the context {percent(found['facts_in_context'])}, "
        f"taught to its memory {percent(found['facts_in_memory'])} (after another sentence {behind})"
    )
    return max(found["facts_in_context"], found["facts_in_memory"] or 0) >= 0.5, words


def _not_few_shot(report: dict[str, Any]) -> Verdict:
    reached, words = _few_shot(report, "v1")
    if reached is None:
        return None, words
    return not reached, f"{words}: the memory works beside any architecture"


def _active(report: dict[str, Any]) -> Verdict:
    view = next(
        (
            v
            for v in report.get("views") or []
            if v["parameters"] == "total"
            and v["budget"] == "tokens"
            and {"v2", "dense"} <= set(v["contenders"])
        ),
        None,
    )
    if view is None:
        return _missing("v2", "dense of equal total")
    active = {name: report["contenders"][name]["parameters_active"] for name in ("v2", "dense")}
    fewer = 1 - active["v2"] / active["dense"]
    v2, dense = (view["contenders"][name]["bits_per_byte"] for name in ("v2", "dense"))
    if v2 is None or dense is None:
        return None, "the loss was not finite"
    change = f"bits per byte {100 * (v2 / dense - 1):+.1f} % after {view['words'].partition(', ')[2]}"
    return fewer >= 0.95 and v2 <= 1.01 * dense, f"{100 * fewer:.0f} % fewer; {change}"


def _edge(report: dict[str, Any]) -> Verdict:
    points = [
        p
        for p in report.get("generation") or []
        if p["rows"] == 1 and all("state_bytes" in p["results"].get(n, {}) for n in ("v2", "dense"))
    ]
    if not points:
        return _missing("v2", "dense", "one row")
    point = max(points, key=lambda point: point["context"])
    held = {
        n: 4 * report["contenders"][n]["parameters_total"] + point["results"][n]["state_bytes"]
        for n in ("v2", "dense")
    }
    state = point["results"]["dense"]["state_bytes"] / point["results"]["v2"]["state_bytes"]
    words = (
        f"{held['dense'] / held['v2']:.2f} times less with the weights (float32), "
        f"{state:.1f} times less state, after {point['context']:,} tokens"
    )
    return held["dense"] / held["v2"] >= 5, words


def _perplexity(report: dict[str, Any]) -> Verdict:
    words = []
    for name in ("v1", "v2"):
        runs = (report.get("tokens") or {}).get("runs", {}).get(name)
        value = runs[0]["validations"][-1]["perplexity"] if runs else None
        words += [f"{name} {value:,.1f}"] if value is not None else []
    if not words:
        return _missing("v1 or v2")
    s = report["settings"]
    where = f"on {', '.join(s['folders'])} after {report['tokens']['tokens']:,} tokens"
    return None, f"{', '.join(words)} {where}; not comparable: the text of the claim is not known"


def _memory_by_size(report: dict[str, Any]) -> Verdict:
    found = {name: report["memory"][name] for name in ("v1", "v2") if _has(report, "memory", name)}
    if not found:
        return _missing("v1 or v2")
    words = ", ".join(f"{name} {value / 1e9:.2f} GB" for name, value in found.items())
    s = report["settings"]
    reached = min(found.values()) <= 1e9 * MEMORY_GB[s["size"]]
    return reached, f"{words}: training's peak with {s['batch']} x {s['context']:,} tokens a step"
