"""Cut one plot out of a page that `--html FILE` wrote, as an SVG file for a document.

    python scripts/picture.py docs/results/bench-small.html "Validation, bits per byte, equal wall-clock" \\
        docs/images/learning-curves.svg

The plot gets its title, the colours of the day and a white card behind it, so that it is readable on light
and dark pages alike.
"""

import argparse
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from braingpt.html.figure import FONTS, MARGIN
from braingpt.html.palette import DAY

# Space of the title above the plot.
TITLE = 28


class _Figures(HTMLParser):
    """Descriptions of a page's figures, which begin with their titles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.descriptions: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if ("role", "img") in attrs:
            self.descriptions.append(dict(attrs).get("aria-label") or "")


def cut(page: str, title: str) -> str:
    """The text of an SVG file with the first plot whose title begins with `title`."""
    plots = re.findall(r"<figure>.*?</figure>", page, re.DOTALL)
    described = zip(plots, _Figures(page).descriptions, strict=True)
    found = next((both for both in described if both[1].startswith(title)), None)
    if found is None:
        raise SystemExit(f"the page has no plot whose title begins with '{title}'")
    plot, description = found
    name = unescape(re.findall(r"<strong>(.*?)</strong>", plot)[0])
    size, inside = re.findall(r'<svg viewBox="0 0 ([^"]+)" class="wide"[^>]*>(.*?)</svg>', plot, re.DOTALL)[0]
    width, height = map(float, size.split())
    for variable, colour in DAY.items():
        inside = inside.replace(f"var(--{variable})", colour)
    box = (-MARGIN, -MARGIN - TITLE, width + 2 * MARGIN, height + 2 * MARGIN + TITLE)
    place = 'x="{:g}" y="{:g}" width="{:g}" height="{:g}"'.format(*box)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{" ".join(f"{side:g}" for side in box)}" '
        f'role="img" aria-label={quoteattr(description)} font-family="{FONTS}">'
        f'<rect {place} rx="8" fill="{DAY["paper"]}"/>'
        f'<text x="0" y="-12" font-size="13" font-weight="bold" fill="{DAY["ink"]}">{escape(name)}</text>'
        f"{inside}</svg>\n"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", type=Path, help="the page that `--html FILE` wrote")
    parser.add_argument("title", help="how the title of the plot begins")
    parser.add_argument("target", type=Path, help="the SVG file to write")
    options = parser.parse_args()
    options.target.write_text(cut(options.page.read_text(encoding="utf-8"), options.title), encoding="utf-8")
