import math
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twotower.report import plots, svg
from twotower.report.heatmap import heatmap
from twotower.report.plots import Axes, Mark, Row, Series
from twotower.report.svg import Scale, labelled

HOSTILE = '<script>alert("x")</script>&\x00'
NUMBERS = st.floats(-1e9, 1e9, allow_nan=False)


def parse(picture: str) -> ET.Element:
    return ET.fromstring(picture.replace("\x00", ""))


@given(st.lists(NUMBERS, min_size=1, max_size=30))
def test_ticks_are_inside_round_and_rising(values: list[float]) -> None:
    scale = Scale.fit(values, (0.0, 100.0))
    ticks = scale.ticks()
    assert ticks == sorted(set(ticks))
    assert all(-1e-6 <= scale(tick) <= 100 + 1e-6 for tick in ticks)
    assert 1 <= len(ticks) <= 12
    labels = [label for _, label in labelled(ticks)]
    assert len(set(labels)) == len(labels)


@given(st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=30))
def test_log_scale_keeps_order_and_its_ticks_are_inside(values: list[float]) -> None:
    scale = Scale.fit(values, (0.0, 100.0), "log")
    places = [scale(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(0 <= place <= 100 for place in places)
    assert all(0 <= scale(tick) <= 100 for tick in scale.ticks())


@given(st.floats(1e-6, 1e6), st.floats(1.05, 1e4))
def test_a_log_scale_of_any_width_has_ticks(low: float, ratio: float) -> None:
    scale = Scale.fit([low, low * ratio], (0.0, 100.0), "log")
    ticks = scale.ticks()
    assert ticks == sorted(set(ticks))
    assert 2 <= len(ticks) <= 12


@pytest.mark.parametrize("kind", ["linear", "log"])
def test_scale_without_any_value_still_draws(kind: str) -> None:
    scale = Scale.fit([math.nan, -math.inf], (0.0, 100.0), kind)  # pyright: ignore[reportArgumentType]
    assert scale.ticks()


def test_labels_have_the_precision_of_their_step() -> None:
    assert [label for _, label in labelled([0.0, 0.05, 0.1])] == ["0.00", "0.05", "0.10"]
    assert [label for _, label in labelled([0.0, 20.0, 40.0])] == ["0", "20", "40"]
    assert [label for _, label in labelled([0.0, 20000.0])] == ["0", "20k"]


def test_text_and_attributes_are_escaped() -> None:
    shown = svg.element("text", HOSTILE, class_='a"b', fill=None)
    assert "<script" not in shown
    assert 'class="a&#34;b"' in shown
    assert "fill" not in shown


@given(st.lists(st.floats(0, 300), max_size=12), st.floats(1, 30))
def test_spread_keeps_order_and_distance(values: list[float], gap: float) -> None:
    placed = plots.spread(values, gap)
    order = sorted(range(len(values)), key=lambda i: values[i])
    steps = [placed[b] - placed[a] for a, b in pairwise(order)]
    assert all(step >= gap - 1e-6 for step in steps)
    if all(b - a >= gap for a, b in pairwise(sorted(values))):
        assert placed == pytest.approx(values)


@given(st.lists(st.floats(0, 300), min_size=1, max_size=12))
def test_spread_stays_above_its_lowest_place(values: list[float]) -> None:
    assert max(plots.spread(values, 14, lowest=200)) <= 200 + 1e-6


def test_long_lines_are_thinned_to_means_of_their_neighbours() -> None:
    points = [(float(i), float(i % 2)) for i in range(1000)]
    thinned = plots.thin(points, most=100)
    assert len(thinned) == 100
    assert thinned[0] == (4.5, 0.5)
    assert plots.thin(points[:100], most=100) == points[:100]


def test_every_plot_is_well_formed_and_escapes_names() -> None:
    axes = Axes(HOSTILE, HOSTILE)
    rows = [Row(HOSTILE, 1, 0.2, 0.1, 0.3), Row("b", 0, 0.4)]
    drawn = [
        plots.lines([Series(HOSTILE, 1, [(1, 2), (2, 3)], marked=(2, 3))], axes),
        plots.intervals(rows, HOSTILE, zero=True),
        plots.bars(rows, [HOSTILE, "x"], HOSTILE),
        plots.scatter([Mark(HOSTILE, 1.0, HOSTILE), Mark("b", 2.0, "b", "best")], axes),
        heatmap([HOSTILE, "b"], [[1.0, 0.5], [0.5, 1.0]], HOSTILE),
    ]
    for picture in drawn:
        assert "<script" not in picture
        assert parse(picture).tag == "svg"


def test_plots_of_nothing_are_still_pictures() -> None:
    axes = Axes("x", "y", "log", "log")
    empty = [
        plots.lines([], axes),
        plots.scatter([], axes),
        plots.intervals([], "x"),
        plots.bars([], [], "x"),
    ]
    for picture in [*empty, heatmap([], [], "x")]:
        parse(picture)


def test_what_an_axis_cannot_show_is_left_out() -> None:
    series = Series("a", 1, [(0.0, 1.0), (1.0, math.nan), (1.0, 2.0), (10.0, 3.0)])
    picture = plots.lines([series], Axes("x", "y", "log"))
    assert "nan" not in picture
    assert picture.count("<circle") == 2
    marks = [Mark(0.0, 1.0, "zero"), Mark(1.0, 1.0, "one")]
    assert plots.scatter(marks, Axes("x", "y", "log")).count("<circle") == 1


def test_the_best_point_is_drawn_last() -> None:
    marks = [Mark(1.0, 1.0, "best one", "best"), Mark(2.0, 1.0, "other")]
    picture = plots.scatter(marks, Axes("x", "y"))
    assert picture.rindex("best one") > picture.rindex("other")


def test_heatmap_shades_by_the_largest_value_off_the_diagonal() -> None:
    picture = parse(heatmap(["a", "b", "c"], [[9, 2, 1], [2, 9, 0], [1, 0, 9]], "t"))
    cells = [e for e in picture.iter("rect") if e.get("class") == "cell"]
    shades = [float(cell.get("fill-opacity", "nan")) for cell in cells]
    assert shades[0] == shades[4] == shades[8] == 0
    assert shades[1] == max(shades)
    assert shades[2] == pytest.approx(shades[1] / 2, abs=0.01)
