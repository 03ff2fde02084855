"""A user's own tables before any config names their columns: found, opened and read lazily."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import Literal

import polars as pl
import polars.selectors as cs

from twotower.core.errors import DataError

Format = Literal["parquet", "csv", "jsonl"]

SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}

SAMPLE_ROWS = 200_000
"""Rows that guesses look at where a whole pass isn't needed. Chosen, not tuned."""

INFER_ROWS = 10_000
"""Rows of a text file from which its types are guessed. Chosen, not tuned."""

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
    files = [path] if "://" in path else _files(path)
    kinds: set[Format] = {_format(file) for file in files}
    if len(kinds) > 1:
        raise DataError(f"{path}: holds files of several formats ({', '.join(sorted(kinds))})")
    kind = next(iter(kinds))
    with reading(path):
        frame = _scan(files, kind)
        rows = frame.select(pl.len()).collect().item()
        schema = frame.collect_schema()
    if rows == 0:
        raise DataError(f"{path}: holds no rows")
    return RawTable(path, kind, frame, schema, rows)


def _scan(files: list[str], kind: Format) -> pl.LazyFrame:
    if kind == "parquet":
        return pl.scan_parquet(files)
    if kind == "jsonl":
        return pl.scan_ndjson(files, infer_schema_length=INFER_ROWS)
    guessed = pl.scan_csv(files, infer_schema_length=INFER_ROWS, try_parse_dates=True)
    # `007` is an id and no number 7: such columns stay as they are written, as in `prepare`.
    text = pl.scan_csv(files, infer_schema=False).head(INFER_ROWS).collect()
    is_number = {name for name, dtype in guessed.collect_schema().items() if dtype.is_integer()}
    padded = [name for name in is_number if text[name].str.contains(r"^\s*0\d").any()]
    return pl.scan_csv(
        files,
        infer_schema_length=INFER_ROWS,
        try_parse_dates=True,
        schema_overrides=dict.fromkeys(padded, pl.String),
    )


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


def _files(path: str) -> list[str]:
    """Files of a local table; names that start with `_` or `.` are ignored, as in `prepare`."""
    if has_magic(path):
        found = [Path(name) for name in glob(path, recursive=True)]  # noqa: PTH207 - may be absolute
    elif Path(path).is_dir():
        found = [f for f in Path(path).rglob("*") if _format_of_name(f.name) is not None]
    elif Path(path).exists():
        return [path]
    else:
        raise DataError(f"{path}: no such file or folder")
    files = sorted(str(f) for f in found if f.is_file() and f.name[0] not in "._")
    if not files:
        raise DataError(f"{path}: no files in it that end with {', '.join(SUFFIXES)}")
    return files


def _format_of_name(name: str) -> Format | None:
    return next((kind for end, kind in SUFFIXES.items() if name.lower().endswith(end)), None)


def _format(file: str) -> Format:
    """Format of a file by its name, or by its first bytes where the name says nothing."""
    kind = _format_of_name(file)
    if "://" in file or kind in ("csv", "jsonl"):
        return kind or "parquet"
    with reading(file), Path(file).open("rb") as stream:
        is_parquet = stream.read(len(_MAGIC)) == _MAGIC
    if not is_parquet:
        raise DataError(
            f"{file}: not a Parquet file; give Parquet, or CSV or JSON lines by a name that ends "
            "with .csv or .jsonl"
        )
    return "parquet"
