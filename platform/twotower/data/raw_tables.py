"""A user's own tables before any config names their columns: found, opened and read lazily."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl
import polars.selectors as cs
import pyarrow.fs as pafs

from twotower.core.errors import DataError
from twotower.data.shards import SUFFIXES, Format, Shard, filesystem, list_shards

SAMPLE_ROWS = 200_000
"""Rows that guesses look at where a whole pass isn't needed. Chosen, not tuned."""

INFER_ROWS = 10_000
"""Rows of a CSV from which it is guessed what is a date or a truth. Chosen, not tuned."""

_NUMBERS = (pl.Int64, pl.Int128, pl.Float64)
"""What a CSV column of numbers may be, narrow before wide."""

_MAGIC = b"PAR1"


@dataclass(frozen=True, slots=True)
class RawTable:
    """One table: a file, a folder or a glob of shards."""

    path: str
    format: Format
    frame: pl.LazyFrame
    schema: pl.Schema
    rows: int

    def distinct(self, column: str) -> pl.DataFrame:
        """The distinct values of a column as text, nulls left out, in a column named `id`."""
        ids = self.frame.select(exact(column).cast(pl.String).alias("id"))
        with reading(self.path):
            return ids.drop_nulls().unique().collect(engine="streaming")


def open_table(path: str) -> RawTable:
    """Open a table by its path.

    Raises:
        DataError: nothing is there, it is no Parquet, CSV or JSON lines, can't be read, or holds
            no rows.
    """
    shards = list_shards(path, None, frozenset())
    kinds: set[Format] = {_format(shard) for shard in shards}
    if len(kinds) > 1:
        raise DataError(f"{path}: holds files of several formats ({', '.join(sorted(kinds))})")
    kind = next(iter(kinds))
    with reading(path):
        frame = _scan([_name(shard) for shard in shards], kind)
        rows = frame.select(pl.len()).collect().item()
        schema = frame.collect_schema()
    if rows == 0:
        raise DataError(f"{path}: holds no rows")
    return RawTable(path, kind, frame, schema, rows)


def _scan(files: list[str], kind: Format) -> pl.LazyFrame:
    if kind == "parquet":
        return pl.scan_parquet(files, glob=False)
    if kind == "jsonl":
        return pl.scan_ndjson(files, infer_schema_length=None)
    scan = partial(pl.scan_csv, files, null_values=[""], glob=False)
    guess = partial(scan, infer_schema_length=INFER_ROWS, try_parse_dates=True)
    return guess(schema_overrides=_types(scan(infer_schema=False), guess().collect_schema()))


def _types(text: pl.LazyFrame, guessed: pl.Schema) -> dict[str, Any]:
    """Types of a CSV's columns of numbers and of text that looked like them, by all their rows."""
    checks = [
        # `007` is an id and no number 7: such columns stay as they are written, as in `prepare`.
        [exact(name).str.contains(r"^\s*0\d").any() for name in guessed],
        *([_all_are(exact(name), number) for name in guessed] for number in _NUMBERS),
    ]
    padded, *fit = pl.collect_all([text.select(check) for check in checks], engine="streaming")
    types: dict[str, Any] = {}
    for name, kind in guessed.items():
        fitting = [number for number, fits in zip(_NUMBERS, fit, strict=True) if fits[name][0]]
        if fitting:
            is_id = fitting[0].is_integer() and padded[name][0]
            types[name] = pl.String if is_id else fitting[0]
        elif kind.is_numeric():
            types[name] = pl.String
    return types


def _all_are(values: pl.Expr, number: Any) -> pl.Expr:
    """Whether a column holds numbers of a type, and at least one."""
    is_number = values.cast(number, strict=False).is_not_null()
    return (is_number == values.is_not_null()).all() & is_number.any()


def exact(column: str) -> pl.Expr:
    """The column of that very name: `pl.col` reads `*` and `^...$` as patterns."""
    return cs.by_name(column).as_expr()


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Errors of Polars and of the file system as a DataError that names the table."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{path}: can't be read: {reason}") from error


def _name(shard: Shard) -> str:
    """A shard as Polars opens it."""
    if isinstance(filesystem(shard.location), pafs.LocalFileSystem):
        return shard.path
    return f"{shard.location.partition('://')[0]}://{shard.path}"


def _format(shard: Shard) -> Format:
    """Format of a shard; Parquet by its first bytes, since any name may be taken for it."""
    if shard.format == "parquet":
        with reading(shard.path), filesystem(shard.location).open_input_file(shard.path) as stream:
            is_parquet = stream.read(len(_MAGIC)) == _MAGIC
        if not is_parquet:
            text = ", ".join(end for end, kind in SUFFIXES.items() if kind != "parquet")
            raise DataError(
                f"{shard.path}: not a Parquet file; the name of CSV or JSON lines ends with {text}"
            )
    return shard.format
