"""The condition `data.positive`: which rows of the log count."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from twotower.core.errors import ConfigError
from twotower.data.hashing import Bools

_ACROSS_ROWS = frozenset({"Agg", "Correlation", "Explode", "Len", "Over", "Quantile", "Window"})
"""Nodes of a Polars expression that look beyond a row; SQL makes no other without one of them."""


def columns_of(condition: str | None) -> tuple[str, ...]:
    """Columns that the condition names; ConfigError if it is no SQL condition."""
    return tuple(sorted(set(_parse(condition).meta.root_names()))) if condition else ()


def check(condition: str, schema: pa.Schema) -> None:
    """Try the condition on columns of these types.

    Raises:
        ConfigError: it can't be evaluated, or looks beyond a row: which rows count would then
            depend on how the log is cut into shards and slices.
    """
    expression = _parse(condition)
    tree = json.loads(expression.meta.serialize(format="json"))
    if not expression.meta.root_names() or not _ACROSS_ROWS.isdisjoint(_nodes(tree)):
        raise ConfigError(
            f"data.positive: {condition!r} must be about one row at a time: name a column, and "
            "take no aggregate or window function"
        )
    kind = _evaluate(condition, schema.empty_table()).dtype
    if kind != _polars().Boolean:
        raise ConfigError(f"data.positive: {condition!r} gives {kind}, not true or false")


def evaluate(condition: str, batch: pa.RecordBatch, columns: Sequence[str]) -> Bools:
    """Which rows of a batch satisfy the condition: bool ``(R,)``, null is false.

    Raises:
        ConfigError: a value of these columns can't be evaluated, such as a text cast to a number.
    """
    table = pa.Table.from_batches([batch.select(list(columns))])
    return _evaluate(condition, table).fill_null(False).to_numpy()


def _evaluate(condition: str, table: pa.Table) -> Any:
    """A Polars series of the condition's values."""
    # Ids come as dictionaries, on which Polars has no functions of text.
    plain = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in table.schema
    ]
    polars = _polars()
    frame: Any = polars.from_arrow(table.cast(pa.schema(plain)))
    try:
        return frame.with_columns(keep=_parse(condition))["keep"]
    except polars.exceptions.PolarsError as error:
        raise _refusal(condition, error) from error


def _nodes(tree: Any) -> Iterator[str]:
    """Names of the nodes of an expression that Polars wrote as JSON."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, list):
        for below in tree:
            yield from _nodes(below)
    elif isinstance(tree, dict):
        for name, below in tree.items():
            yield name
            if name not in ("Column", "Literal"):  # what a user wrote is no node
                yield from _nodes(below)


def _parse(condition: str) -> Any:
    polars = _polars()
    try:
        return polars.sql_expr(condition)
    except polars.exceptions.PolarsError as error:
        raise _refusal(condition, error) from error


def _refusal(condition: str, error: Exception) -> ConfigError:
    return ConfigError(f"data.positive: {condition!r}: " + re.sub(r"\s+", " ", str(error))[:200])


def _polars() -> Any:
    import polars as pl  # noqa: PLC0415 - 40 MB a worker that only logs with a condition need

    return pl
