"""One HTML page, complete in itself.

Style and plots are inline, and the page's content policy forbids loading anything.

    plot = svg.bars([("v1", 12_000, "12,000")], "tokens per second")
    write_atomically(path, page("Speed", [table(["model", "tokens/s"], [("v1", 12_000)]), plot]))

`page` takes HTML, so text in it must pass `html.escape` first; `table` and `paragraphs` escape by themselves.
"""

from collections.abc import Iterable, Sequence
from html import escape

from braingpt.html import svg

# What a cell of a table may hold.
Cell = str | float | None

STYLE = (
    """
:root { color-scheme: light dark; --line: #8885 }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
body { word-break: keep-all; overflow-wrap: anywhere }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; width: 100% }
th, td { text-align: left; padding: .2rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
small, .quiet { opacity: .7 }
"""
    + svg.STYLE
    + "svg { width: 100%; max-width: 46rem; display: block; margin: .5rem 0 1.5rem }\n"
)
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(title: str, body: Iterable[str], style: str = "") -> str:
    """Build a page.

    Args:
        title: Plain text, also the page's heading.
        body: Pieces of HTML, in order.
        style: More rules for the style sheet.

    Returns:
        An HTML document.
    """
    name = escape(title)
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="viewport" content="width=device-width">'
        f"<title>{name}</title><style>{STYLE}{style}</style>"
    )
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n<h1>{name}</h1>\n'
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[Cell]], words: int = 1) -> str:
    """A table as HTML.

    Args:
        heads: The columns' headings.
        rows: Cells of each row; None becomes a dash, and whole numbers get thousands separators.
        words: How many of the first columns hold words, aligned left; the others hold numbers.

    Returns:
        A `table` element.
    """
    kinds = ["" if number < words else ' class="n"' for number in range(len(heads))]
    top = "".join(f"<th{kind}>{escape(head)}</th>" for kind, head in zip(kinds, heads, strict=True))
    lines = [
        "".join(f"<td{kind}>{_cell(value)}</td>" for kind, value in zip(kinds, row, strict=True))
        for row in rows
    ]
    return f"<table><tr>{top}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def paragraphs(*texts: str, quiet: bool = False) -> str:
    """Plain text, escaped, one paragraph each; `quiet` ones are paler."""
    kind = ' class="quiet"' if quiet else ""
    return "".join(f"<p{kind}>{escape(text)}</p>" for text in texts)


def _cell(value: Cell) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else escape(str(value)).replace("\n", "<br>")
