"""What a run's model is served with, in bytes: read from the run, and as rows of the page."""

from collections.abc import Mapping, Sequence
from typing import Any

from twotower.core.config import ExperimentConfig
from twotower.core.errors import DataError
from twotower.report.content import Run, Sizes, TableSize
from twotower.report.folder import Folder, as_mapping
from twotower.report.formats import byte_size, integer, method_label, percent

FILE = "sizes.json"

COLUMNS = ("Table", "Kind", "Values", "As served", "Of full")
"""Of `table_rows`."""

TOTALS = ("Run", "Tables", "Of full tables", "Towers", "Served in all")
"""Of `total_rows`."""


def read_sizes(folder: Folder, config: ExperimentConfig | None) -> Sizes | None:
    """Sizes of a run; None, and nothing is missing, where it has none.

    Args:
        folder: the run directory.
        config: its config, which names kinds more closely than the file does (`mgqe`, not `dpq`).

    Raises:
        DataError: the file has another shape than the platform writes.
    """
    if not folder.store.exists(FILE):
        return None
    document, where = folder.json(FILE, "bytes as served"), folder.where(FILE)
    rows = {
        name: as_mapping(row, f"{where} {name}")
        for name, row in as_mapping(document.get("tables"), f"{where} tables").items()
    }
    values = {name: _count(row, "values", f"{where} {name}") for name, row in rows.items()}
    kinds = {table: k.kind for table, k in config.embeddings(values).items()} if config else {}
    tables = [_table(n, row, kinds.get(n), f"{where} {n}") for n, row in rows.items()]
    tables.sort(key=lambda table: (-table.bytes, table.name))
    return Sizes(tuple(tables), _count(document, "dense_bytes", where))


def _table(name: str, row: Mapping[str, Any], kind: str | None, where: str) -> TableSize:
    values, own, full = (_count(row, key, where) for key in ("values", "bytes", "full_bytes"))
    if full == 0:
        raise DataError(f"{where}: `full_bytes` is 0")
    return TableSize(name, kind or str(row.get("kind", "")), values, own, full)


def _count(row: Mapping[str, Any], key: str, where: str) -> int:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DataError(f"{where}: `{key}` must be a whole number from 0, found {value!r}")
    return value


def total_rows(runs: Sequence[Run]) -> list[list[str]]:
    """A row a run that has sizes."""
    rows: list[list[str]] = []
    for run in runs:
        if run.sizes is not None and run.sizes.tables:
            every, dense = run.sizes.together, run.sizes.dense_bytes
            rows.append(
                [
                    method_label(run.label),
                    byte_size(every.bytes),
                    percent(every.share),
                    byte_size(dense),
                    byte_size(every.bytes + dense),
                ]
            )
    return rows


def table_rows(runs: Sequence[Run]) -> list[tuple[str, list[list[str]]]]:
    """(run, a row a table) of every run that has sizes, the largest table first."""
    return [
        (
            method_label(run.label),
            [
                [
                    table.name,
                    table.kind,
                    integer(table.values),
                    byte_size(table.bytes),
                    percent(table.share),
                ]
                for table in run.sizes.tables
            ],
        )
        for run in runs
        if run.sizes is not None and run.sizes.tables
    ]


def summarised(sizes: Sizes) -> dict[str, Any]:
    """Sizes as JSON values for `summary.json`."""
    every = sizes.together
    return {
        "table_bytes": every.bytes,
        "full_table_bytes": every.full_bytes,
        "dense_bytes": sizes.dense_bytes,
        "tables": {
            table.name: {
                "kind": table.kind,
                "values": table.values,
                "bytes": table.bytes,
                "share_of_full": round(table.share, 6),
            }
            for table in sizes.tables
        },
    }
