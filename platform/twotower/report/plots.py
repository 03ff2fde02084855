"""The plots of the page, each a pure function from data to inline SVG.

All are drawn 480 units wide, the width of one card, so that labels stay readable on a phone.
Series carry colour classes; what a colour says is also said by a label or a shape.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from markupsafe import Markup

from twotower.report import svg
from twotower.report.formats import score
from twotower.report.svg import Frame, Scale

WIDTH = 480.0
MAX_POINTS = 240
"""Points drawn of one line; longer ones are averaged in bins (a screen shows no more)."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line."""

    label: str
    colour: int
    points: Sequence[tuple[float, float]]
    marked: tuple[float, float] | None = None
    """A point to ring, such as the best checkpoint."""

    faint: bool = False
    """Drawn thin and without a label: one of many."""


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled value with its interval, or without (``low`` and ``high`` None)."""

    label: str
    colour: int
    value: float
    low: float | None = None
    high: float | None = None
    strong: bool = False
    """Its label is bold."""

    hollow: bool = False
    """Its point is a ring: less certain than the others."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One point of a scatter plot."""

    x: float | str
    y: float
    title: str
    """Hover text."""

    shape: Literal["full", "hollow", "best"] = "full"


@dataclass(frozen=True, slots=True)
class Axes:
    """Titles and kinds of the two axes."""

    x_title: str
    y_title: str
    x_kind: Literal["linear", "log"] = "linear"
    y_kind: Literal["linear", "log"] = "linear"
    height: float = 260.0


