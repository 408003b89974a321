"""A plot, and the forms in which it is shown: on a page, as an SVG file, as a PNG file.

A page holds each plot twice, for a phone and for a wide window, and the style sheet shows one of them: text
has the size of the page's own in both, and is text, which a reader can select and a browser draws with the
fonts it has.
"""

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from braingpt.html.drawing import LINE, drawing_style, wrapped, write
from braingpt.html.palette import DAY
from braingpt.utils.atomic_write import write_atomically
from braingpt.utils.terminal_text import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Widths of a plot in a wide window and on a phone of 360 pixels, less the page's margins.
WIDE, NARROW = 720, 328
# Space around a plot that is a file of its own.
MARGIN = 16
# Pixels of a PNG for one of the page.
PNG_SCALE = 2
# The variable of each colour that plots use.
VARIABLES = {colour: f"var(--{name})" for name, colour in DAY.items() if not name.startswith("on")}
SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
FONTS = "system-ui, 'Noto Sans KR', 'Noto Sans CJK KR', 'Apple SD Gothic Neo', 'Malgun Gothic', sans-serif"
MISSING_LETTERS = (
    "PNG files show boxes for letters that no installed font has; for Hangul, install Noto Sans CJK "
    "(Debian: apt-get install fonts-noto-cjk). HTML pages use the reader's fonts."
)
# Letters before this one are in the font that matplotlib brings.
END_OF_LATIN = 0x250
# Families with Hangul, the best first; any other font of such a name follows.
HANGUL_FAMILIES = (
    "Noto Sans CJK",
    "Noto Sans KR",
    "Pretendard",
    "NanumGothic",
    "Malgun Gothic",
    "Apple SD Gothic Neo",
)
HANGUL_NAMES = re.compile("CJK|Hangul|Nanum|Malgun|Gothic Neo|Source Han|Baekmuk|UnDotum|Un Dotum| KR")


@dataclass(frozen=True)
class Plot:
    """One plot.

    Args:
        title: What the plot shows, with its unit.
        caption: How to read the plot.
        description: The plot in words, for a reader who cannot see it.
        draw: From a width and the space to leave at the top to the drawing.
    """

    title: str
    caption: str
    description: str
    draw: Callable[[float, float], "Figure"]

    def html(self) -> str:
        """The plot with its title and caption, as a `figure` element of a page."""
        caption = f"<span>{escape(visible(self.caption))}</span>" if self.caption else ""
        title, words = escape(visible(self.title)), escape(visible(f"{self.title}. {self.description}"))
        drawings = "".join(self._inline(width, kind) for width, kind in ((WIDE, "wide"), (NARROW, "narrow")))
        return (
            f"<figure><figcaption><strong>{title}</strong>{caption}</figcaption>"
            f'<div role="img" aria-label="{words}">{drawings}</div></figure>'
        )

    def svg(self) -> str:
        """The plot with its title as the text of an SVG file, dark on white."""
        with drawing_style():
            root = _tree(self._with_title(), salt="")
        root.set("role", "img")
        root.set("aria-label", visible(f"{self.title}. {self.description}"))
        root.set("font-family", FONTS)
        left, top, width, height = map(float, root.get("viewBox", "").split())
        box = (left - MARGIN, top - MARGIN, width + 2 * MARGIN, height + 2 * MARGIN)
        root.set("viewBox", " ".join(f"{side:g}" for side in box))
        card = {key: f"{side:g}" for key, side in zip(("x", "y", "width", "height"), box, strict=True)}
        root.insert(0, ElementTree.Element(f"{SVG}rect", {**card, "rx": "8", "fill": DAY["paper"]}))
        return _text(root) + "\n"

    def png(self) -> bytes:
        """The plot with its title as a PNG file of twice the size, dark on white."""
        file = io.BytesIO()
        with drawing_style(), warnings.catch_warnings():
            import matplotlib

            # `letters_missing` says what is missing.
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            matplotlib.rcParams["font.family"] = ["DejaVu Sans", *hangul_font()]
            figure = self._with_title()
            figure.savefig(
                file,
                format="png",
                dpi=72 * PNG_SCALE,
                facecolor=DAY["paper"],
                bbox_inches="tight",
                pad_inches=MARGIN / 72,
                metadata={"Software": None},
            )
        return file.getvalue()

    def letters_missing(self) -> bool:
        """Whether a PNG shows boxes instead of letters, because no font on this machine has them."""
        letters = set(visible(self.title + self.description)) - set("\n\t")
        if all(ord(letter) < END_OF_LATIN for letter in letters):
            return False
        with drawing_style():
            from matplotlib.font_manager import FontProperties, findfont, get_font

            families = ["DejaVu Sans", *hangul_font()]
            fonts = [get_font(findfont(FontProperties(family=family))) for family in families]
        return not all(any(font.get_char_index(ord(letter)) for font in fonts) for letter in letters)

    def _with_title(self) -> "Figure":
        lines = wrapped(self.title, WIDE / 1.1)
        figure = self.draw(WIDE, LINE * len(lines) + 10)
        for number, line in enumerate(lines):
            write(figure, 0, LINE * (number + 0.5), line, weight="bold")
        return figure

    def _inline(self, width: float, kind: str) -> str:
        with drawing_style():
            # Ids of parts of a drawing are unique in a page.
            root = _tree(self.draw(width, 0), salt=f"{self.title} {self.description} {kind}")
        root.set("class", kind)
        root.set("aria-hidden", "true")
        for element in root.iter():
            if style := element.get("style"):
                element.set("style", re.sub("#[0-9a-f]{6}", lambda found: VARIABLES[found[0]], style))
        return _text(root).replace(' xmlns="http://www.w3.org/2000/svg"', "")


