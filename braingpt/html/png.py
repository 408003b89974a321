"""Plots as PNG files: the same drawings as in the pages, rendered by resvg
(https://github.com/linebender/resvg).
"""

import importlib.util
from pathlib import Path

from braingpt.errors import UserError
from braingpt.html.svg import standalone


def check_png() -> None:
    """UserError where the renderer is missing; to be called before the work."""
    if importlib.util.find_spec("resvg_py") is None:
        raise UserError("PNG files need a renderer: pip install 'braingpt[png]'")


def write_png(svg: str, path: Path) -> None:
    """A plot at twice its size, on white."""
    path.write_bytes(_pixels(svg))


def png_if_possible(svg: str) -> bytes | None:
    """The same as bytes; None where the renderer is missing, or any font to write the words in."""
    if importlib.util.find_spec("resvg_py") is None:
        return None
    drawn = _pixels(svg)
    return drawn if drawn != _pixels(svg, skip_system_fonts=True) else None


def _pixels(svg: str, **settings: bool) -> bytes:
    import resvg_py

    return bytes(
        resvg_py.svg_to_bytes(
            svg_string=standalone(svg),
            zoom=2,
            background="white",
            sans_serif_family="DejaVu Sans",
            **settings,
        )
    )