def thin(
    points: Sequence[tuple[float, float]], most: int = MAX_POINTS
) -> list[tuple[float, float]]:
    """At most ``most`` points; longer lines become means of equal bins of neighbours."""
    if len(points) <= most:
        return list(points)
    edges = [i * len(points) // most for i in range(most + 1)]
    bins = [points[a:b] for a, b in pairwise(edges)]
    return [(sum(x for x, _ in b) / len(b), sum(y for _, y in b) / len(b)) for b in bins]


def lines(series: Sequence[Series], axes: Axes) -> Markup:
    """Lines with their names at their right ends.

    Args:
        series: Lines; points that an axis can't show (NaN, or <= 0 on a log axis) are left out.
        axes: Titles and kinds.
    """
    drawn = [_showable(s, axes) for s in series]
    right = WIDTH - svg.margin_for([s.label for s in drawn if not s.faint], least=16)
    points = [p for s in drawn for p in s.points]
    y = Scale.fit([p[1] for p in points], (axes.height - 42, 30), axes.y_kind)
    left = svg.margin_for([label for _, label in svg.labelled(y.ticks(), y.kind)])
    x = Scale.fit([p[0] for p in points], (left, right), axes.x_kind, pad=0.02)
    parts = [Frame(x, y, axes.x_title, axes.y_title).draw()]
    parts += [_line(s, x, y) for s in drawn if s.points]
    named = [s for s in drawn if s.points and not s.faint]
    heights = spread([y(s.points[-1][1]) for s in named], gap=14, lowest=y.start + 6)
    for s, height in zip(named, heights, strict=True):
        end = x(s.points[-1][0])
        label = svg.label(end + 10, height + 4, s.label, class_="name")
        parts.append(svg.group([label], class_=f"c{s.colour}"))
    title = f"{axes.y_title} against {axes.x_title}: {', '.join(s.label for s in named)}"
    return svg.picture(WIDTH, axes.height, parts, title)


def intervals(rows: Sequence[Row], title: str, zero: bool = False, unit: str = "") -> Markup:
    """Points with whiskers, one row each, the value written at the right.

    Args:
        rows: From top to bottom.
        title: Title of the axis.
        zero: Draw a line at 0 and write values with a sign: the rows are differences.
        unit: Written after the value.
    """
    names = [r.label + "  " if r.strong else r.label for r in rows]  # bold is wider
    left, right = svg.margin_for(names, least=70), WIDTH - 72
    ends = [v for r in rows for v in (r.value, r.low, r.high) if v is not None]
    x = Scale.fit([*ends, 0.0] if zero else ends, (left + 8, right))
    height = 30.0 * len(rows)
    ticks = [(x(v), label) for v, label in svg.labelled(x.ticks(4))]
    parts = [svg.line(at, 6, at, height + 6, class_="grid") for at, _ in ticks]
    parts += [svg.text(at, height + 23, label, text_anchor="middle") for at, label in ticks]
    if zero:
        parts.append(svg.line(x(0), 2, x(0), height + 8, class_="zero"))
    for i, row in enumerate(rows):
        parts.append(_whisker(row, x, 30.0 * i + 21, left, score(row.value, signed=zero) + unit))
    parts.append(svg.text(right, height + 41, title, text_anchor="end", class_="axis-title"))
    return svg.picture(WIDTH, height + 48, parts, title)


def bars(rows: Sequence[Row], labels: Sequence[str], title: str) -> Markup:
    """Horizontal bars from 0; ``labels`` are written at their ends."""
    left = svg.margin_for([r.label for r in rows])
    right = WIDTH - svg.margin_for(labels, least=60)
    x = Scale.fit([r.value for r in rows], (left, right), zero=True, pad=0.0)
    parts: list[Markup] = []
    for i, (row, label) in enumerate(zip(rows, labels, strict=True)):
        y = 28.0 * i + 6
        end = x(row.value)
        hover = svg.element("title", f"{row.label}: {label}")
        bar = svg.element(
            "rect", hover, x=left, y=y, width=max(end - left, 1.5), height=16.0, rx=2, class_="bar"
        )
        parts.append(svg.label(left - 8, y + 12, row.label, text_anchor="end", class_=_weight(row)))
        parts.append(svg.group([bar], class_=f"c{row.colour}"))
        parts.append(svg.text(max(end, left) + 7, y + 12, label, class_="value"))
    return svg.picture(WIDTH, 28.0 * len(rows) + 4, parts, title)


def scatter(marks: Sequence[Mark], axes: Axes, steps: Sequence[tuple[float, float]] = ()) -> Markup:
    """Points with hover texts; ``x`` may be names, which then stand side by side.

    Args:
        marks: Points; those that a log axis can't show are left out.
        axes: Titles and kinds; the y axis is linear.
        steps: A rising step line behind the points, such as the best so far.
    """
    names = list(dict.fromkeys(str(m.x) for m in marks if isinstance(m.x, str)))
    marks = [m for m in marks if isinstance(m.x, str) == bool(names)]
    if axes.x_kind == "log" and not names:
        marks = [m for m in marks if not isinstance(m.x, str) and m.x > 0]
    y = Scale.fit([m.y for m in marks], (axes.height - 42, 30))
    left = svg.margin_for([label for _, label in svg.labelled(y.ticks(), y.kind)])
    place = {name: float(i) for i, name in enumerate(names)}
    at = [place[m.x] if isinstance(m.x, str) else m.x for m in marks]
    span = (left, WIDTH - 16)
    x = (
        Scale(-0.5, len(names) - 0.5, *span)
        if names
        else Scale.fit(at, span, axes.x_kind, pad=0.05)
    )
    ticks = [(x(place[name]), name) for name in names] or None
    parts = [Frame(x, y, axes.x_title, axes.y_title).draw(ticks)]
    parts += _steps(steps, x, y)
    # the best is drawn last, so no neighbour covers it
    order = sorted(range(len(marks)), key=lambda i: marks[i].shape == "best")
    parts += [_mark(marks[i], x(at[i]), y(marks[i].y)) for i in order]
    return svg.picture(WIDTH, axes.height, parts, f"{axes.y_title} against {axes.x_title}")


def spread(values: Sequence[float], gap: float, lowest: float = math.inf) -> list[float]:
    """Positions moved apart as little as needed so that neighbours are ``gap`` apart, in order.

    None ends below ``lowest`` (y grows downwards).
    """
    order = sorted(range(len(values)), key=lambda i: values[i])
    blocks: list[tuple[float, list[int]]] = []  # (mean position, members); too near ones merge
    for rank, i in enumerate(order):
        room = gap * (len(order) - 1 - rank)  # for those below
        blocks.append((min(values[i], lowest - room), [i]))
        while len(blocks) > 1:
            (low, below), (high, above) = blocks[-2], blocks[-1]
            if high - low >= gap * (len(below) + len(above)) / 2:
                break
            size = len(below) + len(above)
            blocks[-2:] = [((low * len(below) + high * len(above)) / size, below + above)]
    placed = [0.0] * len(values)
    for centre, members in blocks:
        for k, i in enumerate(members):
            placed[i] = centre + (k - (len(members) - 1) / 2) * gap
    return placed


def _showable(series: Series, axes: Axes) -> Series:
    def fits(value: float, kind: str) -> bool:
        return math.isfinite(value) and (kind == "linear" or value > 0)

    kept = [(x, y) for x, y in series.points if fits(x, axes.x_kind) and fits(y, axes.y_kind)]
    return Series(series.label, series.colour, thin(kept), series.marked, series.faint)


def _line(series: Series, x: Scale, y: Scale) -> Markup:
    points = [(x(a), y(b)) for a, b in series.points]
    parts = [svg.path(points, class_="faint" if series.faint else "line")]
    if not series.faint and len(points) <= 60:
        parts += [
            svg.dot(px, py, f"{series.label}: {b:.5g} at {a:.5g}", radius=2.6)
            for (px, py), (a, b) in zip(points, series.points, strict=True)
        ]
    if series.marked is not None:
        a, b = series.marked
        parts.append(svg.dot(x(a), y(b), f"{series.label}, best: {b:.5g} at {a:.5g}", 6, "ring"))
    return svg.group(parts, class_=f"c{series.colour}")


def _whisker(row: Row, x: Scale, y: float, left: float, value: str) -> Markup:
    label = svg.label(left - 8, y + 4, row.label, text_anchor="end", class_=_weight(row))
    hover = f"{row.label}: {value}"
    parts: list[Markup] = []
    if row.low is not None and row.high is not None:
        hover += f" [{score(row.low)}, {score(row.high)}]"
        parts.append(svg.line(x(row.low), y, x(row.high), y, class_="whisker"))
        ends = (x(row.low), x(row.high))
        parts += [svg.line(end, y - 4, end, y + 4, class_="whisker") for end in ends]
    parts.append(svg.dot(x(row.value), y, hover, 4.5, "hollow" if row.hollow else "dot"))
    shown = svg.text(WIDTH - 4, y + 4, value, text_anchor="end", class_=f"value {_weight(row)}")
    return svg.group([label, svg.group(parts, class_=f"c{row.colour}"), shown])


def _steps(steps: Sequence[tuple[float, float]], x: Scale, y: Scale) -> list[Markup]:
    if not steps:
        return []
    corners = [(x(steps[0][0]), y(steps[0][1]))]
    for a, b in steps[1:]:
        corners += [(x(a), corners[-1][1]), (x(a), y(b))]
    return [svg.group([svg.path(corners, class_="step")], class_="c1")]


def _mark(mark: Mark, x: float, y: float) -> Markup:
    class_ = {"full": "dot", "hollow": "hollow", "best": "dot"}[mark.shape]
    parts = [svg.dot(x, y, mark.title, 4, class_)]
    if mark.shape == "best":
        parts.append(svg.dot(x, y, mark.title, 8, "ring"))
    return svg.group(parts, class_="c2" if mark.shape == "best" else "c1")


def _weight(row: Row) -> str:
    return "strong" if row.strong else "plain"
