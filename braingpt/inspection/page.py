"""The pictures of `inspect-sparsity`, and the page they stand on: tables, heat maps, the text coloured by
what was spent on it.
"""

from html import escape
from typing import Any

from braingpt.html import svg
from braingpt.html.page import page as whole_page
from braingpt.html.page import paragraphs, table
from braingpt.inspection.dense_twin import DenseComparison
from braingpt.inspection.runner import Inspection
from braingpt.tokenizer.pieces import escaped, pieces

# tokens of the coloured text, of each language
SHOWN = 300
# times an even load that is drawn darkest
EVEN = 3.0
GROWN = ("depth", "attended", "columns_active", "neurons_fired", "load_entropy", "computed")
HEADS = {
    "mixer": "mixer", "depth": "depth", "attended": "tokens attending", "keys_kept": "keys", "dendrites_open": "dendrites open",
    "columns_active": "columns", "columns_dead": "dead", "load_entropy": "entropy of load", "neurons_fired": "neurons firing",
    "weights_zero": "zero weights", "two_four": "in 2:4 form", "memory_reads": "memory reads", "memory_writes": "memory writes",
    "computed": "computed",
}  # fmt: skip
STYLE = ".spent { white-space: pre-wrap; line-height: 1.9; border: 1px solid var(--line); padding: .6rem } .spent span { border-radius: 2px }"


def pictures(look: Inspection, grown: list[dict[str, Any]]) -> dict[str, str]:
    """Each plot as SVG, by a name fit for a file."""
    drawn = {}
    layers = [str(layer) for layer, won in enumerate(look.trace.winners) if won is not None]
    for language, rows in look.loads.items():
        if rows:
            title = f"columns by layer, {language}: tokens won over an even share (white: none, darkest: {EVEN:g} times)"
            drawn[f"columns-{language.replace('?', 'unknown')}"] = svg.heatmap(rows, layers, title, most=EVEN)
    if look.specialisation:
        curves = {}
        for label in dict.fromkeys(one.label for one in look.specialisation):
            curves[label] = [(one.layer, one.share) for one in look.specialisation if one.label == label]
            curves[f"{label}, shuffled"] = [
                (one.layer, one.shuffled) for one in look.specialisation if one.label == label
            ]
        drawn["specialisation"] = svg.lines(
            curves, "what the winning column tells, as a share of the label's entropy", "layer"
        )
    depths = look.depths()
    drawn["depth"] = svg.histogram(
        depths, [str(layer) for layer in range(len(depths))], "tokens by layers gone through"
    )
    if look.achieved:
        drawn["achieved"] = svg.bars(
            _achieved_bars(look.achieved[-1]), "the model, as a share of its dense twin"
        )
    if grown:
        curves = {
            name: [(one["step"], one[name]) for one in grown if one[name] is not None] for name in GROWN
        }
        drawn["growth"] = svg.lines(
            {name.replace("_", " "): points for name, points in curves.items() if points},
            "over training",
            "step",
        )
    return drawn


def page(head: dict[str, Any], look: Inspection, drawn: dict[str, str], tokenizer: Any) -> str:
    """The HTML of what was found. `head`: the JSON's first entries; `drawn`: of `pictures`."""
    body = [
        paragraphs(f"{look.report.tokens:,} tokens of {head['text']}, windows of {look.report.context}"),
        "<h2>Promised and counted</h2>", _layers(look),
        paragraphs("Shares of 100 % mean no sparsity. Computed: arithmetic done over that of the same shape done densely.", quiet=True),
    ]  # fmt: skip
    if look.achieved:
        about = "Each figure is a share of a dense twin's on this machine. A layer that computes all and masks it shows 100 % of time and bytes."
        body += ["<h2>Achieved</h2>", _achieved(look.achieved), paragraphs(about, quiet=True)]
    body += [
        "<h2>Pictures</h2>",
        *(f"<h3>{escape(name.replace('-', ', '))}</h3>{drawing}" for name, drawing in drawn.items()),
        "<h2>The text</h2>",
        paragraphs("The darker, the more was spent on a token."),
        _coloured(look, tokenizer),
    ]
    return whole_page(f"braingpt inspect-sparsity: {head['recipe']}, step {head['step']}", body, STYLE)


def _layers(look: Inspection) -> str:
    rows = [
        [str(row.layer) if row.layer is not None else "all", *(_cell(getattr(row, name)) for name in HEADS)]
        for row in look.report.layers
    ]
    total = ["all", *("" if name == "mixer" else _cell(getattr(look.report.total, name)) for name in HEADS)]
    promise = [
        "promised",
        *("" if name == "mixer" else _cell(look.report.promised.get(name)) for name in HEADS),
    ]
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
    names = {"promised": whole.promised, "counted": whole.counted, "time, reading": whole.reading_time, "bytes, reading": whole.reading_bytes,
             "time, writing": whole.writing_time, "bytes, writing": whole.writing_bytes}  # fmt: skip
    return [(name, share, _cell(share)) for name, share in names.items() if share is not None]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{100 * value:.1f} %"
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _coloured(look: Inspection, tokenizer: Any) -> str:
    """The first tokens of each part, on a blue as strong as what was spent on them; the figure stands where
    the pointer rests.
    """
    parts, ends = [], [*look.starts.values(), len(look.trace.ids)][1:]
    low, high = float(look.spent.min()), float(look.spent.max())
    for (name, first), end in zip(look.starts.items(), ends, strict=True):
        ids = look.trace.ids[first : min(end, first + SHOWN)]
        spans, at = [], first
        for piece in pieces(tokenizer, ids):
            share = float(look.spent[at : at + len(piece.ids)].mean())
            shade = 0.6 * (share - low) / (high - low) if high > low else 0.3
            text = "\n".join(map(escaped, piece.text.split("\n")))
            spans.append(
                f'<span style="background:rgba(27,108,168,{shade:.2f})" title="{100 * share:.0f} %">{escape(text)}</span>'
            )
            at += len(piece.ids)
        parts.append(f'<h3>{escape(name)}</h3><div class="spent">{"".join(spans)}</div>')
    return "".join(parts)
