"""The condition `data.positive`: which rows of the log count."""

import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from twotower.core.errors import ConfigError
from twotower.data.hashing import Bools


def columns_of(condition: str | None) -> tuple[str, ...]:
    """Columns that the condition names; ConfigError if it is no SQL condition."""
    return tuple(sorted(set(_parse(condition).meta.root_names()))) if condition else ()


def check(condition: str, schema: pa.Schema) -> None:
    """Try the condition on columns of these types; ConfigError if it can't be evaluated."""
    import polars as pl  # noqa: PLC0415 - 40 MB a worker that only logs with a condition need

    frame: Any = pl.from_arrow(schema.empty_table())
    try:
        kind = frame.select(keep=_parse(condition)).schema["keep"]
    except pl.exceptions.PolarsError as error:
        raise ConfigError(f"data.positive: {condition!r}: {_one_line(error)}") from error
    if kind != pl.Boolean:
        raise ConfigError(f"data.positive: {condition!r} gives {kind}, not true or false")


def evaluate(condition: str, batch: pa.RecordBatch, columns: Sequence[str]) -> Bools:
    """Which rows of a batch satisfy the condition: bool ``(R,)``, null is false."""
    import polars as pl  # noqa: PLC0415 - as above

    frame: Any = pl.from_arrow(pa.Table.from_batches([batch.select(list(columns))]))
    keep = frame.select(keep=_parse(condition))["keep"]
    return keep.fill_null(False).to_numpy()


def _parse(condition: str) -> Any:
    import polars as pl  # noqa: PLC0415 - as above

    try:
        return pl.sql_expr(condition)
    except pl.exceptions.PolarsError as error:
        raise ConfigError(f"data.positive: {condition!r}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error))[:200]
