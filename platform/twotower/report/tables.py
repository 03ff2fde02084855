"""Short tables for the console. Text from files is never read as markup or control codes."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from twotower.core.config import Eval
from twotower.core.console import plain
from twotower.core.errors import DataError
from twotower.core.storage import Store
from twotower.report.collect import collect, read_search, read_summary
from twotower.report.compare import ties
from twotower.report.content import Interval, Method, Report
from twotower.report.formats import (
    SLICES_SHORT,
    integer,
    method_label,
    metric_label,
    percent,
    rounded,
    score,
    split_metric,
)

if TYPE_CHECKING:  # these import polars, torch and Ray, which a table doesn't need
    from twotower.data.raw_profile import DataProfile
    from twotower.runtime.assess import Comparison
    from twotower.runtime.doctor import Check

MOST_TRIALS = 10
"""Trials shown on the console; the page has all."""


def methods_table(report: Report, metrics: Sequence[str] | None = None) -> Table:
    """Methods against metrics: the best of a column bold, what can't be told from it with ≈.

    Args:
        report: What `collect` found.
        metrics: Columns; by default Recall and MAP at every K and the chosen metric in the tail.
    """
    columns = list(metrics or _columns(report))
    known = [k for k in columns if any(k in m.evaluation.summary for m in report.methods)]
    table = _table(
        f"{report.part}: mean over queries ± half of its {_level(report.confidence)} interval"
    )
    table.add_column("method", no_wrap=True)
    standing = {key: ties(report.methods, key, report.confidence) for key in known}
    decimals = {key: _decimals(report.methods, key) for key in known}
    for key in known:
        table.add_column(metric_label(key).replace(" ", "\n"), justify="right")
    for method in report.methods:
        cells = [_cell(method, key, decimals[key], standing[key]) for key in known]
        table.add_row(plain(method_label(method.name)), *cells)
    if any(near for _, near in standing.values()):
        table.caption = "bold: highest of its column; ≈: not distinguishable from it"
    return table


def run_table(location: str | Path) -> Table:
    """One run's row of the table of methods, under the baselines that stand in its directory."""
    return methods_table(collect({Path(location).name: location}))


def slices_table(summary: Mapping[str, Any]) -> Table:
    """One evaluation: slices of the truth against Recall and MAP, with the queries each is over.

    Args:
        summary: The `summary` of an evaluation file.
    """
    cells = read_summary(summary, "summary")
    split = {key: parts for key in cells if (parts := split_metric(key))}
    shown = sorted({(m, k) for _, m, k in split.values() if m in ("recall", "map")}, reverse=True)
    shown.sort(key=lambda pair: (pair[0] != "recall", pair[1]))
    table = _table(
        "mean over queries ± half of its interval; slices by the true item's train count"
    )
    table.add_column("true item", no_wrap=True)
    table.add_column("queries", justify="right")
    for name, k in shown:
        table.add_column(metric_label(f"{name}@{k}"), justify="right")
    for part, label in SLICES_SHORT.items():
        keys = [f"{'' if part == 'all' else part + '_'}{name}@{k}" for name, k in shown]
        row = [cells.get(key) for key in keys]
        count = next((cell.n for cell in row if cell is not None and cell.n is not None), None)
        if any(cell is not None for cell in row):
            values = [_value(cell, 3) if cell is not None else Text("–") for cell in row]  # noqa: RUF001 an en dash is meant
            table.add_row(label, integer(count or 0), *values)
    return table


def comparison_table(found: "Comparison") -> Group:
    """Runs against a reference run, a table each: both values, paired difference, interval."""
    tables: list[Table] = []
    for run, differences in found.runs.items():
        table = _table("")
        level = _level(found.confidence)
        table.title = plain(f"{run} less {found.reference}, on {found.part}, {level} intervals")
        table.add_column("metric", no_wrap=True)
        for name in (found.reference, run, "difference", "low", "high", "queries"):
            table.add_column(_cut(name), justify="right")
        table.add_column("0 inside?")
        for metric, gap in differences.items():
            within = "" if gap.low is None or gap.high is None else _inside(gap.low, gap.high)
            table.add_row(
                plain(metric_label(metric)),
                *(_score(value) for value in (gap.first, gap.second)),
                *(_score(value, signed=True) for value in (gap.mean, gap.low, gap.high)),
                integer(gap.n),
                within,
            )
        tables.append(table)
    return Group(*tables)


def trials_table(location: str | Path) -> Table:
    """The best trials of a search directory: metric on validation, parameters, how they ended."""
    search = read_search(location, [])
    if search is None:
        raise DataError(f"{location}: holds no search (no search.json); run `twotower tune`")
    ranked = sorted(search.trials, key=lambda t: (t.value is None, -(t.value or 0.0), t.number))
    names = list(dict.fromkeys(key for trial in ranked for key in trial.params))
    table = _table(f"best {min(MOST_TRIALS, len(ranked))} of {len(ranked)} trials, on validation")
    table.add_column("trial", justify="right")
    table.add_column(plain(metric_label(search.metric)), justify="right")
    for name in (name.replace(".", ".\n") for name in names):
        table.add_column(plain(name, keep="\n"), justify="right")
    table.add_column("epochs", justify="right")
    table.add_column("state")
    for trial in ranked[:MOST_TRIALS]:
        table.add_row(
            str(trial.number),
            _score(trial.value),
            *[plain(rounded(trial.params.get(name, ""))) for name in names],
            f"{trial.epochs:g}" if trial.epochs is not None else "",
            plain(trial.state),
            style="bold" if trial.number == search.best else "",
        )
    return table


