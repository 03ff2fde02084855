"""Intervals on an axis that does not reach all of them: arrows point at what lies beyond it."""

from collections.abc import Sequence

from markupsafe import Markup

from twotower.report import svg
from twotower.report.svg import Scale

_TIP = 5.0
"""Length of an arrow's head, in user units; as wide on both sides as `_WING`."""

_WING = 4.0


def reach(values: Sequence[float], sure: Sequence[float], least: float) -> tuple[float, float]:
    """The two ends of an axis: those of the values, but cut off.

    Args:
        values: All that is to be drawn; at least one.
        sure: Those of them that the axis must reach.
        least: Where it is cut off, below and above 0, if ``sure`` does not go further.
    """
    most = max([least, *map(abs, sure)])
    low, high = (min(most, max(-most, end)) for end in (min(values), max(values)))
    return low, high


def interval(
    value: float,
    ends: tuple[float, float] | None,
    x: Scale,
    y: float,
    dot: tuple[str, str],
    radius: float = 4,
) -> list[Markup]:
    """A point with its interval, as far as the axis goes.

    Args:
        value: Where the point is; beyond the axis it is left out.
        ends: Of the interval; None without one, and then the point itself may be an arrow.
        x: The axis.
        y: Height, in user units.
        dot: Hover text and class of the point.
        radius: Of the point.
    """
    low, high = ends or (value, value)
    kept = [min(x.high, max(x.low, end)) for end in (low, high)]
    parts: list[Markup] = []
    if ends is not None and low <= x.high and high >= x.low:
        parts.append(svg.line(x(kept[0]), y, x(kept[1]), y, class_="whisker"))
    if low < x.low:
        parts.append(_arrow(x.start, _TIP, y))
    if high > x.high:
        parts.append(_arrow(x.end, -_TIP, y))
    if x.low <= value <= x.high:
        parts.append(svg.dot(x(value), y, dot[0], radius, dot[1]))
    return parts


def _arrow(at: float, back: float, y: float) -> Markup:
    corners = [(at + back, y - _WING), (at, y), (at + back, y + _WING)]
    return svg.path(corners, class_="line")
