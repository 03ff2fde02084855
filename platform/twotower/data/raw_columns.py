"""What a raw column holds, and which kind of feature it would make."""

import re
from dataclasses import dataclass
from typing import Any, Literal, cast

import polars as pl

from twotower.data.raw_tables import SAMPLE_ROWS, RawTable, exact, reading

Kind = Literal["categorical", "multi", "dense"]

_PLAIN_SQL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# Bounds of the guesses below. All chosen, not tuned: a guess is a line that the user can change.
NEAR_UNIQUE = 0.9
TEXT_WORDS = 4.0
TEXT_DISTINCT = 0.3
MAX_INT_VALUES = 1000
MAX_AMOUNT = 2**53
"""Whole numbers beyond it are hashes or other ids: float64 can't tell them apart."""
SPLIT_SHARE = 0.3
SEPARATORS = ("|", ";")

TIME_WORDS = frozenset(
    {"time", "timestamp", "ts", "date", "datetime", "unixtime", "created", "updated"}
)


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """One column of a raw table."""

    name: str
    type: str
    distinct: int
    """Distinct values (of a list column: of its elements); estimated for columns of the log."""
    missing: int
    """Rows that are null, or an empty list."""
    example: str
    kind: Kind | None
    """Kind of feature guessed; None where the column is better left out."""
    reason: str
    """Why, in a few words."""


def words_of(name: str) -> list[str]:
    """Lower-case words of a column's name: `userId` and `user_id` give user, id."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return [word.lower() for word in re.split(r"[^A-Za-z0-9]+", spaced) if word]


def sql_name(column: str) -> str:
    """A column as `data.positive` names it, in double quotes unless it is a plain word of SQL."""
    if _PLAIN_SQL.fullmatch(column):
        try:
            if set(pl.sql_expr(f"{column} < {column}").meta.root_names()) == {column}:
                return column
        except pl.exceptions.PolarsError:
            pass  # a word that SQL keeps for itself, such as `from`
    return '"' + column.replace('"', '""') + '"'


def is_id_type(dtype: Any) -> bool:
    """Whether a column of this type can hold ids: text or whole numbers."""
    return dtype.is_integer() or isinstance(dtype, pl.String | pl.Categorical | pl.Enum)


def profile_columns(table: RawTable, estimate: bool) -> tuple[ColumnProfile, ...]:
    """Profile every column of a table, one at a time, in memory that grows with distinct values.

    Args:
        table: the table.
        estimate: estimate distinct values in bounded memory; otherwise count them.
    """
    with reading(table.path):
        sample = table.frame.head(SAMPLE_ROWS).collect()
        return tuple(_profile(table, sample[name], estimate) for name in table.schema)


def _profile(table: RawTable, sample: pl.Series, estimate: bool) -> ColumnProfile:
    name, dtype = sample.name, sample.dtype
    missing, distinct = exact(name).is_null().sum(), pl.lit(0)
    values = exact(name)
    if isinstance(dtype, pl.List):
        missing = (values.list.len().fill_null(0) == 0).sum()
        values = values.explode()
    if not isinstance(dtype, pl.Struct | pl.Array | pl.Object | pl.Null):
        distinct = values.approx_n_unique() if estimate else values.drop_nulls().n_unique()
    facts = table.frame.select(missing.alias("missing"), distinct.alias("distinct"))
    found = facts.collect(engine="streaming")
    num_missing, num_distinct = int(found["missing"][0]), int(found["distinct"][0])
    filled = sample.drop_nulls()
    kind, reason = guess_kind(filled, num_distinct, table.rows - num_missing)
    example = filled[0] if len(filled) else ""
    shown = example.to_list() if isinstance(example, pl.Series) else example
    return ColumnProfile(name, str(dtype), num_distinct, num_missing, str(shown)[:60], kind, reason)


def guess_kind(filled: pl.Series, distinct: int, present: int) -> tuple[Kind | None, str]:
    """Guess the kind of feature that a column makes.

    Args:
        filled: a sample of the column without its nulls.
        distinct: distinct values of the whole column (of a list column: of its elements).
        present: rows of the whole column that hold a value.

    Returns:
        The kind, None where the column is better left out, and why.
    """
    dtype: Any = filled.dtype
    if not filled.name or "\0" in filled.name:
        return None, "its name can't stand in a config"
    if present == 0 or distinct == 1:
        return None, "one value only" if present else "empty"
    if not len(filled):
        return None, "empty in the rows looked at"
    if isinstance(dtype, pl.List) and is_id_type(dtype.inner):
        return "multi", f"lists of {distinct:,} values"
    if dtype.is_temporal() or set(words_of(filled.name)) & TIME_WORDS:
        return None, "a date or time"
    return _guess_scalar(filled, distinct, present)


def _guess_scalar(filled: pl.Series, distinct: int, present: int) -> tuple[Kind | None, str]:
    dtype = filled.dtype
    if isinstance(dtype, pl.Boolean):
        return "categorical", "yes or no"
    if dtype.is_float() or dtype.is_decimal():
        return "dense", "numbers"
    if dtype.is_integer():
        return _guess_integers(filled, distinct, present)
    if is_id_type(dtype):
        return _guess_text(filled.cast(pl.String), distinct, present)
    return None, f"type {dtype}, which no kind of feature reads"


def _guess_integers(filled: pl.Series, distinct: int, present: int) -> tuple[Kind | None, str]:
    low, high = cast("int", filled.min()), cast("int", filled.max())
    is_id = words_of(filled.name)[-1:] == ["id"] or max(high, -low) > MAX_AMOUNT
    if is_id and distinct > NEAR_UNIQUE * present:
        return None, "an id of nearly every row"
    if is_id or (distinct <= MAX_INT_VALUES and distinct <= NEAR_UNIQUE * present):
        return "categorical", f"{distinct:,} values"
    return "dense", f"numbers, {distinct:,} different"


def _guess_text(filled: pl.Series, distinct: int, present: int) -> tuple[Kind | None, str]:
    if _mean(filled.str.split(" ").list.len()) >= TEXT_WORDS and distinct > TEXT_DISTINCT * present:
        return None, "free text; a list column of its words would make a `multi` feature"
    if distinct > NEAR_UNIQUE * present:
        return None, f"nearly unique, {distinct:,} values in {present:,} rows"
    if filled.str.to_date("%Y-%m-%d", strict=False).is_not_null().all():
        return None, "dates as text"
    for mark in SEPARATORS:
        if _mean(filled.str.contains(mark, literal=True)) >= SPLIT_SHARE:
            return "categorical", f"{distinct:,} values; split at {mark!r} it would make a `multi`"
    return "categorical", f"{distinct:,} values"


def _mean(values: pl.Series) -> float:
    return cast("float", values.cast(pl.Float64).mean())
