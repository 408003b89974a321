"""`inspect-sparsity` in a terminal: tables within 80 columns, columns as shades, the text over bars of what
was spent on it.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from braingpt.cli.options import percent

SHADES, BARS = " ░▒▓█", "▁▂▃▄▅▆▇█"
# columns of shades; more are drawn together
WIDEST = 60
# of the text, from little to much
TINTS = (255, 195, 153, 117, 111)


def layers(report: Any) -> Any:
    """One row a layer. Short heads: it has to fit 80 columns."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    # no model has both: V1 has dendrites, V2 may have exits
    halting = report.total.depth < 1
    fifth = "depth" if halting else "dendrites_open"
    heads = (
        "layer",
        "mixer",
        "tokens",
        "keys",
        "depth" if halting else "dendr.",
        "columns",
        "dead",
        "even",
        "neurons",
        "zero w.",
        "computed",
    )
    for head in heads:
        table.add_column(head, justify="left" if head == "mixer" else "right", no_wrap=True)
    names = (
        "attended",
        "keys_kept",
        fifth,
        "columns_active",
        "columns_dead",
        "load_entropy",
        "neurons_fired",
        "weights_zero",
        "computed",
    )
    for row in [*report.layers, report.total]:
        last = row is report.total
        cells = [_cell(name, getattr(row, name)) for name in names]
        table.add_row(
            "all" if last else str(row.layer),
            "" if last else row.mixer,
            *cells,
            style="bold" if last else None,
        )
    table.add_row("said", "", *(_cell(name, report.promised.get(name)) for name in names), style="dim")
    return table


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    return (
        str(value) if isinstance(value, int) else f"{value:.2f}" if name == "load_entropy" else share(value)
    )


def share(value: float | None) -> str:
    """A share as percent, close together."""
    return percent(value).replace(" ", "")


def achieved(found: Sequence[Any]) -> Any:
    """Promised, counted and measured of each part, as shares of the dense twin's."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in ("layer", "part", "promised", "counted", "reading: time", "bytes", "writing: time", "bytes"):
        table.add_column(head, justify="left" if head == "part" else "right", no_wrap=True)
    for one in found:
        shares = (
            one.promised,
            one.counted,
            one.reading_time,
            one.reading_bytes,
            one.writing_time,
            one.writing_bytes,
        )
        last = one.layer is None
        table.add_row(
            "" if last else str(one.layer), one.part, *map(share, shares), style="bold" if last else None
        )
    return table


def busy() -> str | None:
    """A word where other programs have the processors: a minute's mean of those that want to run, this one
    among them.
    """
    # Windows
    if not hasattr(os, "getloadavg"):
        return None
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    return (
        f"{load:.1f} programs share {processors} processors: times are unsure"
        if load > processors + 1
        else None
    )


def columns(look: Any) -> Iterator[str]:
    """Each layer's columns in a row, the darker the more tokens they won: from none to twice an even share."""
    from braingpt.inspection.specialisation import loads

    for layer, row in zip(
        _with_columns(look), loads(look.trace, ["all"] * len(look.trace.ids))["all"], strict=True
    ):
        step = -(-len(row) // WIDEST)
        cells = [
            sum(row[start : start + step]) / len(row[start : start + step])
            for start in range(0, len(row), step)
        ]
        yield f"{layer:5} " + "".join(SHADES[min(len(SHADES) - 1, round(2 * load))] for load in cells)


def _with_columns(look: Any) -> list[int]:
    return [layer for layer, winners in enumerate(look.trace.winners) if winners is not None]


def told(look: Any) -> Any:
    """What columns tell of each label, by layer, as a share, and by chance."""
    from rich.table import Table

    names = list(dict.fromkeys(one.label for one in look.specialisation))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in ("layer", *(part for name in names for part in (name, "chance"))):
        table.add_column(head, justify="right", no_wrap=True)
    for layer in dict.fromkeys(one.layer for one in look.specialisation):
        found = {one.label: one for one in look.specialisation if one.layer == layer}
        table.add_row(
            str(layer),
            *(
                share(v)
                for name in names
                for v in ((found[name].share, found[name].shuffled) if name in found else (None,) * 2)
            ),
        )
    return table


def some_models_have(look: Any) -> Iterator[str]:
    """2:4 weights, a memory in the network, tokens that leave."""
    report, total = look.report, look.report.total
    if report.promised["two_four"]:
        yield f"2:4 form: {total.two_four:.1%} of the MLP's weights in fours"
    if total.memory_reads:
        yield f"memory: {total.memory_reads:,} reads; {total.memory_writes:,} writes that bound more than half of what was new"
    depths = look.depths()
    if depths[-1] < report.tokens:
        yield f"tokens by layers gone through: {', '.join(f'{n}: {count / report.tokens:.0%}' for n, count in enumerate(depths) if count)}"


def recalled(found: dict[str, int]) -> Iterator[str]:
    """Of a memory file."""
    yield (
        f"memory file: {found['entries']:,} entries, {found['reads']:,} reads of {found['entries_read']} of them, "
        f"believed at {found['believed'] / found['tokens']:.1%} of the tokens"
    )
    yield f"{found['surprising'] / found['tokens']:.1%} of the tokens surprise the model: as many entries would the text write"


def grown(found: Sequence[dict[str, Any]]) -> Any:
    """A row for each checkpoint."""
    from rich.table import Table

    names = {
        "depth": "depth",
        "attended": "tokens",
        "columns_dead": "dead",
        "load_entropy": "even",
        "neurons_fired": "neurons",
        "computed": "computed",
    }
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in ("step", *names.values()):
        table.add_column(head, justify="right", no_wrap=True)
    for one in found:
        table.add_row(f"{one['step']:,}", *(_cell(name, one[name]) for name in names))
    return table


def print_text(out: Any, look: Any, tokenizer: Any, tokens: int) -> None:
    """What was spent on the tokens, in a line and below the first of them."""
    low, middle, high = look.summary().values()
    out.print(f"\nspent on a token, of what the layers could: {low:.0%} to {high:.0%}, median {middle:.0%}")
    out.print(text(look, tokenizer, tokens, min(out.width, 80)), soft_wrap=True)


def text(look: Any, tokenizer: Any, tokens: int, width: int) -> Any:
    """The first tokens, tinted by what was spent on them, with a bar below each: as wide as the piece is on
    the screen (Hangul: two cells).
    """
    from rich.cells import cell_len
    from rich.text import Text

    from braingpt.tokenizer.pieces import escaped, pieces

    shown, line, bars, at = Text(), Text(), "", 0
    low, high = float(look.spent.min()), float(look.spent.max())
    for piece in pieces(tokenizer, look.trace.ids[:tokens]):
        spent = float(look.spent[at : at + len(piece.ids)].mean())
        at += len(piece.ids)
        level = (spent - low) / (high - low) if high > low else 0.5
        for character in escaped(piece.text.replace("\n", "↵")):
            if cell_len(bars) + cell_len(character) > width:
                shown.append(line).append("\n" + bars + "\n", "dim")
                line, bars = Text(), ""
            line.append(character, f"black on color({TINTS[round(level * (len(TINTS) - 1))]})")
            bars += BARS[round(level * (len(BARS) - 1))] * cell_len(character)
    return shown.append(line).append("\n" + bars, "dim")
