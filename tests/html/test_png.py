import importlib.util

from braingpt.html.png import png_if_possible
from braingpt.html.svg import lines


def test_the_same_drawing_in_pixels() -> None:
    pixels = png_if_possible(lines({"a": [(1, 1.0), (3, 2.0)]}, "t"))
    if importlib.util.find_spec("resvg_py") is None:
        assert pixels is None
    elif pixels is not None:
        # None where the machine has no fonts
        assert pixels.startswith(b"\x89PNG") and len(pixels) > 1000
