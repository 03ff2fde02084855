"""Intervals on an axis that does not reach all of them."""

from xml.etree import ElementTree

import pytest

from twotower.report import svg
from twotower.report.clipped import interval, reach
from twotower.report.svg import Scale

AXIS = Scale(-0.5, 0.5, 0.0, 100.0)


@pytest.mark.parametrize(
    ("values", "sure", "ends"),
    [
        ([-0.1, 0.2], [], (-0.1, 0.2)),
        ([-0.1, 100.0], [], (-0.1, 0.5)),
        ([-7.0, 100.0], [], (-0.5, 0.5)),
        ([-7.0, 0.1, 2.0], [2.0], (-2.0, 2.0)),
        ([3.0, 4.0], [], (0.5, 0.5)),
    ],
)
def test_the_axis_goes_as_far_as_is_sure(
    values: list[float], sure: list[float], ends: tuple[float, float]
) -> None:
    assert reach(values, sure, 0.5) == ends


@pytest.mark.parametrize(
    ("value", "ends", "line", "arrows", "dot"),
    [
        (0.1, (0.0, 0.2), (50.0, 70.0), [], 60.0),
        (0.1, (-2.0, 0.2), (0.0, 70.0), [0.0], 60.0),
        (9.0, (-8.0, 30.0), (0.0, 100.0), [0.0, 100.0], None),
        (9.0, (8.0, 10.0), None, [100.0], None),
        (-9.0, (-10.0, -8.0), None, [0.0], None),
        (9.0, None, None, [100.0], None),
        (0.1, None, None, [], 60.0),
    ],
)
def test_arrows_stand_at_the_ends_that_are_passed(
    value: float,
    ends: tuple[float, float] | None,
    line: tuple[float, float] | None,
    arrows: list[float],
    dot: float | None,
) -> None:
    parts = interval(value, ends, AXIS, 10.0, ("told", "dot"))
    drawn = ElementTree.fromstring(svg.group(parts))
    lines = [(float(e.get("x1", 0)), float(e.get("x2", 0))) for e in drawn.iter("line")]
    assert lines == ([] if line is None else [line])
    tips = [float(e.get("d", "").split("L")[1].split()[0]) for e in drawn.iter("path")]
    assert tips == arrows
    assert [float(e.get("cx", 0)) for e in drawn.iter("circle")] == ([] if dot is None else [dot])
