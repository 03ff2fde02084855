"""The paper's relative gains beside ours."""

from collections.abc import Sequence

from twotower.report.folder import as_number
from twotower.report.formats import gain, metric_label
from twotower.study import marks
from twotower.study.document import (
    Document,
    Row,
    Setting,
    gain_text,
    rows_of,
    standing,
    text_of,
)
from twotower.study.views import DASH, Body, Cell, Line, Table

_Pair = tuple[str, str]
"""A method and what it is held against."""


def paper_tables(document: Document) -> list[Table]:
    """Methods against metrics that the paper gives gains of, for every dataset.

    Each fraction has one of metrics over all pairs and one of slices, as far as there are any.
    """
    figures = [f for f in rows_of(document.tables, "paper") if as_number(f.get("gain")) is not None]
    shares = dict.fromkeys(setting.fraction for setting in document.settings)
    found: list[Table] = []
    for share in shares:
        own = [f for f in figures if as_number(f.get("fraction")) == share]
        metrics = list(dict.fromkeys(text_of(f, "metric") for f in own))
        whole = [metric for metric in document.metrics if metric in metrics]
        for shown in (whole, [metric for metric in metrics if metric not in whole]):
            chosen = [f for f in own if text_of(f, "metric") in shown]
            if bodies := _bodies(document, share, shown, chosen):
                found.append(_table(share, shown, bodies))
    return found


def _table(share: float, metrics: Sequence[str], bodies: list[Body]) -> Table:
    whole = "All train pairs" if share == 1 else f"{Setting('', share).share} of the train pairs"
    return Table(
        title=whole,
        aside="relative gains",
        groups=[(metric_label(metric), 2) for metric in metrics],
        columns=[name for _ in metrics for name in ("paper", "here")],
        bodies=bodies,
        kind="methods paired beside",
    )


def _bodies(
    document: Document, share: float, metrics: Sequence[str], figures: Sequence[Row]
) -> list[Body]:
    """The lines of each dataset where something was compared."""
    known = {
        (setting, (text_of(f, "method"), text_of(f, "against")), text_of(f, "metric")): f
        for setting in document.settings
        for f in figures
        if setting.fraction == share and setting.dataset in (f.get("datasets") or [setting.dataset])
    }
    order = list(document.titles)
    bodies: list[Body] = []
    for setting in dict.fromkeys(setting for setting, _, _ in known):
        pairs = sorted(
            {pair for where, pair, _ in known if where == setting},
            key=lambda pair: (pair[1] != document.baseline, *_places(pair, order)),
        )
        lines: list[Line] = []
        for pair in pairs:
            cells = [
                cell
                for metric in metrics
                for cell in _cells(document, setting, pair, known.get((setting, pair, metric)))
            ]
            if any(_contrast(document, setting, pair, metric) for metric in metrics):
                lines.append(Line(_title(document, pair), document.colour(pair[0]), cells))
        if lines:
            bodies.append(Body(lines, setting.dataset))
    return bodies


def _places(pair: _Pair, order: Sequence[str]) -> list[int]:
    return [order.index(name) if name in order else len(order) for name in pair]


def _title(document: Document, pair: _Pair) -> str:
    method, against = pair
    less = "" if against == document.baseline else f" against {document.title(against)}"
    return document.title(method) + less


def _contrast(document: Document, setting: Setting, pair: _Pair, metric: str) -> Row | None:
    return document.contrast(setting, pair[0], metric, pair[1])


def _cells(document: Document, setting: Setting, pair: _Pair, figure: Row | None) -> list[Cell]:
    """The paper's gain and ours; two empty ones where the paper has none."""
    if figure is None:
        return [Cell(""), Cell("")]
    paper = Cell(gain(as_number(figure.get("gain")) or 0.0))
    found = _contrast(document, setting, pair, text_of(figure, "metric"))
    share = None if found is None else as_number(found.get("relative"))
    if found is None or share is None:
        return [paper, Cell(DASH)]
    low, high = (as_number(found.get(key)) for key in ("relative_low", "relative_high"))
    span = f"{gain(low)} to {gain(high)}" if low is not None and high is not None else ""
    titles = (document.title(pair[0]), document.title(pair[1]))
    told = marks.shown_of_pair(found, titles)
    return [paper, Cell(gain_text(found, share), span, standing(found), told)]
