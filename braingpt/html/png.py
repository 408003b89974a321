"""Plots as PNG files: the drawings of the pages, rendered by resvg (https://github.com/linebender/resvg)."""

import importlib.util
from pathlib import Path

from braingpt.errors import UserError
from braingpt.html.svg import standalone
from braingpt.utils.atomic_write import write_atomically


def check_png() -> None:
    """Check, before the work begins, that the renderer is installed.

    Raises:
        UserError: The renderer is missing.
    """
    if not _has_renderer():
        raise UserError("PNG files need a renderer: pip install 'braingpt[png]'")


def write_png(svg: str, path: Path) -> None:
    """Write a plot at twice its size, on white."""
    write_atomically(path, _pixels(svg))


def png_if_possible(svg: str) -> bytes | None:
    """The same PNG as bytes; None where the renderer or every font is missing."""
    if not _has_renderer():
        return None
    drawn = _pixels(svg)
    # Without any font the words are missing, and the drawing is the one without the system's fonts.
    return drawn if drawn != _pixels(svg, skip_system_fonts=True) else None


def _has_renderer() -> bool:
    return importlib.util.find_spec("resvg_py") is not None


def _pixels(svg: str, skip_system_fonts: bool = False) -> bytes:
    import resvg_py

    return bytes(
        resvg_py.svg_to_bytes(
            svg_string=standalone(svg),
            zoom=2,
            background="white",
            sans_serif_family="DejaVu Sans",
            skip_system_fonts=skip_system_fonts,
        )
    )
