"""The plots of `inspect-sparsity`, and the page that holds them: tables, heat maps, and the text shaded by
the arithmetic spent on it.
"""

import re
from html import escape
from typing import Any

from braingpt.html.bars import bars, histogram
from braingpt.html.figure import Plot
from braingpt.html.heatmap import heatmap
from braingpt.html.lines import lines
from braingpt.html.page import colour_scale, pairs, paragraphs, table, text
from braingpt.html.page import page as whole_page
from braingpt.html.palette import scale_step
from braingpt.inspection.dense_twin import DenseComparison
from braingpt.inspection.runner import Inspection
from braingpt.inspection.sparsity import SparsityReport
from braingpt.inspection.specialisation import Specialisation
from braingpt.tokenizer import Tokenizer
from braingpt.tokenizer.pieces import escaped, pieces
from braingpt.utils.formatting import percent
from braingpt.utils.terminal_text import visible

# Tokens of the shaded text, of each language.
SHOWN = 300
# Load, over an even one, that has the last colour of the scale.
HIGHEST_LOAD = 3.0
# Figures drawn over a run's checkpoints.
OVER_TRAINING = ("depth", "attended", "columns_active", "neurons_fired", "load_entropy", "computed")
# Columns of the table, that which saves time first of all numbers.
HEADS = {
    "mixer": "mixer",
    "computed": "computed",
    "depth": "depth",
    "attended": "attended",
    "keys_kept": "keys",
    "dendrites_open": "dendrites",
    "columns_active": "columns",
    "columns_dead": "dead",
    "load_entropy": "evenness",
    "neurons_fired": "neurons",
    "weights_zero": "zero weights",
    "two_four": "2:4 form",
    "memory_reads": "reads",
    "memory_writes": "writes",
}
# What the columns of the table mean.
MEANINGS = {
    "mixer": "how the layer lets a token see earlier tokens",
    "computed": "arithmetic done, over that of a layer of the same shape that computes everything; "
    "only this share saves time",
    "depth": "tokens that reach the layer, of all tokens",
    "attended": "tokens that query earlier tokens, of those that reach the layer",
    "keys": "pairs of a query and a key that enter a softmax, of the pairs that causality allows",
    "dendrites": "dendrites that open for a token, of all dendrites",
    "columns": "columns that compute for a token, of all columns",
    "dead": "columns that won no token of this text",
    "evenness": "entropy of the columns' load: 100 % where all columns win equally often, less with "
    "imbalance",
    "neurons": "neurons of the computed columns that fire",
    "zero weights": "weights that are exactly zero",
    "2:4 form": "groups of four weights with at least two zeros",
    "reads": "reads of the delta-rule memory, one a head and token",
    "writes": "reads that also stored more than half of what was new",
}


def pictures(inspection: Inspection, over_training: list[dict[str, Any]]) -> dict[str, Plot]:
    """Each plot by a name fit for a file.

    Args:
        inspection: What was found about one checkpoint.
        over_training: Rows of `sparsity_over_training`; empty: no plot of them.
    """
    drawn = {}
    layers = [str(layer) for layer, won in enumerate(inspection.trace.winners) if won is not None]
    for language, rows in inspection.loads.items():
        if rows:
            name = f"columns-{language.replace('?', 'unknown')}"
            drawn[name] = heatmap(
                rows,
                layers,
                f"Columns by layer: {language}",
                "column",
                "layer",
                "tokens that a column won, in even shares (1: as many as if all columns won equally often)",
                caption="A column with the first colour in one language and a later one in another works for "
                "the other language.",
                highest=HIGHEST_LOAD,
            )
    if inspection.specialisation:
        drawn["specialisation"] = _specialisation(inspection.specialisation)
    depths = inspection.depths()
    drawn["depth"] = histogram(
        depths,
        list(map(str, range(len(depths)))),
        "Tokens by layers passed",
        "layers passed",
        "tokens",
        caption="A token that leaves early passes fewer layers.",
        centred=True,
    )
    if inspection.achieved:
        drawn["achieved"] = bars(
            _achieved_bars(inspection.achieved[-1]),
            "The model beside its dense twin",
            "% of the dense twin's",
            caption="Less than 100 % is saved. The twin has the same shape and computes everything.",
        )
    if over_training:
        drawn["growth"] = _over_training(over_training)
    return drawn


def _specialisation(rows: list[Specialisation]) -> Plot:
    curves, shuffled = {}, []
    for label in dict.fromkeys(row.label for row in rows):
        shuffled.append(f"{label}, shuffled")
        curves[label] = [(row.layer, 100 * row.share) for row in rows if row.label == label]
        curves[shuffled[-1]] = [(row.layer, 100 * row.shuffled) for row in rows if row.label == label]
    return lines(
        curves,
        "What the winning column says about a token",
        "layer",
        "% of the label's entropy",
        caption="100 %: the winning column determines the label. Dashed: the same with shuffled labels, "
        "which is chance.",
        dashed=shuffled,
    )


