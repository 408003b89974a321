import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braingpt.html.svg import bars, downsampled, heatmap, histogram, lines, standalone

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
    widths = [
        float(width)
        for width in re.findall(r'width="([\d.]+)" height="16"', bars([("a", 1, "1"), ("b", 4, "4")], "t"))
    ]
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
    assert (
        x_1 - x_0 == pytest.approx(x_2 - x_1, abs=0.2)
        and y_0 - y_1 == pytest.approx(y_1 - y_2, abs=0.2)
        and y_2 < y_0
    )
    # ticks
    assert ">1k<" in svg and ">100<" in svg


def test_long_lines_are_downsampled_to_their_means() -> None:
    points = downsampled([(x, x % 2) for x in range(10_000)])
    assert len(points) <= 400 and all(0.3 < y < 0.7 for _, y in points) and points[-1][0] == 9_999


def test_a_heat_map_is_darkest_at_its_largest() -> None:
    svg = heatmap([[0, 1], [2, 4]], ["a", "b"], "t")
    assert re.findall(r'fill-opacity="([\d.]+)"', svg) == ["0.000", "0.250", "0.500", "1.000"]
    assert re.findall(r'fill-opacity="([\d.]+)"', heatmap([[1]], ["a"], "t", darkest=4)) == ["0.250"]


def test_many_names_take_more_rows() -> None:
    few, many = (lines({f"a long name {n}": [(0, n)] for n in range(count)}, "t") for count in (3, 20))
    heights = [int(re.search(r'viewBox="0 0 640 (\d+)"', svg)[1]) for svg in (few, many)]
    assert heights[1] > heights[0] and all(float(x) < 640 for x in re.findall(r'<text x="([\d.]+)"', many))


def test_a_plot_in_a_file_of_its_own_says_what_it_is() -> None:
    for svg in (
        bars([("a", 1, "1")], "who & what"),
        histogram([1, 2], ["0", "1"], "who & what"),
        lines({"a": [(0, 1)]}, "who & what"),
    ):
        alone = standalone(svg)
        ElementTree.fromstring(alone)
        assert alone.count('class="title"') == 1 and ">who &amp; what</text>" in alone


def test_whole_numbers_have_no_ticks_between_them() -> None:
    svg = lines({"a": [(0, 0.1), (1, 0.2), (2, 0.3)]}, "by layer")
    assert ">1<" in svg and ">0.5<" not in svg and ">0.15<" in svg


def test_few_columns_of_a_histogram_carry_their_numbers() -> None:
    assert ">1,234</text>" in histogram([0, 1234], ["0", "1"], "t") and "</text>" not in histogram(
        [1] * 40, [""] * 40, "t"
    )
