"""A study's results as tables for the console."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from twotower.core.console import plain, show
from twotower.report.formats import metric_label

_MARKS = {True: "*", False: ""}


def print_study(found: Mapping[str, Any]) -> None:
    """All tables, then how far the study is and, on a line of its own, where its page lies."""
    if not found["seeds"]:
        show("On validation, the best of each method's trials:")
    tables = [*results_tables(found), claims_table(found["claims"])]
    for table in tables if found["seeds"] else [trials_table(found)]:
        show(table, "")
    show(*(_silent(one) for one in found["not_compared"]))
    show(f"{found['runs_done']} of {found['runs_total']} runs", f"{found['folder']}/index.html")


def results_tables(tables: Mapping[str, Any]) -> Iterator[Table]:
    """One table a dataset and fraction: methods in rows, the primary metrics with intervals."""
    significant = {
        (c["dataset"], c["fraction"], c["method"], c["metric"]): c["significant"]
        for c in tables["contrasts"]
        if c["against"] == tables["baseline"] and c["primary"]
    }
    metrics = tables["primary"]
    places = dict.fromkeys((row["dataset"], row["fraction"]) for row in tables["rows"])
    for dataset, fraction in places:
        where = f"{dataset} at {_share(fraction)} of the train pairs"
        table = Table(
            "method",
            title=f"{where}; * differs from {tables['baseline']}",
            title_justify="left",
            box=None,
            pad_edge=False,
            header_style="bold",
        )
        for metric in metrics:
            table.add_column(metric_label(metric), justify="right")
        table.add_column("seeds", justify="right")
        for row in tables["rows"]:
            if (row["dataset"], row["fraction"]) == (dataset, fraction):
                stars = [significant.get((dataset, fraction, row["method"], m)) for m in metrics]
                values = [row["metrics"].get(metric) for metric in metrics]
                cells = [
                    _value(value) + _MARKS[bool(star)]
                    for value, star in zip(values, stars, strict=True)
                ]
                table.add_row(row["method"], *cells, str(len(row["seeds"]) or ""))
        yield table


def trials_table(tables: Mapping[str, Any]) -> Table:
    """Best validation values: methods in rows, a column a dataset and fraction."""
    cells: dict[str, dict[str, str]] = {}
    for row in tables["rows"]:
        found = row["validation"]
        metric, value = metric_label(found["metric"]), found["value"]
        told = "" if value is None else f"{value:.4f}"
        if found["done"] < found["planned"]:
            told += f" ({found['done']} of {found['planned']} trials)"
        column = f"{metric}, {row['dataset']} {_share(row['fraction'])}"
        cells.setdefault(column, {})[row["method"]] = told
    table = Table("method", box=None, pad_edge=False, header_style="bold")
    for column in cells:
        table.add_column(column, justify="right")
    for method in dict.fromkeys(row["method"] for row in tables["rows"]):
        table.add_row(method, *(own.get(method, "") for own in cells.values()))
    return table


def claims_table(claims: Sequence[Mapping[str, Any]]) -> Table:
    """Claims with the paper's relative gain, ours, and the verdict."""
    table = Table("claim", "data", box=None, pad_edge=False, header_style="bold")
    for name in ("paper", "ours", "interval", "verdict"):
        table.add_column(name, justify="right")
    for claim in claims:
        table.add_row(
            plain(claim["claim"]),
            f"{claim['dataset']} {_share(claim['fraction'])}",
            _gain(claim["paper"]),
            _gain(claim["ours"]),
            f"{_gain(claim['low'])} to {_gain(claim['high'])}" if claim["low"] is not None else "",
            claim["verdict"].replace("_", " "),
        )
    return table


def _silent(one: Mapping[str, Any]) -> str:
    """A comparison that no number answers."""
    growth = "" if one["grows_from"] is None else f" less that at {_share(one['grows_from'])}"
    where = f"{one['dataset']} at {_share(one['fraction'])}"
    return f"not compared: {one['method']} and {one['against']} on {where}{growth}; runs diverged"


def _share(fraction: float) -> str:
    """``100%``, ``0.5%``."""
    return f"{fraction * 100:.12g}%"


def _value(found: Mapping[str, Any] | None) -> str:
    if not found or found["value"] is None:
        return ""
    if found["low"] is None:
        return f"{found['value']:.4f}"
    return f"{found['value']:.4f} ({found['low']:.4f} to {found['high']:.4f})"


def _gain(value: float | None) -> str:
    return "" if value is None else f"{value:+.1%}"
