"""The result file of compressed tables as tables for a console, readable without a legend."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from twotower.bench.summary import console_table
from twotower.bench.table_kinds import FULL

_DRAWS = {"uniform": "uniform ids", "zipf": "Zipf ids"}


def summary(document: Mapping[str, Any]) -> Iterator[Table]:
    """Tables of what a run found."""
    for batch in dict.fromkeys(line["batch"] for line in document["training"]):
        yield _training(batch, [line for line in document["training"] if line["batch"] == batch])
    yield _lookups(document["serving"])


def _training(batch: int, lines: Sequence[Mapping[str, Any]]) -> Table:
    table = console_table(
        f"training on W1, batch {batch:,}: a step beside one with full tables, and memory",
        (
            "tables",
            "ms a step",
            "full: ms",
            "times full",
            "spread",
            "with revivals",
            "state MB",
            "peak MB",
            "served MB",
            "of full",
        ),
    )
    for line in lines:
        timed = ["", "", "", "", ""]
        if line["kind"] != FULL:
            with_revivals = line.get("ratio_with_revivals")
            timed = [
                f"{line['step_ms']:.1f}",
                f"{line['full_step_ms']:.1f}",
                f"{line['ratio']:.2f} x",
                f"{line['spread']:.0%}",
                f"{with_revivals:.2f} x" if with_revivals else "",
            ]
        table.add_row(
            line["kind"],
            *timed,
            f"{line['state_mb']:,.0f}",
            f"{line['peak_rss_mb']:,.0f}",
            f"{line['table_mb']:.1f}",
            f"{line['share_of_full']:.1%}",
        )
    return table


def _lookups(serving: Mapping[str, Any]) -> Table:
    cells = {(line["kind"], line["draw"], line["batch"]): line for line in serving["lookups"]}
    columns = list(dict.fromkeys((draw, batch) for _, draw, batch in cells))
    table = console_table(
        f"lookups on one core, {serving['values']:,} values of {serving['width']} numbers: "
        "ids per second (times a NumPy gather of float32 rows)",
        (
            "tables",
            "MB",
            "of full",
            *(f"{_DRAWS[draw]}, {batch:,} a call" for draw, batch in columns),
        ),
    )
    for kind, size in serving["sizes"].items():
        found = [cells[kind, draw, batch] for draw, batch in columns]
        table.add_row(
            kind,
            f"{size['bytes'] / 2**20:.1f}",
            f"{size['share_of_full']:.1%}",
            *(f"{_short(line['ids_per_s'])} ({line['ratio']:.2f} x)" for line in found),
        )
    return table


def _short(rate: float) -> str:
    return f"{rate / 1e6:.1f} M" if rate >= 1e6 else f"{rate / 1e3:.0f} k"
