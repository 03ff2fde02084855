"""Sweeps over several paths at once: a metric against the bytes of each point's tables."""

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from markupsafe import Markup

from twotower.report import error_bars
from twotower.report.content import COLOURS
from twotower.report.error_bars import Curve, Point
from twotower.report.figures import Figure
from twotower.report.folder import as_number
from twotower.report.formats import byte_size, metric_label, percent, plain, score
from twotower.report.plots import Row
from twotower.study import marks
from twotower.study.document import Document, rows_of, setting_of, texts_of, value_of
from twotower.study.figures import Figures
from twotower.study.sizes import X_TITLE
from twotower.study.views import DASH

_LONG = 16
"""Letters of a value that a curve's name has room for."""


def figures(document: Document) -> list[Figures]:
    """A plot for each grid and primary metric, and its points from the smallest tables up."""
    return [
        _figures(document, sweep)
        for sweep in rows_of(document.tables, "sweeps")
        if texts_of(sweep, "grid") and rows_of(sweep, "points")
    ]


def _figures(document: Document, sweep: Mapping[str, Any]) -> Figures:
    paths = texts_of(sweep, "grid")
    points = sorted(rows_of(sweep, "points"), key=lambda point: _bytes(point) or 0.0)
    shown = [m for m in document.primary if any(_metric(point, m) for point in points)]
    where = setting_of(sweep).label
    short = _short(sweep)
    plots = [
        Figure(f"{metric_label(metric)} on {where}", _drawn(document, sweep, points, metric, short))
        for metric in shown
        if all(_bytes(point) for point in points)
    ]
    names = [path.rpartition(".")[2] for path in paths]
    columns = [*names, "Tables", "of full tables", "Seeds", *map(metric_label, shown), "Runs"]
    rows = [_row(point, paths, shown, short) for point in points]
    return Figures(f"{sweep.get('title')}, {where}", plots, columns, rows)


def _drawn(
    document: Document,
    sweep: Mapping[str, Any],
    points: Sequence[Mapping[str, Any]],
    metric: str,
    short: Mapping[tuple[str, str], str],
) -> Markup:
    """A curve along the first path for every combination of the others."""
    first, *others = texts_of(sweep, "grid")
    curves: dict[str, list[Point]] = {}
    for point in points:
        value, own = _metric(point, metric), point["value"]
        if value is not None:
            told = [f"{path.rpartition('.')[2]} {short[path, plain(own[path])]}" for path in others]
            label = ", ".join(told) or first.rpartition(".")[2]
            dot = Point((_bytes(point) or 0.0) / 1e6, value.value, value.low, value.high)
            curves.setdefault(label, []).append(dot)
    series = [
        Curve(label, 1 + n % (COLOURS - 1), own) for n, (label, own) in enumerate(curves.items())
    ]
    base, level = value_of((sweep.get("baseline") or {}).get(metric)), None
    if base is not None:
        name = document.baseline
        level = Row(document.title(name), document.colour(name), base.value, base.low, base.high)
    return error_bars.curves(series, X_TITLE, metric_label(metric), level, x_kind="log")


def _short(sweep: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Values as curves name them, by path and text: a path's own letters where texts are long."""
    found: dict[tuple[str, str], str] = {}
    for path in texts_of(sweep, "grid"):
        texts = list(dict.fromkeys(plain(p["value"][path]) for p in rows_of(sweep, "points")))
        is_long = any(len(text) > _LONG for text in texts)
        for place, text in enumerate(texts):
            found[path, text] = ascii_uppercase[place % 26] * (1 + place // 26) if is_long else text
    return found


def _row(
    point: Mapping[str, Any],
    paths: Sequence[str],
    metrics: Sequence[str],
    short: Mapping[tuple[str, str], str],
) -> list[str]:
    tables, full = _bytes(point), _bytes(point, "full_table_bytes")
    values = [_metric(point, metric) for metric in metrics]
    texts = [(path, plain(point["value"][path])) for path in paths]
    told = [(short[text], text[1]) for text in texts]
    seeds = int(as_number(point.get("seeds")) or 0)
    return [
        *(f"{name}: {text}" if name != text else text for name, text in told),
        byte_size(tables) if tables else DASH,
        percent(tables / full) if tables and full else DASH,
        str(seeds),
        *(score(value.value) if value else DASH for value in values),
        "; ".join(marks.words(marks.shown(point, seeds))),
    ]


def _metric(point: Mapping[str, Any], metric: str) -> Any:
    return value_of((point.get("metrics") or {}).get(metric))


def _bytes(point: Mapping[str, Any], key: str = "table_bytes") -> float | None:
    return as_number((point.get("sizes") or {}).get(key))