def profile_table(profile: "DataProfile") -> Table:
    """Raw columns as `twotower init` sees them, under the sizes of the data."""
    counts, degrees = profile.counts, profile.degrees
    table = _table(
        f"{integer(counts.rows)} rows, {integer(counts.pairs)} distinct pairs, "
        f"{integer(counts.queries)} queries, {integer(counts.catalogue_items)} items; "
        f"the top 10 % of items hold {percent(degrees.top_10pct_share)} of the pairs"
    )
    for name in ("table", "column", "type", "feature"):
        table.add_column(name)
    for name in ("distinct", "missing"):
        table.add_column(name, justify="right")
    table.add_column("example", no_wrap=True, max_width=24, overflow="ellipsis")
    parts = (("log", profile.log), ("items", profile.catalogue), ("queries", profile.queries))
    for label, part in parts:
        for column in part.columns if part is not None else ():
            share = percent(column.missing / part.rows) if part and part.rows else ""
            names = (plain(text) for text in (label, column.name, column.type, column.kind or "–"))  # noqa: RUF001 an en dash
            table.add_row(*names, integer(column.distinct), share, plain(column.example))
    return table


def prepared_table(location: str | Path) -> Table:
    """A prepared dataset: its parts, and the rows of the log that are not in it."""
    manifest = Store(location).read_json("manifest.json")
    counts, dropped = manifest["counts"], manifest["dropped"]
    table = _table(
        f"{integer(counts['log_rows'])} rows of the log became {integer(counts['pairs'])} distinct "
        f"pairs of {integer(counts['queries'])} queries and {integer(counts['items'])} items"
    )
    table.show_header = False
    table.add_column(justify="right")
    for part in ("train", "validation", "test"):
        table.add_row(integer(counts[part]), plain(f"{part} pairs"))
    for reason, rows in dropped.items():
        table.add_row(integer(rows), plain(f"rows left out: {reason.replace('_', ' ')}"))
    return table


def checks_table(checks: Sequence["Check"]) -> Table:
    """What `twotower doctor` found, and what to do where all isn't well."""
    table = _table("")
    table.show_header = False
    colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    for check in checks:
        told = plain(check.detail + (f"; {check.mend}" if check.mend else ""))
        table.add_row(Text(check.status, style=colours[check.status]), plain(check.name), told)
    return table


def value_at(document: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path of a nested mapping; KeyError names the path."""
    value: Any = document
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            raise KeyError(path)
        value = value[name]
    return value


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        caption_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="bold",
        title_style="",
    )


def _columns(report: Report) -> list[str]:
    rules = next((run.config.eval for run in report.runs if run.config is not None), Eval())
    columns = [f"{name}@{k}" for name in ("recall", "map") for k in rules.k]
    return [*columns, f"tail_{rules.select}"]


def _cut(name: str) -> Text:
    """A run's name in a column: its last part, which tells it from the others."""
    return plain(name if len(name) <= 10 else "…" + name[-9:])


def _score(value: float | None, signed: bool = False) -> str:
    return score(value, signed) if value is not None else "–"  # noqa: RUF001 an en dash is meant


def _inside(low: float, high: float) -> str:
    return "yes" if low <= 0 <= high else "no"


def _level(confidence: float) -> str:
    return f"{confidence * 100:g} %"


def _decimals(methods: Sequence[Method], key: str) -> int:
    """Decimals that show the narrowest interval of a column as at least two units, 3 to 5."""
    halves = [
        (cell.high - cell.low) / 2
        for m in methods
        if (cell := m.evaluation.summary.get(key))
        and cell.low is not None
        and cell.high is not None
    ]
    least = min((half for half in halves if half > 0), default=0.01)
    return min(max(math.ceil(-math.log10(least / 2)), 3), 5)


def _cell(method: Method, key: str, decimals: int, standing: tuple[str | None, set[str]]) -> Text:
    cell = method.evaluation.summary.get(key)
    if cell is None:
        return Text("–")  # noqa: RUF001 an en dash is meant
    best, near = standing
    text = _value(cell, decimals)
    if method.name == best:
        text.stylize("bold")
    return Text.assemble("≈", text) if method.name in near else text


def _value(cell: Interval, decimals: int) -> Text:
    text = Text(f"{cell.value:.{decimals}f}")
    if cell.low is not None and cell.high is not None:
        half = f"{(cell.high - cell.low) / 2:.{decimals}f}".removeprefix("0")
        text.append(f" ±{half}", style="dim")
    return text
