"""Plots: every form is well formed, shows the values it was given, and needs nothing from elsewhere."""

import math
import os
import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braingpt.html import figure
from braingpt.html.bars import bars, histogram
from braingpt.html.drawing import LETTER, TEXT, text_width, thinned, tick_labels, ticks, wrapped
from braingpt.html.figure import Plot
from braingpt.html.heatmap import heatmap
from braingpt.html.lines import downsampled, lines
from braingpt.html.page import page, table
from braingpt.html.palette import DAY, NIGHT, SCALE, SCALE_STEPS, scale_step
from tests.html.sample_pages import NAMES

ANY = st.floats(allow_nan=True, allow_infinity=True)


def drawings(plot: Plot) -> list[ElementTree.Element]:
    """The drawings of a plot on a page, for a wide window and for a phone, and of its file."""
    found = re.findall(r"<svg .*?</svg>", plot.html(), re.DOTALL)
    assert len(found) == 2
    return [ElementTree.fromstring(one) for one in [*found, plot.svg()]]


def paths(drawing: ElementTree.Element, stroke: str) -> list[list[tuple[float, float]]]:
    """The points of each path in a colour."""
    found = [one for one in drawing.iter() if one.tag.endswith("path") and stroke in one.get("style", "")]
    numbers = [list(map(float, re.findall(r"-?[\d.]+", one.get("d", "")))) for one in found]
    return [list(zip(one[::2], one[1::2], strict=True)) for one in numbers]


@pytest.mark.parametrize(
    "plot",
    [
        bars([], "none", "n"),
        bars([(name, 10.0**n, f"{n}") for n, name in enumerate(NAMES)], NAMES[1], "n", marks=[None, 1.0]),
        bars([("a", math.nan, "-"), ("b", math.inf, "-")], "t", "n", spread=[(0, 0), (math.nan, 4)]),
        histogram([], [], "none", "x", "y"),
        histogram([0, 0], ["1", ""], "t", "x", "y", mark=1),
        histogram([10**12] + [0] * 200, list(map(str, range(201))), "t", "x", "y", centred=True),
        lines({}, "nothing", "x", "y"),
        lines({name: [(n, n)] for n, name in enumerate(NAMES)}, NAMES[3], "x", "y", dashed=NAMES[1:2]),
        lines({"": []}, "t", "x", "y", log_x=True, log_y=True),
        heatmap([], [], "none", "x", "y", "s"),
        heatmap([[0.0, math.nan, 1e12]], [NAMES[0]], "t", "x", "y", "s"),
        heatmap([[1.0] * 300] * 200, list(map(str, range(200))), "t", "x", "y", "s"),
    ],
    ids=range(12),
)
def test_every_form_is_well_formed_whatever_it_shows(plot: Plot) -> None:
    for drawing in drawings(plot):
        numbers = [value for one in drawing.iter() for key, value in one.items() if key in ("d", "x", "y")]
        assert not any("nan" in value or "inf" in value for value in numbers)
    assert plot.png().startswith(b"\x89PNG") and plot.description


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(ANY, ANY), max_size=20), st.booleans(), st.booleans())
def test_whatever_is_drawn_lies_inside(points, log_x, log_y) -> None:
    plot = lines(
        {"a": points}, "t", "x", "y", log_x=log_x, log_y=log_y, bands={"a": [(x, y, y) for x, y in points]}
    )
    drawing = ElementTree.fromstring(plot.svg())
    left, top, width, height = map(float, drawing.get("viewBox", "").split())
    for path in paths(drawing, DAY["line0"]):
        assert all(left - 1 < x < left + width + 1 and top - 1 < y < top + height + 1 for x, y in path)


