"""One HTML page, complete in itself: style and plots are inline, it loads nothing, and its content policy
forbids that it ever does.

    write_whole(path, page("A title", ["<h2>Speed</h2>", table(["who", "tokens/s"], [("v1", 12_000)]),
    svg.bars(...)]))

What goes into `page` is HTML: text in it passes `html.escape` first. `table` escapes its cells by itself.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from braingpt.html import svg

STYLE = (
    """
:root { color-scheme: light dark; --line: #8885 }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; word-break: keep-all; overflow-wrap: anywhere }
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
    """The whole page. `title` is plain text, its heading too; `body` are pieces of HTML; `style`: further
    rules of its style sheet.
    """
    name = escape(title)
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="viewport" content="width=device-width"><title>{name}</title><style>{STYLE}{style}</style>'
    )
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n<h1>{name}</h1>\n'
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]], words: int = 1) -> str:
    """A table whose first `words` columns are words and the others numbers.

    None is a dash, whole numbers get their commas.
    """
    kinds = ["" if number < words else ' class="n"' for number in range(len(heads))]
    top = "".join(f"<th{kind}>{escape(head)}</th>" for kind, head in zip(kinds, heads, strict=True))
    lines = [
        "".join(f"<td{kind}>{_cell(value)}</td>" for kind, value in zip(kinds, row, strict=True))
        for row in rows
    ]
    return f"<table><tr>{top}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def paragraphs(*texts: str, quiet: bool = False) -> str:
    """Plain text, escaped, a paragraph each."""
    kind = ' class="quiet"' if quiet else ""
    return "".join(f"<p{kind}>{escape(text)}</p>" for text in texts)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else escape(str(value)).replace("\n", "<br>")
