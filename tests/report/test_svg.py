import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braingpt.report.svg import bars, heatmap, histogram, lines, standalone, thinned

ANY = st.floats(allow_nan=True, allow_infinity=True, width=32)


def test_plots_escape_and_stand_with_nothing() -> None:
    for svg in (
        bars([], "none"),
        bars([("<a & b>", 0, "0"), ("긴 이름" * 20, 3, "3")], "<t>", spread=[(0, 0), (2, 4)]),
        histogram([], [], "none"),
        histogram([0, 0], ["1", ""], "x", 1),
        lines({}, "nothing"),
        lines({"<a>": []}, "t & u", log_x=True, log_y=True),
        heatmap([], [], "none"),
        heatmap([[0.0, math.nan]], ["<r>"], "&", columns=["<c>", ""]),
        standalone(lines({"a": [(1, 2)]}, "one point")),
    ):
        ElementTree.fromstring(svg)
    widths = [float(width) for width in re.findall(r'width="([\d.]+)" height="16"', bars([("a", 1, "1"), ("b", 4, "4")], "t"))]
    assert widths[1] == 4 * widths[0]


@given(st.lists(st.tuples(ANY, ANY), max_size=30), st.booleans(), st.booleans())
def test_whatever_is_drawn_lies_inside(points, log_x, log_y) -> None:
    svg = lines({"a": points}, "t", log_x=log_x, log_y=log_y, bands={"a": [(x, y, y) for x, y in points]})
    assert "nan" not in svg and "inf" not in svg
    (path,) = re.findall(r'polyline points="([^"]*)"', svg)
    for point in path.split():
        x, y = map(float, point.split(","))
        assert 59 < x < 629 and 25 < y < 227


def test_a_line_goes_where_its_numbers_say() -> None:
    svg = lines({"a": [(1, 10), (10, 100), (100, 1000)]}, "t", log_x=True, log_y=True)
    (path,) = re.findall(r'polyline points="([^"]*)"', svg)
    (x_0, y_0), (x_1, y_1), (x_2, y_2) = (map(float, point.split(",")) for point in path.split())
    assert x_1 - x_0 == pytest.approx(x_2 - x_1, abs=0.2) and y_0 - y_1 == pytest.approx(y_1 - y_2, abs=0.2) and y_2 < y_0
    assert ">1k<" in svg and ">100<" in svg  # ticks


def test_long_lines_are_thinned_to_their_means() -> None:
    points = thinned([(x, x % 2) for x in range(10_000)])
    assert len(points) <= 400 and all(0.3 < y < 0.7 for _, y in points) and points[-1][0] == 9_999


def test_a_heat_map_is_darkest_at_its_largest() -> None:
    svg = heatmap([[0, 1], [2, 4]], ["a", "b"], "t")
    assert re.findall(r'fill-opacity="([\d.]+)"', svg) == ["0.000", "0.250", "0.500", "1.000"]
    assert re.findall(r'fill-opacity="([\d.]+)"', heatmap([[1]], ["a"], "t", most=4)) == ["0.250"]
