"""One picture of a study: the gain of every method over the baseline, on all data."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from twotower.report import clipped, html, svg
from twotower.report.folder import as_number
from twotower.report.formats import gain, metric_label
from twotower.report.svg import Scale
from twotower.study.document import Document, Setting, standing

_WIDTH, _COLUMNS, _GAP = 880.0, 2, 26.0
_ROW, _HEAD, _FOOT = 17.0, 22.0, 34.0
MOST = 0.5
"""Gains and ends of intervals are drawn within plus or minus this, or as far as the significant
ones go; arrows point beyond."""


@dataclass(frozen=True, slots=True)
class _Gain:
    """A method's difference to the baseline as a share of the baseline's mean."""

    title: str
    colour: int
    mean: float
    low: float
    high: float
    is_significant: bool
    signs: str
    """Of its marks."""


def overview(document: Document) -> Markup | None:
    """The picture, for the first primary metric; None while no difference is measured.

    Panels are settings, rows methods; all panels share one axis.
    """
    metric = document.primary[0] if document.primary else ""
    panels = [(s, own) for s in document.settings if (own := _gains(document, s, metric))]
    if not panels:
        return None
    names = list(dict.fromkeys(g.title for _, own in panels for g in own))
    left = svg.margin_for(names)
    width = (_WIDTH - left - _GAP * _COLUMNS) / _COLUMNS
    every = [g for _, own in panels for g in own]
    ends = [end for g in every for end in (g.low, g.high)]
    sure = [end for g in every if g.is_significant for end in (g.low, g.high)]
    low, high = clipped.reach(ends, sure, MOST)
    height = _HEAD + _ROW * len(names) + _FOOT
    parts: list[Markup] = []
    for place, (setting, own) in enumerate(panels):
        row, column = divmod(place, _COLUMNS)
        start = left + column * (width + _GAP)
        x = Scale.fit([low, high, 0.0], (start, start + width))
        label = setting.label
        if signs := document.signs(setting, document.baseline):
            label += f" · {document.title(document.baseline)} {signs}"
        parts.append(_panel(label, own, names, x, row * height, named=column == 0))
    rows = -(-len(panels) // _COLUMNS)
    title = f"Gain over {document.title(document.baseline)} in {metric_label(metric)}"
    legend = [f"{title}; filled: significant after Holm's correction"]
    if shown := document.all_marks:
        told = ", ".join(f"{mark.sign} {mark.word}" for mark in shown)
        legend.append(f"{told}: some or all of its runs")
    bottom = rows * height + 12
    parts += [
        svg.text(_WIDTH - 8, bottom + 15 * n, text, text_anchor="end", class_="axis-title")
        for n, text in enumerate(legend)
    ]
    return svg.picture(_WIDTH, bottom + 15 * len(legend) - 3, parts, title)


def standing_alone(picture: Markup) -> str:
    """The picture as a file of its own, with its colours, for a README."""
    style = svg.element("style", Markup(html.plot_style()))
    card = svg.element("rect", width="100%", height="100%", rx=8, style="fill: var(--card)")
    opened, _, rest = str(picture).partition(">")
    return f'{opened} xmlns="http://www.w3.org/2000/svg">{style}{card}{rest}\n'


def _gains(document: Document, setting: Setting, metric: str) -> list[_Gain]:
    found: list[_Gain] = []
    for name in document.methods(setting):
        contrast = document.contrast(setting, name, metric)
        if contrast is None or document.is_reference(name):
            continue
        keys = ("relative", "relative_low", "relative_high")
        mean, low, high = (as_number(contrast.get(key)) for key in keys)
        if mean is None or low is None or high is None:
            continue
        told, signs = standing(contrast) in {"ahead", "behind"}, document.signs(setting, name)
        title, colour = document.title(name), document.colour(name)
        found.append(_Gain(title, colour, mean, low, high, told, signs))
    return found


def _panel(
    label: str,
    gains: Sequence[_Gain],
    names: Sequence[str],
    x: Scale,
    top: float,
    *,
    named: bool,
) -> Markup:
    first, last = top + _HEAD, top + _HEAD + _ROW * len(names)
    parts = [svg.text(x.start, top + 17, label, class_="strong")]
    for tick in x.ticks(5):
        style = "grid" if tick else "zero"
        share = gain(tick).replace(".0 %", " %")
        parts.append(svg.line(x(tick), first, x(tick), last, class_=style))
        parts.append(svg.text(x(tick), last + 14, share, text_anchor="middle"))
    by_title = {g.title: g for g in gains}
    for place, name in enumerate(names):
        y = first + _ROW * (place + 0.5)
        if named:
            parts.append(svg.label(x.start - 8, y + 4, name, text_anchor="end"))
        if name in by_title:
            parts.append(_mark(by_title[name], x, y))
    return svg.group(parts)


def _mark(own: _Gain, x: Scale, y: float) -> Markup:
    hover = f"{own.title}: {gain(own.mean)} [{gain(own.low)}, {gain(own.high)}]"
    dot = (hover, "dot" if own.is_significant else "hollow")
    parts = clipped.interval(own.mean, (own.low, own.high), x, y, dot)
    if own.signs:
        parts.append(svg.text(x.end + 3, y + 4, own.signs, class_="axis-title"))
    return svg.group(parts, class_=f"c{own.colour}")