def _over_training(rows: list[dict[str, Any]]) -> Plot:
    curves = {}
    for name in OVER_TRAINING:
        if points := [(row["step"], 100 * row[name]) for row in rows if row[name] is not None]:
            curves[HEADS[name]] = points
    return lines(
        curves,
        "Sparsity over training",
        "step",
        "%",
        caption="One point for each checkpoint; the words are those of the table above.",
    )


def page(head: dict[str, Any], inspection: Inspection, drawn: dict[str, Plot], tokenizer: Tokenizer) -> str:
    """The HTML page of an inspection.

    Args:
        head: The first entries of the JSON: recipe, step, text.
        inspection: What was found.
        drawn: Plots of `pictures`.
        tokenizer: The model's vocabulary, for the shaded text.
    """
    report = inspection.report
    body = [
        paragraphs(f"{report.tokens:,} tokens of {head['text']}, in windows of {report.context} tokens."),
        "<h2>Promised and counted</h2>",
        paragraphs(
            "Shares of what a dense model does: 100 % means no sparsity. "
            "The last row is what the recipe promises; the others were counted on this text."
        ),
        _layers(report),
    ]
    if inspection.achieved:
        about = (
            "Each figure is a share of a dense twin's on this machine. "
            "A layer that computes all and masks it shows 100 % of time and bytes."
        )
        body += ["<h2>Achieved</h2>", paragraphs(about), _achieved(inspection.achieved)]
    body += [
        "<h2>Plots</h2>",
        *(drawing.html() for drawing in drawn.values()),
        "<h2>The text</h2>",
        paragraphs(
            "The colour of a token is the arithmetic spent on it, as a share of what a token "
            "takes that passes all layers; pointing at a token shows its share."
        ),
        *_shaded(inspection, tokenizer),
    ]
    return whole_page(f"braingpt inspect-sparsity: {head['recipe']}, step {head['step']:,}", body)


def _layers(report: SparsityReport) -> str:
    names = [name for name in HEADS if any(getattr(row, name) is not None for row in report.layers)]
    rows = [
        [str(row.layer) if row.layer is not None else "all", *(_cell(getattr(row, name)) for name in names)]
        for row in report.layers
    ]
    figures = [name for name in names if name != "mixer"]
    total = ["all", "", *(_cell(getattr(report.total, name)) for name in figures)]
    promise = ["promised", "", *(_cell(report.promised.get(name)) for name in figures)]
    heads = [HEADS[name] for name in names]
    meanings = {name: MEANINGS[name] for name in heads}
    return table(["layer", *heads], [*rows, total, promise], words=2) + pairs(meanings)


def _achieved(found: list[DenseComparison]) -> str:
    heads = ["layer", "part", "promised", "counted", "reading: time", "bytes", "writing: time", "bytes"]
    rows = []
    for one in found:
        shares = (
            one.promised,
            one.counted,
            one.reading_time,
            one.reading_bytes,
            one.writing_time,
            one.writing_bytes,
        )
        rows.append(["" if one.layer is None else str(one.layer), one.part, *map(_cell, shares)])
    return table(heads, rows, words=2)


def _achieved_bars(whole: DenseComparison) -> list[tuple[str, float, str]]:
    names = {
        "promised": whole.promised,
        "counted": whole.counted,
        "time, reading": whole.reading_time,
        "bytes, reading": whole.reading_bytes,
        "time, writing": whole.writing_time,
        "bytes, writing": whole.writing_bytes,
    }
    return [(name, 100 * share, percent(share)) for name, share in names.items() if share is not None]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return percent(value)
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _shaded(inspection: Inspection, tokenizer: Tokenizer) -> list[str]:
    """The first tokens of each part in the scale's colour for the arithmetic spent on them."""
    ends = [*inspection.starts.values(), len(inspection.trace.ids)][1:]
    low, high = float(inspection.spent.min()), float(inspection.spent.max())
    parts = [
        colour_scale(f"{100 * low:.0f} %", f"{100 * high:.0f} %")
        if high > low
        else paragraphs(f"Every token took {100 * high:.0f} %.")
    ]
    for (name, first), end in zip(inspection.starts.items(), ends, strict=True):
        ids = inspection.trace.ids[first : min(end, first + SHOWN)]
        spans, at = [], first
        for piece in pieces(tokenizer, ids):
            share = float(inspection.spent[at : at + len(piece.ids)].mean())
            step = scale_step(share - low, high - low) if high > low else 0
            shown = "\n".join(map(escaped, visible(piece.text).split("\n")))
            spans.append(f'<span class="s{step}" title="{100 * share:.0f} %">{escape(shown)}</span>')
            at += len(piece.ids)
        more = end - first - SHOWN
        language = f' lang="{name}"' if re.fullmatch("[a-z]{2,3}", name) else ""
        rest = f" <small>and {more:,} more tokens</small>" if more > 0 else ""
        parts.append(f'<h3>{text(name)}</h3><div class="tokens"{language}>{"".join(spans)}{rest}</div>')
    return parts
