"""Cut one plot out of a page that `--html FILE` wrote, as an SVG file for a document.

    python scripts/picture.py docs/results/bench-small.html "validation, bits a byte, equal wall-clock" \\
        docs/images/learning-curves.svg

The plot gets the page's style sheet and a white card behind it, so that it is readable on light and dark
pages alike.
"""

import re
import sys
from pathlib import Path

MARGIN = 16
INK, CARD = "#1f2328", "#ffffff"


def cut(page: str, title: str) -> str:
    """The text of an SVG file with the first plot whose title begins with `title`."""
    style = re.search(r"^svg \{ font.*?(?=^svg \{ width|</style>)", page, re.MULTILINE | re.DOTALL)
    plots = re.findall(r"<svg .*?</svg>", page, re.DOTALL)
    plot = next(
        (plot for plot in plots if re.search(r"<title>(.*?)</title>", plot)[1].startswith(title)), None
    )
    if plot is None or style is None:
        raise SystemExit(f"the page has no plot whose title begins with '{title}'")
    left, top, width, height = map(float, re.search(r'viewBox="([^"]+)"', plot)[1].split())
    left, top, width, height = left - MARGIN, top - MARGIN, width + 2 * MARGIN, height + 2 * MARGIN
    place = f'x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}"'
    view = f'viewBox="{left:g} {top:g} {width:g} {height:g}"'
    start = f'<svg xmlns="http://www.w3.org/2000/svg" {view} style="color: {INK}"'
    card = f'<style>\n{style[0].strip()}\n</style><rect {place} rx="8" fill="{CARD}"/>'
    plot = re.sub(r'<svg viewBox="[^"]+"', start, plot, count=1)
    return plot.replace("</title>", f"</title>{card}", 1) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit("usage: python scripts/picture.py PAGE TITLE TARGET")
    source, title, target = sys.argv[1:]
    Path(target).write_text(cut(Path(source).read_text(encoding="utf-8"), title), encoding="utf-8")
