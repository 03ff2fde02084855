"""The figures of a study: differences to the baseline as forest plots, and sweeps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from twotower.report import error_bars, plots
from twotower.report.error_bars import Curve, Point, Value
from twotower.report.figures import Figure
from twotower.report.folder import as_number
from twotower.report.formats import gain, integer, metric_label, p_value, plain, score
from twotower.report.plots import Row
from twotower.study import marks
from twotower.study.document import (
    Document,
    Setting,
    rows_of,
    setting_of,
    standing,
    text_of,
    value_of,
)
from twotower.study.views import DASH, written


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures under one title, the numbers behind them as a table."""

    title: str
    figures: list[Figure]
    columns: list[str]
    rows: list[list[str]]


def forests(document: Document) -> list[Figures]:
    """A plot for each setting and primary metric: every method less the baseline."""
    groups = [_forest(document, setting) for setting in document.settings]
    return [group for group in groups if group.rows]


def sweeps(document: Document) -> list[Figures]:
    """A plot for each sweep, setting and metric; methods that sweep the same share a plot."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for sweep in rows_of(document.tables, "sweeps"):
        if rows_of(sweep, "points") and not sweep.get("grid"):
            title = str(sweep.get("title") or sweep.get("name") or "")
            found.setdefault((title, text_of(sweep, "path")), []).append(sweep)
    return [_swept_figures(document, title, path, own) for (title, path), own in found.items()]


def _swept_figures(
    document: Document, title: str, path: str, own: Sequence[Mapping[str, Any]]
) -> Figures:
    metrics = _swept_metrics(document, own)
    shown = [m for m in metrics if m in document.primary] or metrics[:2]
    columns = ["Setting", "Method", path, "Seeds", *map(metric_label, metrics), "Runs"]
    group = Figures(title, [], columns, [])
    for setting in dict.fromkeys(setting_of(sweep) for sweep in own):
        here = [sweep for sweep in own if setting_of(sweep) == setting]
        group.rows.extend(_sweep_rows(document, here, setting, metrics))
        for metric in shown:
            svg = _sweep(document, here, path, metric)
            group.figures.append(Figure(f"{metric_label(metric)} on {setting.label}", svg))
    return group


def _forest(document: Document, setting: Setting) -> Figures:
    own = [c for c in document.contrasts if setting_of(c) == setting]
    own = [c for c in own if text_of(c, "metric") in document.primary]
    own = [c for c in own if as_number(c.get("mean")) is not None]
    figures: list[Figure] = []
    for metric in document.primary:
        rows = [
            Row(
                document.title(name),
                document.colour(name),
                as_number(contrast["mean"]) or 0.0,
                as_number(contrast.get("low")),
                as_number(contrast.get("high")),
                hollow=standing(contrast) not in ("ahead", "behind"),
            )
            for name in document.methods(setting)
            if (contrast := document.contrast(setting, name, metric)) is not None
        ]
        if rows:
            svg = plots.intervals(rows, f"difference in {metric_label(metric)}", zero=True)
            figures.append(Figure(metric_label(metric), svg))
    own.sort(key=lambda contrast: document.primary.index(text_of(contrast, "metric")))
    columns = ["Method", "Metric", "Mean", "Gain", "Difference", "Interval", "Bootstrap"]
    columns += ["p", "p (Holm)", "Seeds", "Queries", "Runs"]
    return Figures(setting.label, figures, columns, [_numbers(document, c) for c in own])


def _numbers(document: Document, contrast: Mapping[str, Any]) -> list[str]:
    counts = (contrast.get("seeds"), contrast.get("queries"))
    against = text_of(contrast, "against") or document.baseline
    titles = (document.title(str(contrast["method"])), document.title(against))
    return [
        titles[0] + ("" if against == document.baseline else f" less {titles[1]}"),
        metric_label(text_of(contrast, "metric")),
        written(contrast.get("second"), score),
        written(contrast.get("relative"), gain),
        written(contrast.get("mean"), _signed),
        _span(contrast.get("low"), contrast.get("high")),
        _span(contrast.get("boot_low"), contrast.get("boot_high")),
        written(contrast.get("p"), p_value),
        written(contrast.get("p_holm"), p_value) if contrast.get("primary") else "descriptive",
        *(written(len(n) if isinstance(n, list) else n, integer) for n in counts),
        "; ".join(marks.words(marks.shown_of_pair(contrast, titles))),
    ]


def _sweep(
    document: Document, sweeps: Sequence[Mapping[str, Any]], path: str, metric: str
) -> Markup:
    curves: list[Curve] = []
    for sweep in sweeps:
        name = text_of(sweep, "method")
        points = [
            Point(_swept(point.get("value")), found.value, found.low, found.high)
            for point in rows_of(sweep, "points")
            if (found := value_of((point.get("metrics") or {}).get(metric))) is not None
        ]
        curves.append(Curve(document.title(name), document.colour(name), points))
    levels = (value_of((sweep.get("baseline") or {}).get(metric)) for sweep in sweeps)
    base = next((level for level in levels if level is not None), None)
    level = None
    if base is not None:
        name = document.baseline
        level = Row(document.title(name), document.colour(name), base.value, base.low, base.high)
    return error_bars.curves(curves, path, metric_label(metric), level)


def _sweep_rows(
    document: Document,
    sweeps: Sequence[Mapping[str, Any]],
    setting: Setting,
    metrics: Sequence[str],
) -> list[list[str]]:
    rows: list[list[str]] = []
    for sweep in sweeps:
        method = document.title(text_of(sweep, "method"))
        for point in rows_of(sweep, "points"):
            cells = [value_of((point.get("metrics") or {}).get(metric)) for metric in metrics]
            shown = [score(cell.value) if cell else DASH for cell in cells]
            seeds = point.get("seeds")
            count = len(seeds) if isinstance(seeds, list) else as_number(seeds)
            told = "; ".join(marks.words(marks.shown(point, int(count or 0))))
            where = [setting.label, method, plain(point.get("value")), written(count, integer)]
            rows.append([*where, *shown, told])
    return rows


def _swept_metrics(document: Document, sweeps: Sequence[Mapping[str, Any]]) -> list[str]:
    points = [point for sweep in sweeps for point in rows_of(sweep, "points")]
    found = dict.fromkeys(str(key) for point in points for key in point.get("metrics") or {})
    wanted = [*document.metrics, *document.primary]
    return [metric for metric in dict.fromkeys(wanted) if metric in found] or list(found)


def _swept(value: Any) -> Value:
    """Of an axis: a list by its first value and how many more it has."""
    if isinstance(value, list | tuple) and len(value) > 1:
        return f"{plain(value[0])} and {len(value) - 1} more"
    return value if isinstance(value, int | float | str) else plain(value)


def _signed(value: float) -> str:
    return score(value, signed=True)


def _span(low: Any, high: Any) -> str:
    ends = (as_number(low), as_number(high))
    return DASH if None in ends else " to ".join(written(end, _signed) for end in ends)
