"""The HTML page of `braingpt eval`: tables and plots of one result, with nothing to load from elsewhere."""

from typing import Any

from braingpt.evaluation.perplexity import Score, Scores
from braingpt.evaluation.runner import EvalResult
from braingpt.evaluation.uncertainty import CONFIDENCE, RESAMPLES, Comparison, Figure
from braingpt.html.bars import bars
from braingpt.html.page import page as whole_page
from braingpt.html.page import pairs, paragraphs, table, text
from braingpt.utils.formatting import readable

METHOD = (
    f"Intervals: {CONFIDENCE:.0%} percentile bootstrap over windows or items, {RESAMPLES:,} resamples, "
    "within each language. Differences: the same windows and items read by both models; p by sign-flip "
    "permutation, not corrected for the number of rows. Bits per byte: nats of the tokens that are text, "
    "over ln 2, over their bytes of UTF-8; bits per byte compare across tokenizers."
)
LOWER = "Lower is better. The thin line along a bar is the 95 % interval."
CHANCE = "The thin line along a bar is the 95 % interval; the red line across is chance."


def page(result: dict[str, Any], measured: EvalResult, comparisons: list[Comparison]) -> str:
    """The HTML page of a result.

    Args:
        result: The JSON of `braingpt eval`.
        measured: The figures in it, with their units.
        comparisons: With another checkpoint; empty where there is none.
    """
    body = [_about(result)]
    if measured.scores:
        body += [f"<h2>Perplexity</h2>{_perplexity(measured.scores, measured.figures)}"]
    accuracies = [figure for figure in measured.figures if figure.task != "perplexity"]
    if accuracies:
        body += [f"<h2>Tasks</h2>{_tasks(accuracies)}"]
    if comparisons:
        body += [f"<h2>Compared with {text(_title(result['against']))}</h2>", _differences(comparisons)]
    return whole_page(
        f"braingpt eval: {_title(result)}", [*body, paragraphs(*measured.notes, METHOD, quiet=True)]
    )


def _title(head: dict[str, Any]) -> str:
    return f"{head['recipe']}, step {head['step']:,}"


def _about(result: dict[str, Any]) -> str:
    names = {
        "run": "checkpoint",
        "data": "text",
        "context": "tokens a window",
        "dtype": "weights",
        "layers_used": "share of the layers used",
    }
    return pairs({name: str(result[key]) for key, name in names.items() if result[key] is not None})


def _perplexity(scores: Scores, figures: list[Figure]) -> str:
    bits = [figure for figure in figures if figure.metric == "bits_per_byte" and figure.task == "perplexity"]
    of_language: dict[str, Score] = {**scores.by_language, "all": scores}
    rows = [
        (
            f.language,
            of_language[f.language].tokens,
            *map(readable, (of_language[f.language].loss, of_language[f.language].perplexity, f.value)),
            _interval(f),
        )
        for f in bits
    ]
    heads = ["language", "tokens", "loss", "perplexity", "bits per byte", "95 % interval"]
    meanings = {
        "loss": "nats a token on this text; lower is better",
        "perplexity": "e to the power of the loss: among how many equally likely tokens the model chooses",
        "bits per byte": "bits to encode one byte of the text; compares across tokenizers",
    }
    plot = _bars(
        bits, [figure.language for figure in bits], "Bits per byte by language", "bits per byte", LOWER
    )
    return table(heads, rows) + pairs(meanings) + plot


def _tasks(figures: list[Figure]) -> str:
    rows = [
        (figure.label, readable(figure.value), _interval(figure), readable(figure.chance), len(figure.amount))
        for figure in figures
    ]
    shares = [figure for figure in figures if figure.value is not None and 0 <= figure.value <= 1]
    heads = ["task", "value", "95 % interval", "chance", "items"]
    labels = [figure.label for figure in shares]
    return table(heads, rows) + _bars(
        shares, labels, "Right answers by task", "share of the items answered rightly", CHANCE
    )


def _differences(comparisons: list[Comparison]) -> str:
    rows = [
        (
            one.first.label,
            *map(readable, (one.first.value, one.second.value)),
            _signed(one.difference),
            "-" if one.interval is None else f"{_signed(one.interval[0])} to {_signed(one.interval[1])}",
            "-" if one.p is None else f"{one.p:.4f}",
        )
        for one in comparisons
    ]
    return table(["task", "this", "that", "difference", "95 % interval", "p"], rows)


def _signed(value: float | None) -> str:
    return ("+" if value is not None and value > 0 else "") + readable(value)


def _bars(figures: list[Figure], labels: list[str], title: str, unit: str, caption: str) -> str:
    rows: list[tuple[str, float, str]] = []
    spread: list[tuple[float, float]] = []
    chances: list[float | None] = []
    for figure, label in zip(figures, labels, strict=True):
        if (value := figure.value) is not None:
            rows.append((label, value, readable(value)))
            spread.append(figure.interval() or (value, value))
            chances.append(figure.chance)
    return bars(rows, title, unit, caption=caption, spread=spread, marks=chances).html() if rows else ""


def _interval(figure: Figure) -> str:
    interval = figure.interval()
    return "-" if interval is None else f"{readable(interval[0])} to {readable(interval[1])}"
