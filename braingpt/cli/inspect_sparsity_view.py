"""How `inspect-sparsity` looks in a terminal: tables within 80 columns, columns as shades, and the text above
bars of what was spent on it.
"""

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from braingpt.utils.formatting import percent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from braingpt.inspection.dense_twin import DenseComparison
    from braingpt.inspection.runner import Inspection
    from braingpt.inspection.sparsity import SparsityReport
    from braingpt.tokenizer import Tokenizer

SHADES, BARS = " ░▒▓█", "▁▂▃▄▅▆▇█"
# Cells of a row of shades; more columns than this share cells.
WIDEST = 60
# Colours behind the text, from little to much.
TINTS = (255, 195, 153, 117, 111)
# Fields of a layer's sparsity and their heads, short enough for 80 columns. A model has either dendrites (v1)
# or exits (v2), which share a place.
LAYER_HEADS = {
    "attended": "tokens",
    "keys_kept": "keys",
    "depth": "depth",
    "dendrites_open": "dendr.",
    "columns_active": "columns",
    "columns_dead": "dead",
    "load_entropy": "even",
    "neurons_fired": "neurons",
    "weights_zero": "zero w.",
    "computed": "computed",
}
# Fields of all layers that change over training.
TRAINING_HEADS = {
    "depth": "depth",
    "attended": "tokens",
    "columns_dead": "dead",
    "load_entropy": "even",
    "neurons_fired": "neurons",
    "computed": "computed",
}


def layer_table(report: "SparsityReport") -> "Table":
    """One row for each layer, one for all of them, and one for what the recipe promises."""
    from rich.table import Table

    absent = "dendrites_open" if report.total.depth < 1 else "depth"
    names = [name for name in LAYER_HEADS if name != absent]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for head in ("layer", "mixer", *(LAYER_HEADS[name] for name in names)):
        table.add_column(head, justify="left" if head == "mixer" else "right", no_wrap=True)
    for row in [*report.layers, report.total]:
        is_total = row is report.total
        table.add_row(
            "all" if is_total else str(row.layer),
            "" if is_total else row.mixer,
            *(_cell(name, getattr(row, name)) for name in names),
            style="bold" if is_total else None,
        )
    table.add_row("recipe", "", *(_cell(name, report.promised.get(name)) for name in names), style="dim")
    return table


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value)
    return f"{value:.2f}" if name == "load_entropy" else share(value)


def share(value: float | None) -> str:
    """A share as percent without a space; a dash for None."""
    return percent(value).replace(" ", "")


