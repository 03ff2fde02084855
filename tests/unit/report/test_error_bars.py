import math
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from twotower.report.error_bars import Curve, Point, axis_kind, curves
from twotower.report.formats import core_time, gain, p_value
from twotower.report.plots import Row

HOSTILE = '<script>alert("x")</script>&'


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.1, 0.5, 0.9], "linear"),
        ([0.1, 1.0], "linear"),
        ([0.03, 0.1, 10.0], "log"),
        ([0, 0.03, 10.0], "named"),
        ([0, 1, 2], "linear"),
        (["uniform", "in_batch"], "named"),
        ([True, False], "named"),
        ([], "linear"),
    ],
)
def test_the_axis_is_logarithmic_over_more_than_a_decade(values: list, kind: str) -> None:
    assert axis_kind(values) == kind


def circles(picture: str) -> list[tuple[float, float]]:
    found = ET.fromstring(picture).iter("circle")
    return [(float(c.get("cx", "nan")), float(c.get("cy", "nan"))) for c in found]


def test_points_stand_in_order_of_their_values_at_equal_ratios() -> None:
    points = [Point(10.0, 0.3), Point(0.1, 0.1), Point(1.0, 0.2)]
    places = circles(curves([Curve("a", 1, points)], "weight", "Recall@50"))
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    assert places[1][0] - places[0][0] == pytest.approx(places[2][0] - places[1][0], abs=0.02)
    assert [y for _, y in places] == sorted((y for _, y in places), reverse=True)


@pytest.mark.parametrize("sizes", [[0.7, 1.83, 4.78], [1.1, 1.4, 2.2], [0.09, 0.9, 90.0]])
def test_a_logarithmic_axis_can_be_asked_for(sizes: list[float]) -> None:
    """Equal ratios are equally far apart, and there are at least three labels with room."""
    points = [Point(size, 0.1 * n) for n, size in enumerate(sizes)]
    points += [Point(1.02 * sizes[1], 0.15)]  # so near that not every value has a label
    picture = curves([Curve("a", 1, points)], "MB", "Recall@50", x_kind="log")
    ends = [x for x, _ in circles(picture)]
    apart = [math.log(b / a) for a, b in pairwise(sizes)]
    first, near, last = ends[0], ends[1], ends[-1]
    assert (near - first) / (last - near) == pytest.approx(apart[0] / apart[1], rel=0.01)
    drawn = ET.fromstring(picture)
    below = [e for e in drawn.iter("text") if e.get("text-anchor") == "middle"]
    places = [float(e.get("x", 0)) for e in below]
    assert len(places) >= 3
    assert all(b - a >= 24 for a, b in pairwise(places))
    assert len({e.text for e in below}) == len(below)


def test_the_level_is_as_high_as_a_point_of_its_value_and_its_band_holds_its_interval() -> None:
    points = [Point(1.0, 0.2, 0.15, 0.25), Point(2.0, 0.4)]
    level = Row("Baseline", 8, 0.2, 0.15, 0.25)
    picture = ET.fromstring(curves([Curve("a", 1, points)], "weight", "Recall@50", level))
    line = next(e for e in picture.iter("line") if e.get("class") == "level")
    band = next(e for e in picture.iter("rect") if e.get("class") == "band")
    whisker = next(e for e in picture.iter("line") if e.get("class") == "whisker thin")
    circle = next(picture.iter("circle"))
    assert line.get("y1") == circle.get("cy")
    assert float(band.get("y", 0)) == pytest.approx(float(whisker.get("y2", 0)), abs=0.02)
    bottom = float(band.get("y", 0)) + float(band.get("height", 0))
    assert bottom == pytest.approx(float(whisker.get("y1", 0)), abs=0.02)


def test_names_are_not_joined_and_curves_stand_beside_each_other() -> None:
    points = [Point("uniform", 0.2, 0.1, 0.3), Point("in_batch", 0.1)]
    picture = curves([Curve("a", 1, points), Curve("b", 2, points)], HOSTILE, HOSTILE)
    assert "<script" not in picture
    assert "<path" not in picture
    places = circles(picture)
    assert len({x for x, _ in places}) == 4


def test_nothing_to_draw_is_still_a_picture() -> None:
    ET.fromstring(curves([], "x", "y"))
    ET.fromstring(curves([Curve("a", 1, [])], "x", "y", Row("b", 2, 0.5)))


def test_numbers_are_written_for_people() -> None:
    assert [gain(v) for v in (0.0412, -0.0034, 0.00001, -0.00001, 12.0)] == [
        "+4.1 %", "\u22120.3 %", "0.0 %", "0.0 %", "+1200 %",
    ]  # fmt: skip
    assert [p_value(v) for v in (0.0001, 0.0123, 1.0)] == ["< 0.001", "0.012", "1.000"]
    assert [core_time(v) for v in (42, 300, 5400, 900_000)] == [
        "42 core-seconds", "5 core-minutes", "1.5 core-hours", "250 core-hours",
    ]  # fmt: skip