def test_a_line_goes_where_its_numbers_say() -> None:
    plot = lines({"a": [(1, 10), (10, 100), (100, 1000)]}, "t", "x", "y", log_x=True, log_y=True)
    for drawing in drawings(plot):
        colour = DAY["line0"] if drawing.get("class") is None else "var(--line0)"
        curve = next(path for path in paths(drawing, colour) if len(path) == 3)
        (x_0, y_0), (x_1, y_1), (x_2, y_2) = curve
        assert x_1 - x_0 == pytest.approx(x_2 - x_1, abs=0.2)
        assert y_0 - y_1 == pytest.approx(y_1 - y_2, abs=0.2) and y_2 < y_0
    assert "from 10.0 at x 1 to 1,000 at 100" in plot.description.replace("from 10 ", "from 10.0 ")


def test_bars_are_as_long_as_their_values() -> None:
    drawing = drawings(bars([("a", 1, "1"), ("b", 4, "4")], "t", "n"))[0]
    filled = paths(drawing, "fill: var(--line0)")
    lengths = [max(x for x, _ in one) - min(x for x, _ in one) for one in filled]
    assert lengths[1] == pytest.approx(4 * lengths[0], rel=0.01)


def test_a_heat_map_has_the_colour_of_each_value_and_a_scale() -> None:
    drawing = drawings(heatmap([[0, 1, 2, 4, 4]], ["a"], "t", "x", "y", "tokens"))[2]
    cells = {step: paths(drawing, f"fill: {SCALE[step]}") for step in range(SCALE_STEPS)}
    # The scale has one rectangle of each colour; the cells are one path a colour, equal neighbours one piece.
    assert [len(cells[step]) for step in range(SCALE_STEPS)] == [2, 1, 2, 1, 2, 1, 1, 1, 2]
    words = ["".join(one.itertext()) for one in drawing.iter() if one.tag.endswith("text")]
    assert "tokens" in words and {"0", "1.33", "2.67", "4"} <= set(words)
    assert [scale_step(value, 3) for value in (0, 1, 2.99, 3, 99)] == [0, 3, 8, 8, 8]


def test_long_lines_are_downsampled_to_their_means() -> None:
    points = downsampled([(x, x % 2) for x in range(10_000)])
    assert len(points) <= 400 and all(0.3 < y < 0.7 for _, y in points) and points[-1][0] == 9_999


def test_names_are_shown_as_they_are() -> None:
    plot = lines({name: [(0, 1)] for name in NAMES}, NAMES[1], "x", "y")
    shown = "".join("".join(one.itertext()) for one in drawings(plot)[0].iter() if one.tag.endswith("text"))
    shown = re.sub(r"\s", "", shown)
    for name in NAMES[:4]:
        assert re.sub(r"\s", "", name) in shown
    assert r"\u202e\x1b[2J" in shown and "\x1b" not in plot.svg()


def test_a_page_colours_plots_by_its_own_variables_and_its_ids_are_unique() -> None:
    html = "".join(
        lines({"a": [(0, 1), (1, 2)]}, f"{n}", "x", "y", bands={"a": [(0, 0, 2), (1, 1, 3)]}).html()
        for n in range(2)
    )
    assert not re.search("#[0-9a-f]{6}", html) and "http" not in html and "url(" not in html
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert {name for name in re.findall(r"var\(--(\w+)\)", html)} <= set(DAY)


