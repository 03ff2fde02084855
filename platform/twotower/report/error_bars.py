"""A metric against a swept value, as inline SVG: points with intervals, and a level to compare."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from markupsafe import Markup

from twotower.report import plots, svg
from twotower.report.formats import compact, plain, score
from twotower.report.plots import Row
from twotower.report.svg import Frame, Scale

Value = float | str | bool
AxisKind = Literal["linear", "log", "named"]

HEIGHT = 270.0
_DODGE = 6.0
"""User units between curves at one value, so that whiskers don't cover each other."""

_APART = 30.0
"""Least distance of two labels on the axis."""


@dataclass(frozen=True, slots=True)
class Point:
    """A mean with its interval at one value."""

    x: Value
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """One method over the values."""

    label: str
    colour: int
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class _Axis:
    """Where values stand: on a scale, or one beside the other."""

    scale: Scale
    names: tuple[Value, ...] | None
    ticks: list[tuple[float, str]] | None

    def __call__(self, value: Value) -> float:
        return self.scale(float(value) if self.names is None else float(self.names.index(value)))


def axis_kind(values: Sequence[Value]) -> AxisKind:
    """How values are laid out.

    Logarithmic where they span more than a decade; side by side (`named`) where some are no
    numbers, or where a logarithm would be right but some are not positive.
    """
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values):
        return "named"
    positive = [v for v in numbers if v > 0]
    if not positive or max(positive) <= 10 * min(positive):
        return "linear"
    return "log" if len(positive) == len(numbers) else "named"


def curves(
    series: Sequence[Curve],
    x_title: str,
    y_title: str,
    level: Row | None = None,
    x_kind: AxisKind | None = None,
) -> Markup:
    """Curves of points with whiskers, their names at their right ends.

    Args:
        series: Curves; points at values that are no numbers are not joined.
        x_title: Name of what is swept.
        y_title: Name of the metric.
        level: Drawn over the whole width, dashed, with its interval as a band.
        x_kind: How values are laid out; None = as `axis_kind` says. `log` needs positive numbers.
    """
    points = [p for curve in series for p in curve.points]
    ends = [v for p in points for v in (p.y, p.low, p.high) if v is not None]
    if level is not None:
        ends += [v for v in (level.value, level.low, level.high) if v is not None]
    y = Scale.fit(ends, (HEIGHT - 42, 30))
    named = [*(c.label for c in series), *([level.label] if level is not None else [])]
    left = svg.margin_for([label for _, label in svg.labelled(y.ticks(), y.kind)])
    right = plots.WIDTH - svg.margin_for(named, least=16)
    values = [p.x for p in points]
    x = _axis(values, (left, right), x_kind or axis_kind(values))
    parts = [Frame(x.scale, y, x_title, y_title).draw(x.ticks)]
    heights: list[tuple[str, int, float]] = []
    if level is not None:
        parts.append(_level(level, y, left, right))
        heights.append((level.label, level.colour, y(level.value)))
    for i, curve in enumerate(series):
        parts.append(_curve(curve, x, y, _DODGE * (i - (len(series) - 1) / 2)))
        if curve.points:
            last = max(curve.points, key=lambda p: x(p.x))
            heights.append((curve.label, curve.colour, y(last.y)))
    places = plots.spread([at for _, _, at in heights], gap=14, lowest=y.start + 6)
    for (label, colour, _), at in zip(heights, places, strict=True):
        name = svg.label(right + 8, at + 4, label, class_="name")
        parts.append(svg.group([name], class_=f"c{colour}"))
    title = f"{y_title} against {x_title}: {', '.join(named)}"
    return svg.picture(plots.WIDTH, HEIGHT, parts, title)


def _axis(values: Sequence[Value], span: tuple[float, float], kind: AxisKind) -> _Axis:
    unique = list(dict.fromkeys(values))
    if kind == "named":
        if all(isinstance(v, int | float) for v in unique):
            unique.sort(key=float)
        scale = Scale(-0.5, len(unique) - 0.5, *span)
        return _Axis(scale, tuple(unique), [(scale(i), plain(v)) for i, v in enumerate(unique)])
    numbers = sorted(float(v) for v in unique)
    scale = Scale.fit(numbers, span, kind, pad=0.07)
    ticks = [(scale(v), compact(v)) for v in numbers]
    is_open = all(b - a >= _APART for (a, _), (b, _) in pairwise(ticks))
    return _Axis(scale, None, ticks if is_open and ticks else None)


def _level(level: Row, y: Scale, left: float, right: float) -> Markup:
    at = y(level.value)
    parts = [svg.line(left, at, right, at, class_="level")]
    if level.low is not None and level.high is not None:
        top = y(level.high)
        band = svg.element(
            "rect", x=left, y=top, width=right - left, height=y(level.low) - top, class_="band"
        )
        parts.insert(0, band)
    return svg.group(parts, class_=f"c{level.colour}")


def _curve(curve: Curve, x: _Axis, y: Scale, shift: float) -> Markup:
    points = sorted(curve.points, key=lambda p: x(p.x))
    places = [(x(p.x) + shift, y(p.y)) for p in points]
    joined = x.names is None or not any(isinstance(v, str | bool) for v in x.names)
    parts = [svg.path(places, class_="line")] if joined and places else []
    for point, (px, py) in zip(points, places, strict=True):
        hover = f"{curve.label}: {score(point.y)} at {plain(point.x)}"
        if point.low is not None and point.high is not None:
            hover += f" [{score(point.low)}, {score(point.high)}]"
            low, high = y(point.low), y(point.high)
            parts.append(svg.line(px, low, px, high, class_="whisker thin"))
            parts += [svg.line(px - 4, e, px + 4, e, class_="whisker thin") for e in (low, high)]
        parts.append(svg.dot(px, py, hover, 4))
    return svg.group(parts, class_=f"c{curve.colour}")