def twin_table(comparisons: Sequence["DenseComparison"]) -> "Table":
    """Promised, counted and measured values of each part, as shares of the dense twin's."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in ("layer", "part", "promised", "counted", "reading: time", "bytes", "writing: time", "bytes"):
        table.add_column(head, justify="left" if head == "part" else "right", no_wrap=True)
    for one in comparisons:
        shares = (
            one.promised,
            one.counted,
            one.reading_time,
            one.reading_bytes,
            one.writing_time,
            one.writing_bytes,
        )
        is_model = one.layer is None
        table.add_row(
            "" if is_model else str(one.layer),
            one.part,
            *map(share, shares),
            style="bold" if is_model else None,
        )
    return table


def busy_line() -> str | None:
    """A warning where other programs use the processors, by the load average of the last minute."""
    # Windows has no load average.
    if not hasattr(os, "getloadavg"):
        return None
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    if load <= processors + 1:
        return None
    return f"{load:.1f} programs share {processors} processors, so the times are unreliable"


def column_lines(inspection: "Inspection") -> Iterator[str]:
    """The columns of each layer in a row, darker for more tokens won: from none to twice an even share."""
    from braingpt.inspection.specialisation import loads

    trace = inspection.trace
    layers = [layer for layer, winners in enumerate(trace.winners) if winners is not None]
    for layer, row in zip(layers, loads(trace, ["all"] * len(trace.ids))["all"], strict=True):
        step = -(-len(row) // WIDEST)
        cells = [
            sum(row[start : start + step]) / len(row[start : start + step])
            for start in range(0, len(row), step)
        ]
        yield f"{layer:5} " + "".join(SHADES[min(len(SHADES) - 1, round(2 * load))] for load in cells)


def specialisation_table(inspection: "Inspection") -> "Table":
    """What the winning columns reveal about each label, by layer, as a share, and by chance."""
    from rich.table import Table

    labels = list(dict.fromkeys(one.label for one in inspection.specialisation))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in ("layer", *(part for label in labels for part in (label, "chance"))):
        table.add_column(head, justify="right", no_wrap=True)
    for layer in dict.fromkeys(one.layer for one in inspection.specialisation):
        by_label = {one.label: one for one in inspection.specialisation if one.layer == layer}
        cells: list[str] = []
        for label in labels:
            one = by_label.get(label)
            cells += [share(one.share), share(one.shuffled)] if one else ["-", "-"]
        table.add_row(str(layer), *cells)
    return table


def optional_lines(inspection: "Inspection") -> Iterator[str]:
    """What only some models have: 2:4 weights, a memory in the network, tokens that leave early."""
    report, total = inspection.report, inspection.report.total
    if report.promised["two_four"]:
        yield f"2:4 form: {total.two_four:.1%} of the MLP's groups of four weights have two zeros or more"
    if total.memory_reads:
        yield (
            f"memory: {total.memory_reads:,} reads; "
            f"{total.memory_writes:,} writes that bound more than half of what was new"
        )
    if use := inspection.head:
        yield (
            f"head: {use.classes} classes of {use.width} words; of the vocabulary's rows, writing a token "
            f"reads {use.greedy:.1%} greedily, {use.sampled:.1%} at temperature 0.8, {use.narrowed:.1%} with "
            "top-p 0.9 as well"
        )
    depths = inspection.depths()
    if depths[-1] < report.tokens:
        shares = (f"{n}: {count / report.tokens:.0%}" for n, count in enumerate(depths) if count)
        yield f"share of the tokens by layers passed through: {', '.join(shares)}"


def memory_lines(use: dict[str, int]) -> Iterator[str]:
    """What a memory file was asked, and how often it was believed."""
    yield (
        f"memory file: {use['entries']:,} entries; {use['reads']:,} reads of {use['entries_read']} entries "
        f"each, believed at {use['believed'] / use['tokens']:.1%} of the tokens"
    )
    surprising = use["surprising"] / use["tokens"]
    yield f"{surprising:.1%} of the tokens surprise the model; `memory add` would write an entry for each"


def training_table(checkpoints: Sequence[dict[str, Any]]) -> "Table":
    """One row for each checkpoint."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in ("step", *TRAINING_HEADS.values()):
        table.add_column(head, justify="right", no_wrap=True)
    for one in checkpoints:
        table.add_row(f"{one['step']:,}", *(_cell(name, one[name]) for name in TRAINING_HEADS))
    return table


def print_tokens(out: "Console", inspection: "Inspection", tokenizer: "Tokenizer", tokens: int) -> None:
    """Print what was spent on the tokens: the extremes and the median, then bars below the first tokens."""
    low, middle, high = inspection.summary().values()
    out.print(
        "\nspent on a token, as a share of what the layers could spend: "
        f"{low:.0%} to {high:.0%}, median {middle:.0%}",
        soft_wrap=True,
    )
    out.print(_text_over_bars(inspection, tokenizer, tokens, min(out.width, 80)), soft_wrap=True)


def _text_over_bars(inspection: "Inspection", tokenizer: "Tokenizer", tokens: int, width: int) -> "Text":
    """The first tokens, tinted by what was spent on them.

    Below each piece is a bar as wide as the piece on the screen, where Hangul takes two cells.
    """
    from rich.cells import cell_len
    from rich.text import Text

    from braingpt.tokenizer.pieces import escaped, pieces

    text, line, bars, at = Text(), Text(), "", 0
    low, high = float(inspection.spent.min()), float(inspection.spent.max())
    for piece in pieces(tokenizer, inspection.trace.ids[:tokens]):
        spent = float(inspection.spent[at : at + len(piece.ids)].mean())
        at += len(piece.ids)
        level = (spent - low) / (high - low) if high > low else 0.5
        for character in escaped(piece.text.replace("\n", "↵")):
            if cell_len(bars) + cell_len(character) > width:
                text.append(line).append("\n" + bars + "\n", "dim")
                line, bars = Text(), ""
            line.append(character, f"black on color({TINTS[round(level * (len(TINTS) - 1))]})")
            bars += BARS[round(level * (len(BARS) - 1))] * cell_len(character)
    return text.append(line).append("\n" + bars, "dim")
