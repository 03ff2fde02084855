"""What quality costs in bytes: a metric against the bytes of the served tables."""

from collections.abc import Sequence

from twotower.report import error_bars
from twotower.report.error_bars import Curve, Point
from twotower.report.figures import Figure
from twotower.report.folder import as_number
from twotower.report.formats import byte_size, metric_label, percent, score
from twotower.report.plots import Row
from twotower.study import marks
from twotower.study.document import Document, Setting, rows_of, text_of
from twotower.study.figures import Figures
from twotower.study.views import DASH

X_TITLE = "MB of embedding tables as served, logarithmic"


def figures(document: Document) -> list[Figures]:
    """A plot for each setting and primary metric where methods differ in their tables' bytes."""
    found: list[Figures] = []
    for setting in document.settings:
        names = [
            n for n in document.methods(setting) if _bytes(document, setting, n, "table_bytes")
        ]
        if len({_bytes(document, setting, n, "table_bytes") for n in names}) > 1:
            found.append(_figures(document, setting, names))
    return found


def _figures(document: Document, setting: Setting, names: Sequence[str]) -> Figures:
    curves = {text_of(m, "name"): text_of(m, "curve") for m in rows_of(document.tables, "methods")}
    groups: dict[str, list[str]] = {}
    for name in names:
        if name != document.baseline:
            groups.setdefault(curves.get(name) or document.title(name), []).append(name)
    plots: list[Figure] = []
    for metric in document.primary:
        series = [
            Curve(title, document.colour(own[0]), _points(document, setting, own, metric))
            for title, own in groups.items()
        ]
        base, level = document.value(setting, document.baseline, metric), None
        if base is not None:
            name = document.baseline
            label, colour = document.title(name), document.colour(name)
            level = Row(label, colour, base.value, base.low, base.high)
        drawn = error_bars.curves(series, X_TITLE, metric_label(metric), level, x_kind="log")
        plots.append(Figure(metric_label(metric), drawn))
    labels = [metric_label(metric) for metric in document.primary]
    columns = ["Method", "Tables", "of full tables", "Served in all", *labels, "Runs"]
    rows = [_row(document, setting, name) for name in names]
    return Figures(setting.label, plots, columns, rows)


def _points(document: Document, setting: Setting, names: Sequence[str], metric: str) -> list[Point]:
    found: list[Point] = []
    for name in names:
        value, size = document.value(setting, name, metric), _bytes(document, setting, name)
        if value is not None and size is not None:
            found.append(Point(size / 1e6, value.value, value.low, value.high))
    return found


def _row(document: Document, setting: Setting, name: str) -> list[str]:
    tables, full, dense = (
        _bytes(document, setting, name, key)
        for key in ("table_bytes", "full_table_bytes", "dense_bytes")
    )
    values = [document.value(setting, name, metric) for metric in document.primary]
    return [
        document.title(name),
        byte_size(tables) if tables else DASH,
        percent(tables / full) if tables and full else DASH,
        byte_size(tables + dense) if tables and dense else DASH,
        *(score(value.value) if value else DASH for value in values),
        "; ".join(marks.words(document.marks(setting, name))),
    ]


def _bytes(
    document: Document, setting: Setting, name: str, key: str = "table_bytes"
) -> float | None:
    return as_number((document.row(setting, name).get("sizes") or {}).get(key))
