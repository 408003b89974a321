"""Two plots as inline SVG: bars and a histogram. Plain text, no scripts, nothing loaded; colours come from the page's style sheet."""

from collections.abc import Sequence
from html import escape

WIDTH = 640  # of the drawing, in its own units; it scales with the page
ROW, LABEL, VALUE = 24, 150, 110
HEIGHT, FOOT = 150, 36


def bars(rows: Sequence[tuple[str, float, str]], title: str) -> str:
    """Horizontal bars, one row each: a label, a value >= 0, and how the value is written."""
    largest = max((value for _, value, _ in rows), default=0) or 1
    parts = []
    for number, (label, value, written) in enumerate(rows):
        y = number * ROW
        width = (WIDTH - LABEL - VALUE) * value / largest
        parts.append(f'<text x="{LABEL - 8}" y="{y + 16}" class="end">{escape(_short(label))}</text>')
        parts.append(f'<rect x="{LABEL}" y="{y + 4}" width="{width:.1f}" height="{ROW - 8}" class="bar"/>')
        parts.append(f'<text x="{LABEL + width + 6:.1f}" y="{y + 16}">{escape(written)}</text>')
    return _svg(len(rows) * ROW + 4, title, parts)


def histogram(counts: Sequence[int], edges: Sequence[str], title: str, mark: float | None = None, mark_label: str = "") -> str:
    """Columns side by side. `edges`: what stands below the left edge of each column, "" for nothing; `mark`: a line at that column."""
    largest = max(counts, default=0) or 1
    step = (WIDTH - 20) / max(1, len(counts))
    parts = []
    for number, count in enumerate(counts):
        height = HEIGHT * count / largest
        if count:
            place = f'x="{10 + number * step:.1f}" y="{20 + HEIGHT - height:.1f}" width="{max(step - 1, 0.5):.1f}" height="{height:.1f}"'
            parts.append(f'<rect {place} class="bar"><title>{count:,}</title></rect>')
    for number, edge in enumerate(edges):
        if edge:
            parts.append(f'<text x="{10 + number * step:.1f}" y="{20 + HEIGHT + 16}">{escape(edge)}</text>')
    if mark is not None:
        x = 10 + mark * step
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="14" y2="{20 + HEIGHT}" class="mark"/>')
        parts.append(f'<text x="{x + 4:.1f}" y="12">{escape(mark_label)}</text>')
    parts.append(f'<line x1="10" x2="{WIDTH - 10}" y1="{20 + HEIGHT}" y2="{20 + HEIGHT}" class="axis"/>')
    return _svg(20 + HEIGHT + FOOT, title, parts)


def _svg(height: int, title: str, parts: list[str]) -> str:
    name = escape(title)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{name}"><title>{name}</title>{"".join(parts)}</svg>'


def _short(label: str, most: int = 20) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"
