"""Elements, scales and axes of inline SVG.

Colours are CSS classes (`c0` grey, `c1`.. the series) that the page maps to variables, so one
picture fits light, dark and print. Every text and attribute is escaped on its way in.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from markupsafe import Markup, escape

from twotower.report.formats import compact

CHAR_WIDTH = 7.2
"""Width of a character of the 12 px labels, in user units, in a wide font (DejaVu Sans)."""

_SAME = 1e-9
"""Values nearer than this, relative to their size (at least 1), are drawn as one."""

_CAPITAL_WIDTH = 10.0
"""The same of a capital, as it is drawn on a phone."""

MOST_CHARS = 26
"""Longest label; longer ones are cut with an ellipsis and read whole on hover."""


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """One SVG element.

    Args:
        tag: Name of the element; written as it is, so never from data.
        children: Text (escaped) or `Markup` (kept). None is left out.
        attributes: Values are escaped; `_` in a name becomes `-`, a last `_` falls (`class_`);
            floats are cut to two decimals; None is left out.
    """
    pairs = [
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), _attribute(value))
        for name, value in attributes.items()
        if value is not None
    ]
    inner = Markup().join(escape(child) for child in children if child is not None)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(tag), Markup().join(pairs), inner)


def group(children: Iterable[Markup], **attributes: object) -> Markup:
    """A `g` around elements."""
    return element("g", *children, **attributes)


def picture(
    width: float, height: float, children: Iterable[object], title: str, class_: str | None = None
) -> Markup:
    """A whole SVG that scales with its container; ``title`` is read by screen readers."""
    return element(
        "svg",
        *children,
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
        aria_label=title,
        class_=class_,
    )


def text(x: float, y: float, content: str, **attributes: object) -> Markup:
    """A line of text; ``y`` is the base line."""
    return element("text", content, x=x, y=y, **attributes)


def label(x: float, y: float, name: str, **attributes: object) -> Markup:
    """A name from data: as `text`, but cut in its middle where it is longer than `MOST_CHARS`."""
    if len(name) <= MOST_CHARS:
        return text(x, y, name, **attributes)
    whole = element("title", name)
    cut = f"{name[:13]}…{name[-(MOST_CHARS - 14) :]}"  # names of runs differ at their ends
    return element("text", cut, whole, x=x, y=y, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, **attributes: object) -> Markup:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, **attributes)


def path(points: Sequence[tuple[float, float]], **attributes: object) -> Markup:
    """An open polyline through points in user units."""
    steps = " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))
    return element("path", d=steps, **attributes)


def dot(x: float, y: float, title: str, radius: float = 3.5, class_: str = "dot") -> Markup:
    """A point with a hover text."""
    return element("circle", element("title", title), cx=x, cy=y, r=radius, class_=class_)


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps data values to user units along one axis."""

    low: float
    high: float
    start: float
    """User unit of ``low``."""

    end: float
    """User unit of ``high``."""

    kind: Literal["linear", "log"] = "linear"

    @classmethod
    def fit(
        cls,
        values: Iterable[float],
        span: tuple[float, float],
        kind: Literal["linear", "log"] = "linear",
        *,
        zero: bool = False,
        pad: float = 0.06,
    ) -> "Scale":
        """The scale that holds all finite values (positive ones where logarithmic), padded.

        Args:
            values: Data values; an empty set gives the range 0..1 (1..10 where logarithmic).
            span: User units of the low and the high end.
            kind: Linear or logarithmic.
            zero: Keep 0 as the low end (linear only).
            pad: Room at each end, as a share of the range.
        """
        kept = [v for v in values if math.isfinite(v) and (kind == "linear" or v > 0)]
        if kind == "log":
            low, high = (min(kept), max(kept)) if kept else (1.0, 10.0)
            room = max((high / low) ** pad, 1.05)
            return cls(low / room, high * room, *span, kind)
        low, high = (min(kept), max(kept)) if kept else (0.0, 1.0)
        low = min(low, 0.0) if zero else low
        room = (high - low) * pad
        if high - low <= _SAME * max(abs(high), 1.0):
            room = abs(high) * 0.1 if abs(high) > _SAME else 1.0
        return cls(low if zero and low == 0 else low - room, high + room, *span, kind)

    def __call__(self, value: float) -> float:
        """User unit of a data value (positive where the scale is logarithmic)."""
        if self.kind == "log":
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, wanted: int = 5) -> list[float]:
        """About ``wanted`` round values inside the range, rising."""
        return self._log_ticks(wanted) if self.kind == "log" else self._linear_ticks(wanted)

    def _linear_ticks(self, wanted: int) -> list[float]:
        rough = (self.high - self.low) / max(wanted, 1)
        power = 10.0 ** math.floor(math.log10(rough))
        step = power * next(m for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(i * step, 12) for i in range(first, last + 1)]

    def _log_ticks(self, wanted: int) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for marks in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
            ticks = [m * 10.0**e for e in range(first, last + 1) for m in marks]
            inside = [t for t in ticks if self.low <= t <= self.high]
            if len(inside) >= 3:
                return inside[:: math.ceil(len(inside) / (wanted + 2))]
        return self._linear_ticks(wanted)  # a range so narrow that a log scale is nearly linear


