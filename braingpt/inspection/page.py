"""The plots of `inspect-sparsity`, and the page that holds them: tables, heat maps, and the text shaded by
the arithmetic spent on it.
"""

from html import escape
from typing import Any

from braingpt.html import svg
from braingpt.html.page import page as whole_page
from braingpt.html.page import paragraphs, table
from braingpt.inspection.dense_twin import DenseComparison
from braingpt.inspection.runner import Inspection
from braingpt.inspection.sparsity import SparsityReport
from braingpt.inspection.specialisation import Specialisation
from braingpt.tokenizer import Tokenizer
from braingpt.tokenizer.pieces import escaped, pieces

# Tokens of the shaded text, of each language.
SHOWN = 300
# Load, over an even one, that is drawn darkest.
DARKEST_LOAD = 3.0
# Figures drawn over a run's checkpoints.
OVER_TRAINING = ("depth", "attended", "columns_active", "neurons_fired", "load_entropy", "computed")
HEADS = {
    "mixer": "mixer",
    "depth": "depth",
    "attended": "tokens attending",
    "keys_kept": "keys",
    "dendrites_open": "dendrites open",
    "columns_active": "columns",
    "columns_dead": "dead",
    "load_entropy": "entropy of load",
    "neurons_fired": "neurons firing",
    "weights_zero": "zero weights",
    "two_four": "in 2:4 form",
    "memory_reads": "memory reads",
    "memory_writes": "memory writes",
    "computed": "computed",
}
# What the columns of the table mean.
LEGEND = (
    "100 % means no sparsity.",
    "Depth: layers that a token passes. Tokens attending: tokens that query, of those that reach the layer. "
    "Keys: query-key pairs that enter a softmax, of those that causality allows. Columns: those that compute "
    "for a token; dead: columns that won no token. Entropy of load: 100 % when all win equally often. "
    "In 2:4 form: groups of four weights with two zeros or more.",
    "Computed: arithmetic done over that of the same shape done densely. Only this share saves time.",
)
STYLE = (
    ".spent { white-space: pre-wrap; line-height: 1.9; border: 1px solid var(--line); padding: .6rem } "
    ".spent span { border-radius: 2px }"
)


def pictures(inspection: Inspection, over_training: list[dict[str, Any]]) -> dict[str, str]:
    """Each plot as SVG, by a name fit for a file.

    Args:
        inspection: What was found about one checkpoint.
        over_training: Rows of `sparsity_over_training`; empty: no plot of them.
    """
    drawn = {}
    layers = [str(layer) for layer, won in enumerate(inspection.trace.winners) if won is not None]
    for language, rows in inspection.loads.items():
        if rows:
            scale = f"white: none, darkest: {DARKEST_LOAD:g} times"
            title = f"columns by layer, {language}: tokens won over an even share ({scale})"
            name = f"columns-{language.replace('?', 'unknown')}"
            drawn[name] = svg.heatmap(rows, layers, title, darkest=DARKEST_LOAD)
    if inspection.specialisation:
        drawn["specialisation"] = _specialisation(inspection.specialisation)
    depths = inspection.depths()
    drawn["depth"] = svg.histogram(depths, list(map(str, range(len(depths)))), "tokens by layers passed")
    if inspection.achieved:
        bars = _achieved_bars(inspection.achieved[-1])
        drawn["achieved"] = svg.bars(bars, "the model, as a share of its dense twin")
    if over_training:
        drawn["growth"] = _over_training(over_training)
    return drawn


def _specialisation(rows: list[Specialisation]) -> str:
    curves = {}
    for label in dict.fromkeys(row.label for row in rows):
        curves[label] = [(row.layer, row.share) for row in rows if row.label == label]
        curves[f"{label}, shuffled"] = [(row.layer, row.shuffled) for row in rows if row.label == label]
    title = "what the winning column says about the label, as a share of the label's entropy"
    return svg.lines(curves, title, "layer")


def _over_training(rows: list[dict[str, Any]]) -> str:
    curves = {}
    for name in OVER_TRAINING:
        if points := [(row["step"], row[name]) for row in rows if row[name] is not None]:
            curves[name.replace("_", " ")] = points
    return svg.lines(curves, "over training", "step")


def page(head: dict[str, Any], inspection: Inspection, drawn: dict[str, str], tokenizer: Tokenizer) -> str:
    """The HTML page of an inspection.

    Args:
        head: The first entries of the JSON: recipe, step, text.
        inspection: What was found.
        drawn: Plots of `pictures`.
        tokenizer: The model's vocabulary, for the shaded text.
    """
    report = inspection.report
    body = [
        paragraphs(f"{report.tokens:,} tokens of {head['text']}, windows of {report.context}"),
        "<h2>Promised and counted</h2>",
        _layers(report),
        paragraphs(*LEGEND, quiet=True),
    ]
    if inspection.achieved:
        about = (
            "Each figure is a share of a dense twin's on this machine. "
            "A layer that computes all and masks it shows 100 % of time and bytes."
        )
        body += ["<h2>Achieved</h2>", _achieved(inspection.achieved), paragraphs(about, quiet=True)]
    body += [
        "<h2>Pictures</h2>",
        *(f"<h3>{escape(name.replace('-', ', '))}</h3>{drawing}" for name, drawing in drawn.items()),
        "<h2>The text</h2>",
        paragraphs("The darker a token, the more arithmetic was spent on it."),
        _shaded(inspection, tokenizer),
    ]
    return whole_page(f"braingpt inspect-sparsity: {head['recipe']}, step {head['step']}", body, STYLE)


def _layers(report: SparsityReport) -> str:
    rows = [
        [str(row.layer) if row.layer is not None else "all", *(_cell(getattr(row, name)) for name in HEADS)]
        for row in report.layers
    ]
    figures = [name for name in HEADS if name != "mixer"]
    total = ["all", "", *(_cell(getattr(report.total, name)) for name in figures)]
    promise = ["promised", "", *(_cell(report.promised.get(name)) for name in figures)]
    return table(["layer", *HEADS.values()], [*rows, total, promise], words=2)


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
    return [(name, share, _cell(share)) for name, share in names.items() if share is not None]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{100 * value:.1f} %"
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _shaded(inspection: Inspection, tokenizer: Tokenizer) -> str:
    """The first tokens of each part on a blue as strong as the arithmetic spent on them; pointing at a token
    shows the share.
    """
    parts, ends = [], [*inspection.starts.values(), len(inspection.trace.ids)][1:]
    low, high = float(inspection.spent.min()), float(inspection.spent.max())
    for (name, first), end in zip(inspection.starts.items(), ends, strict=True):
        ids = inspection.trace.ids[first : min(end, first + SHOWN)]
        spans, at = [], first
        for piece in pieces(tokenizer, ids):
            share = float(inspection.spent[at : at + len(piece.ids)].mean())
            shade = 0.6 * (share - low) / (high - low) if high > low else 0.3
            text = "\n".join(map(escaped, piece.text.split("\n")))
            style = f"background:rgba(27,108,168,{shade:.2f})"
            spans.append(f'<span style="{style}" title="{100 * share:.0f} %">{escape(text)}</span>')
            at += len(piece.ids)
        parts.append(f'<h3>{escape(name)}</h3><div class="spent">{"".join(spans)}</div>')
    return "".join(parts)
