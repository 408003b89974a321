"""The result of `braingpt eval` on the terminal: tables of losses, tasks and differences."""

from typing import TYPE_CHECKING, Any

from braingpt.cli.console import print_line
from braingpt.utils.formatting import number

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from braingpt.evaluation.perplexity import Scores
    from braingpt.evaluation.runner import EvalResult
    from braingpt.evaluation.uncertainty import Comparison, Figure


def print_result(
    out: "Console", result: dict[str, Any], measured: "EvalResult", comparisons: list["Comparison"]
) -> None:
    """Print what was measured, and the difference from another checkpoint.

    Args:
        out: The console.
        result: The result as in JSON.
        measured: The figures.
        comparisons: Differences from another checkpoint; none without one.
    """
    scope = (
        f"{result['data']}, windows of {result['context']:,} tokens"
        if measured.scores
        else f"at most {result['context']:,} tokens"
    )
    print_line(out, f"{result['recipe']}, step {result['step']}: {scope}")
    if result["halting"]:
        print_line(out, f"a token passes through {result['layers_used']:.1%} of the layers on average")
    if measured.scores:
        out.print(_perplexity_table(measured.scores, measured.figures))
    task_figures = [figure for figure in measured.figures if figure.task != "perplexity"]
    if task_figures:
        out.print(_task_table(task_figures))
    if comparisons:
        other = result["against"]
        print_line(out, f"\ncompared with {other['recipe']}, step {other['step']} ({other['run']}):")
        out.print(_comparison_table(comparisons))
        out.print("p: how often chance alone makes a difference this large, each row by itself", style="dim")
    for note in measured.notes:
        print_line(out, note)


def _new_table(words: tuple[str, ...], numbers: tuple[str, ...]) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in words:
        table.add_column(head, overflow="fold")
    for head in numbers:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _perplexity_table(scores: "Scores", figures: list["Figure"]) -> "Table":
    table = _new_table(("language",), ("tokens", "loss", "perplexity", "bits per byte", "95 % interval"))
    bits = {
        figure.language: figure for figure in figures if figure.name[::2] == ("perplexity", "bits_per_byte")
    }
    rows = list(scores.by_language.items())
    for name, score in [*rows, *([("all", scores)] if len(rows) > 1 else [])]:
        cells = (
            number(score.loss),
            number(score.perplexity, 2),
            number(score.bits_per_byte),
            interval_text(bits[name].interval()),
        )
        table.add_row(name, f"{score.tokens:,}", *cells, style="bold" if name == "all" else None)
    return table


def _task_table(figures: list["Figure"]) -> "Table":
    table = _new_table(("task",), ("value", "95 % interval", "chance", "items"))
    for figure in figures:
        chance = "-" if figure.chance is None else number(figure.chance)
        table.add_row(
            figure.label,
            number(figure.value),
            interval_text(figure.interval()),
            chance,
            f"{len(figure.amount):,}",
        )
    return table


def _comparison_table(comparisons: list["Comparison"]) -> "Table":
    """A row is bold where the interval excludes zero.

    The loss is in the JSON only, since bits per byte show the same.
    """
    table = _new_table(("task",), ("this", "other", "difference", "95 % interval", "p"))
    for one in comparisons:
        if one.first.name[::2] == ("perplexity", "loss"):
            continue
        clear = one.interval is not None and (one.interval[0] > 0 or one.interval[1] < 0)
        p = "-" if one.p is None else f"{one.p:.3f}" if one.p >= 0.001 else "<0.001"
        values = (
            number(one.first.value),
            number(one.second.value),
            f"{one.difference:+.4f}",
            interval_text(one.interval, "+.4f", " to "),
        )
        table.add_row(one.first.label, *values, p, style="bold" if clear else None)
    return table


def interval_text(interval: tuple[float, float] | None, form: str = ".3f", between: str = " - ") -> str:
    """An interval for a table; a dash for None."""
    return "-" if interval is None else f"{interval[0]:{form}}{between}{interval[1]:{form}}"
