"""One HTML page, complete in itself, for a phone as for a wide window, by day as by night.

Style and plots are inline, no scripts run, and the page's content policy forbids loading anything.

    plot = bars([("v1", 12_000, "12,000")], "Speed of generation", "tokens per second")
    write_atomically(path, page("Speed", [table(["model", "tokens/s"], [("v1", 12_000)]), plot.html()]))

`page` takes HTML, so text in it must pass `text` first; the other functions here do this by themselves.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from braingpt.html.palette import SCALE_STEPS, variables
from braingpt.utils.terminal_text import visible

# What a cell of a table may hold.
Cell = str | float | None

# Words from this length on may be divided behind their punctuation, as paths are.
LONG_WORD = 24
# A column whose lines are shorter than the first is not wrapped; one with lines from the second on holds
# prose, which is wrapped to a width that reads well; between them are names.
SHORT, PROSE = 28, 44
# Below this width of the window, plots are those for a phone.
PHONE = 784
STYLE = (
    variables()
    + f"""
*, ::before, ::after {{ box-sizing: border-box }}
body {{ background: var(--paper); color: var(--ink); margin: 0 auto; max-width: 80rem }}
body {{ padding: 1.5rem 1rem 4rem }}
body {{ font: 16px/1.6 system-ui, 'Noto Sans KR', 'Noto Sans CJK KR', sans-serif; text-size-adjust: 100% }}
body {{ word-break: keep-all; overflow-wrap: break-word }}
h1, h2, h3 {{ line-height: 1.25; text-wrap: balance }}
h1 {{ font-size: clamp(1.35rem, 1.1rem + 1.2vw, 2rem); margin: 0 0 1rem }}
h2 {{ font-size: 1.3rem; margin: 3rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--grid) }}
h3 {{ font-size: 1.05rem; margin: 2rem 0 .5rem }}
p, ul, dl, figcaption {{ max-width: 46rem; margin: .5rem 0 1rem }}
ul {{ padding-left: 1.2rem }} li {{ margin: .15rem 0 }}
dl {{ display: grid; grid-template-columns: fit-content(40%) minmax(0, 1fr); gap: .25rem 1rem }}
dl {{ font-size: .9375rem }}
dt {{ font-weight: 600 }} dd {{ margin: 0; color: var(--quiet); overflow-wrap: anywhere }}
small, .quiet {{ color: var(--quiet); font-size: .9375rem }}
.scroll {{ overflow-x: auto; margin: .75rem 0 1.25rem; max-width: 100%; width: fit-content }}
.scroll {{ border: 1px solid var(--grid); border-radius: 8px }}
:focus-visible {{ outline: 2px solid var(--line0); outline-offset: 2px }}
table {{ border-collapse: separate; border-spacing: 0; font-size: .9375rem; overflow-wrap: normal }}
th, td {{ text-align: left; padding: .35rem .8rem; vertical-align: top; background: var(--paper) }}
tr > * {{ border-bottom: 1px solid var(--grid) }} tr:last-child > * {{ border-bottom: 0 }}
thead th {{ background: var(--soft); font-weight: 600; vertical-align: bottom }}
tbody th {{ font-weight: 500 }}
th:first-child:not(.prose) {{ position: sticky; left: 0; border-right: 1px solid var(--grid) }}
.n {{ text-align: right; font-variant-numeric: tabular-nums }} td.n {{ white-space: nowrap }}
.short {{ white-space: nowrap }} .name {{ min-width: 12rem }}
.prose {{ min-width: min(18rem, 60vw); max-width: 46rem; overflow-wrap: anywhere }}
figure {{ margin: 1.25rem 0 2.25rem; max-width: 46rem }}
figcaption strong, figcaption span {{ display: block }}
figcaption span {{ color: var(--quiet); font-size: .9375rem }}
svg {{ display: block; width: 100%; height: auto; overflow: visible; stroke-linejoin: round }}
svg.wide {{ max-width: 45rem }} svg.narrow {{ max-width: 26rem; display: none }}
@media (max-width: {PHONE - 1}px) {{ svg.wide {{ display: none }} svg.narrow {{ display: block }} }}
.tokens {{ white-space: pre-wrap; line-height: 1.9; padding: .75rem 1rem; margin: .25rem 0 1.25rem }}
.tokens {{ border: 1px solid var(--grid); border-radius: 8px; max-width: 60rem }}
.tokens span {{ border-radius: 3px; box-decoration-break: clone }}
.scale {{ display: flex; align-items: center; gap: .6rem; color: var(--quiet); font-size: .9375rem }}
.scale i {{ display: flex; border: 1px solid var(--frame) }}
.scale i i {{ width: 1.4rem; height: .8rem; border: 0 }}
"""
    + "".join(f".s{n} {{ background: var(--scale{n}); color: var(--on{n}) }}\n" for n in range(SCALE_STEPS))
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
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(visible(title))}</title><style>{STYLE}{style}</style>"
    )
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n<main>\n<h1>{text(title)}</h1>\n'
        + "\n".join(body)
        + "\n</main>\n</body></html>\n"
    )


def text(plain: str) -> str:
    """Plain text as HTML, escaped.

    Long words, as paths, may be divided behind their punctuation; a number stays beside its percent sign.
    """
    together = re.sub(r"(?<=\d) %", "\u00a0%", visible(plain))
    return "".join(_word(part) for part in re.split(r"([ \t\n]+)", together))


def table(heads: Sequence[str], rows: Iterable[Sequence[Cell]], words: int = 1, name: str = "") -> str:
    """A table as HTML, in a box of its own that scrolls where the table is wider than the page.

    Args:
        heads: The columns' headings.
        rows: Cells of each row; None becomes a dash, and whole numbers get thousands separators.
        words: How many of the first columns hold words, aligned left; the others hold numbers.
        name: What the table shows, for screen readers; by default its headings.

    Returns:
        A `div` element with a `table`.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    kinds = []
    for number in range(len(heads)):
        longest = max((len(line) for row in cells for line in row[number].split("\n")), default=0)
        wrapped = "short" if longest < SHORT else "name" if longest < PROSE else "prose"
        named = " name" if len(heads[number]) >= SHORT else ""
        kind = f"n{named}" if number >= words else wrapped
        kinds.append(f' class="{kind}"')
    top = "".join(f'<th scope="col"{kind}>{text(head)}</th>' for kind, head in zip(kinds, heads, strict=True))
    lines = []
    for row in cells:
        line = ""
        for number, (kind, cell) in enumerate(zip(kinds, row, strict=True)):
            tag, scope = ("th", ' scope="row"') if number == 0 else ("td", "")
            line += f"<{tag}{scope}{kind}>{text(cell).replace(chr(10), '<br>')}</{tag}>"
        lines.append(f"<tr>{line}</tr>")
    label = escape(visible(name or f"Table: {', '.join(filter(None, heads)) or 'names and values'}"))
    body = "".join(lines)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">'
        f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def pairs(named: Mapping[str, Cell]) -> str:
    """Names and what they say: facts about the page, or words of a table and their meaning."""
    return (
        "<dl>" + "".join(f"<dt>{text(n)}</dt><dd>{text(_cell(v))}</dd>" for n, v in named.items()) + "</dl>"
    )


def paragraphs(*texts: str, quiet: bool = False) -> str:
    """Plain text, escaped, one paragraph each; `quiet` ones are paler."""
    kind = ' class="quiet"' if quiet else ""
    return "".join(f"<p{kind}>{text(one)}</p>" for one in texts)


def colour_scale(low: str, high: str) -> str:
    """The colours of the classes `s0` to `s8`, between what the first and the last mean."""
    steps = "".join(f'<i class="s{number}"></i>' for number in range(SCALE_STEPS))
    return (
        f'<p class="scale"><span>{text(low)}</span><i aria-hidden="true">{steps}</i>'
        f"<span>{text(high)}</span></p>"
    )


def _word(word: str) -> str:
    if len(word) < LONG_WORD:
        return escape(word)
    return "<wbr>".join(escape(part) for part in re.findall(r"[^/_\-=,.:]+[/_\-=,.:]*|[/_\-=,.:]+", word))


def _cell(value: Cell) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else str(value)