@dataclass(frozen=True, slots=True)
class Frame:
    """The two axes of a plot; plots draw between ``x.start..x.end`` and ``y.end..y.start``."""

    x: Scale
    y: Scale
    x_title: str
    y_title: str

    def draw(self, x_ticks: Sequence[tuple[float, str]] | None = None) -> Markup:
        """Grid, ticks, labels, titles; ``x_ticks`` (user unit, label) replaces the own ones."""
        left, right, top, bottom = self.x.start, self.x.end, self.y.end, self.y.start
        marks = [(self.y(v), name) for v, name in labelled(self.y.ticks(), self.y.kind)]
        below = x_ticks
        if below is None:
            below = [(self.x(v), name) for v, name in labelled(self.x.ticks(7), self.x.kind)]
        parts = [line(left, y, right, y, class_="grid") for y, _ in marks]
        parts += [text(left - 7, y + 4, name, text_anchor="end") for y, name in marks]
        parts += [line(x, bottom, x, bottom + 4, class_="axis") for x, _ in below]
        parts += [label(x, bottom + 17, name, text_anchor="middle") for x, name in below]
        parts.append(line(left, bottom, right, bottom, class_="axis"))
        parts.append(text(right, bottom + 34, self.x_title, text_anchor="end", class_="axis-title"))
        parts.append(text(0, top - 10, self.y_title, class_="axis-title"))
        return group(parts, class_="frame")


def labelled(ticks: Sequence[float], kind: str = "linear") -> list[tuple[float, str]]:
    """Ticks with labels of equal precision (or powers written short where logarithmic)."""
    if kind == "log" or not ticks:
        return [(t, compact(t)) for t in ticks]
    step = min((b - a for a, b in pairwise(ticks)), default=abs(ticks[0]) or 1)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    short = [compact(t) for t in ticks]
    is_long = decimals > 5 or max(abs(t) for t in ticks) >= 10_000
    if is_long and len(set(short)) == len(short):
        return list(zip(ticks, short, strict=True))
    # the typographic minus is meant
    return [(t, f"{t:.{decimals}f}".replace("-", "−")) for t in ticks]  # noqa: RUF001


def margin_for(labels: Iterable[str], least: float = 40) -> float:
    """Width that the longest label needs, in user units; at least ``least``."""
    longest = max((_width(label[:MOST_CHARS]) for label in labels), default=0)
    return max(least, longest + 14)


def _width(label: str) -> float:
    return sum(_CAPITAL_WIDTH if c.isupper() else CHAR_WIDTH for c in label)


def _attribute(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