def write_png(plot: Plot, path: Path) -> None:
    """Write the plot as a PNG file."""
    write_atomically(path, plot.png())


@cache
def hangul_font() -> tuple[str, ...]:
    """The family of an installed font with Hangul for PNG files; nothing where there is none."""
    from matplotlib.font_manager import fontManager, get_font

    named = [font for font in fontManager.ttflist if HANGUL_NAMES.search(font.name)]
    upright = [font for font in named if font.style == "normal" and font.weight in (400, "normal", "regular")]

    def rank(name: str) -> int:
        return next((n for n, family in enumerate(HANGUL_FAMILIES) if name.startswith(family)), 99)

    for font in sorted(upright or named, key=lambda font: (rank(font.name), font.name)):
        if get_font(font.fname).get_char_index(ord("가")):
            return (font.name,)
    return ()


def _tree(figure: "Figure", salt: str) -> ElementTree.Element:
    """The drawing as SVG without what a page does not need: ids nobody refers to, fonts, digits."""
    import matplotlib

    file = io.BytesIO()
    with warnings.catch_warnings():
        # Measuring needs no glyph; the browser has the fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        matplotlib.rcParams["svg.hashsalt"] = salt or "braingpt"
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing)
    root = ElementTree.fromstring(file.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{SVG}style" or (child.tag == f"{SVG}defs" and not len(child)):
                parent.remove(child)
    for element in root.iter():
        if element.tag == f"{SVG}g":
            element.attrib.pop("id", None)
        if element.tag == f"{SVG}text":
            _plain_text(element)
        if (target := element.attrib.pop(LINK, None)) is not None:
            element.set("href", target)
        for name in ("d", "x", "y", "transform", "points"):
            if name in element.attrib:
                element.set(name, _short(element.attrib[name]))
        for name in ("text", "tail"):
            if not (getattr(element, name) or "").strip():
                setattr(element, name, None)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    return root


def _plain_text(element: ElementTree.Element) -> None:
    """Leave size, weight, colour and anchor of a text, and drop its font and a turn by nothing."""
    parts = [part.strip() for part in element.get("style", "").split(";")]
    font = re.search(r"font:[^;]*?([\d.]+px)", element.get("style", ""))
    kept = [part for part in parts if part and not part.startswith(("font-family", "font:"))]
    if font:
        kept.insert(0, f"font-size: {font[1]}" + ("; font-weight: bold" if "bold" in font[0] else ""))
    element.set("style", "; ".join(kept))
    if re.fullmatch(r"rotate\(-?0 .*\)", element.get("transform", "")):
        del element.attrib["transform"]


def _short(numbers: str) -> str:
    """Coordinates to a hundredth of a pixel, without line ends."""
    return re.sub(r"(\.\d\d)\d+", r"\1", " ".join(numbers.split())).replace(" L ", "L").replace("M ", "M")


def _text(root: ElementTree.Element) -> str:
    ElementTree.register_namespace("", SVG.strip("{}"))
    return ElementTree.tostring(root, encoding="unicode")