def test_the_users_configuration_changes_nothing_and_is_left_alone() -> None:
    plot = lines({"a": [(0, 1), (1, 2)]}, "t", "x", "y")
    plain = plot.svg(), plot.html(), plot.png()
    with matplotlib.rc_context({"font.size": 40, "text.usetex": True, "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        assert (plot.svg(), plot.html(), plot.png()) == plain
        assert dict(matplotlib.rcParams) == before


def test_colours_can_be_read_by_day_and_by_night() -> None:
    def light(colour: str) -> float:
        parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
        return sum(one * weight for one, weight in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))

    def contrast(one: str, other: str) -> float:
        low, high = sorted((light(one), light(other)))
        return (high + 0.05) / (low + 0.05)

    assert DAY.keys() == NIGHT.keys()
    for colours in (DAY, NIGHT):
        for name in ("ink", "quiet", "mark"):
            assert min(contrast(colours[name], colours[paper]) for paper in ("paper", "soft")) >= 4.5, name
        for number in range(6):
            assert contrast(colours[f"line{number}"], colours["paper"]) >= 3
        for step in range(SCALE_STEPS):
            assert contrast(colours[f"on{step}"], colours[f"scale{step}"]) >= 4.5, step
        lights = [light(colours[f"scale{step}"]) for step in range(SCALE_STEPS)]
        assert lights == sorted(lights, reverse=colours is DAY)
    drawn = [colour for name, colour in DAY.items() if not name.startswith("on")]
    assert len(drawn) == len(set(drawn)), "a colour of a drawing names one variable"


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0, 500, 1000], ["0", "500", "1k"]),
        ([1e6 + 1, 1e6 + 2], ["1.000001M", "1.000002M"]),
        ([0.0, 5e-13, 1e-12], ["0", "5e-13", "1e-12"]),
        ([1e12, 1e15, 1e18], ["1T", "1e15", "1e18"]),
        ([2.1453, 2.1454], ["2.1453", "2.1454"]),
    ],
)
def test_ticks_can_be_told_apart(values, labels) -> None:
    assert tick_labels(values) == labels


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize(("low", "high"), [(1, 2), (1, 1e12), (1e-12, 2e-12), (3, 7), (64, 16_384)])
def test_an_axis_has_a_few_round_ticks_inside(low, high, log, whole) -> None:
    found = ticks(low, high, log, whole)
    slack = 1e-9 * (high - low)
    assert len(found) <= 12 and all(low - slack <= value <= high + slack for value in found)
    assert len(found) >= 2 or (whole and high < 1)


def test_text_is_wrapped_at_words_then_at_punctuation_then_anywhere() -> None:
    width = 12 * LETTER * TEXT
    assert wrapped("one two three four", width) == ["one two", "three four"]
    assert wrapped("one a/long/path/x.y", width)[0] == "one a/long/"
    for text in (*NAMES, "", "가" * 99):
        assert all(text_width(line) <= width for line in wrapped(text, width))
    assert thinned(["1", "2", "3", "4"], 12) == ["1", "", "3", ""]


def test_a_font_without_hangul_is_noticed(monkeypatch) -> None:
    plot = lines({"손실": [(0, 1)]}, "한국어 제목", "x", "y")
    figure.hangul_font.cache_clear()
    assert plot.letters_missing() == (not figure.hangul_font())
    monkeypatch.setattr(figure, "hangul_font", lambda: ())
    assert plot.letters_missing() and plot.png().startswith(b"\x89PNG")
    assert not lines({"a": [(0, 1)]}, "Ünïcode – “title” €", "x", "y").letters_missing()


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    name = b"runs/\xff\xfe".decode("utf-8", "surrogateescape")
    plot = bars([(name, 1, "1")], name, "n")
    for form in (plot.svg(), plot.html(), page(name, [table([name], [(name,)])])):
        assert "runs/\\xff\\xfe" in form and form.encode("utf-8")


def test_a_folder_for_fonts_that_cannot_be_written_is_no_event(tmp_path) -> None:
    code = "from braingpt.html.bars import bars; bars([('a', 1, '1')], 't', 'n').png()"
    (tmp_path / "file").touch()
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MPLCONFIGDIR": str(tmp_path / "file" / "none")},
        capture_output=True,
        text=True,
    )
    assert (found.returncode, found.stderr) == (0, "")


def test_matplotlib_is_imported_by_the_first_plot() -> None:
    code = (
        "import sys, braingpt.inspection.page, braingpt.evaluation.page, braingpt.bench.report.page, "
        "braingpt.data.shards.report, braingpt.train.run.report; assert 'matplotlib' not in sys.modules; "
        "from braingpt.html.bars import bars; bars([('a', 1, '1')], 't', 'n').svg(); "
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
