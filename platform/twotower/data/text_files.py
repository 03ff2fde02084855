"""CSV and JSON lines: their columns' types, found over the whole file, and their rows.

CSV is read as text, JSON as it is written; then text becomes the type that was found, by the same
cast that found it: what fits all values of a file reads all of them.
"""

import json
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.json as pajson

from twotower.core.errors import DataError
from twotower.data.shards import Shard, open_stream

_BLOCK_BYTES = 1 << 20
"""Bytes of JSON lines parsed at once, about. Chosen, not tuned; no result depends on it."""

_LINE_BYTES = 1 << 24
"""Longest line of JSON: a file without line breaks doesn't fill the memory. Chosen, not tuned."""

_CSV = pacsv.ParseOptions(newlines_in_values=True)
_SHOWN = 100

_TIMES: list[pa.DataType] = [pa.timestamp(u, zone) for zone in (None, "UTC") for u in ("s", "ns")]
_NUMBERS: list[pa.DataType] = [pa.float64(), pa.bool_()]
_ANY: list[pa.DataType] = [pa.int64(), pa.bool_(), pa.date32(), *_TIMES, pa.float64()]
"""What text may be, narrow before wide: 3 may be 3.0, a date an instant."""

_SCALARS: list[pa.DataType] = [pa.string(), pa.int64(), pa.float64(), pa.bool_()]
_LISTS: list[pa.DataType] = [pa.list_(kind) for kind in _SCALARS]
_WIDER: dict[pa.DataType, list[pa.DataType]] = {
    pa.null(): [*_SCALARS, pa.list_(pa.null()), *_LISTS],
    pa.int64(): [pa.float64()],
    pa.list_(pa.null()): _LISTS,
    pa.list_(pa.int64()): [pa.list_(pa.float64())],
}
"""What a JSON column may turn out to be, by what it was so far."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a file holds."""

    schema: pa.Schema
    """Its columns; one that isn't read, or has no value, is null."""

    rows: int
    strange: dict[str, str]
    """By column that is text: the first value that is nothing else its use asks for."""


def find_types(shard: Shard) -> Found:
    """Read a whole file for the types of its columns.

    Raises:
        DataError: a JSON column holds objects or values of several kinds; a line is shown. Or a
            line has no end.
        pa.ArrowException, OSError, UnicodeDecodeError: the file is damaged.
    """
    names = _names(shard)
    if shard.format == "csv":
        columns = [name for name in dict.fromkeys(names) if name in shard.columns]
        batches = _read_csv(shard, columns or names[:1])
    else:
        columns = sorted(shard.columns)
        batches = _widen_json(shard, columns)
    found = {name: _Column(_options(shard, name)) for name in columns}
    rows = 0
    for batch in batches:
        rows += batch.num_rows
        for name, column in found.items():
            column.see(batch.column(name))
    late = [name for name, column in found.items() if column.written and name not in names]
    types = {name: column.kind(name in shard.numbers) for name, column in found.items()}
    fields = [pa.field(name, types.get(name, pa.null())) for name in [*names, *late]]
    strange = {name: column.strange for name, column in found.items() if column.strange}
    return Found(pa.schema(fields), rows, strange)


def read_text(shard: Shard, schema: pa.Schema, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Columns of a file, of the types that `find_types` found."""
    types = {name: schema.field(name).type for name in columns}
    if shard.format == "csv":
        batches = _read_csv(shard, columns)
    else:
        written = {name: pa.string() if kind in _TIMES else kind for name, kind in types.items()}
        batches = (batch for block in _blocks(shard) for batch in _parse(block, written))
    for batch in batches:
        arrays = [_cast(batch.column(name), kind) for name, kind in types.items()]
        yield pa.RecordBatch.from_arrays(arrays, names=list(types))


@dataclass(slots=True)
class _Column:
    """What the values of a column have been so far."""

    options: list[pa.DataType]
    """Types that all its text can be cast to."""

    written: pa.DataType | None = None
    """Type before the cast; None until there is a value."""

    strange: str = ""

    def see(self, values: pa.Array) -> None:
        """Take more values in."""
        if values.null_count == len(values):
            return
        self.written = values.type
        if values.type != pa.string() or self.strange:
            return
        fit = [kind for kind in self.options if _fits(values, kind)]
        if not fit:
            filled = values.drop_null()
            first = _first(len(filled), lambda n: any(_fits(filled[:n], k) for k in self.options))
            self.strange = filled[first].as_py()[:_SHOWN]
        self.options = fit

    def kind(self, is_number: bool) -> pa.DataType:
        """The type found."""
        if self.written == pa.string() and self.options:
            return self.options[0]
        if self.written == pa.int64() and is_number:
            return pa.float64()
        return self.written or pa.null()


def _first(number: int, fits: Callable[[int], bool]) -> int:
    """Place of the first of some things that doesn't fit with those before it."""
    return bisect_left(range(number), True, key=lambda n: not fits(n + 1))


def _options(shard: Shard, column: str) -> list[pa.DataType]:
    """What the text of a column may be, by its use."""
    if shard.format == "csv" and column in shard.numbers - shard.texts:
        return _NUMBERS
    if column in shard.others - shard.texts:
        return _ANY if shard.format == "csv" else _TIMES
    return []


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if values.type == kind:
        return values
    if pa.types.is_null(kind):
        return pa.nulls(len(values))
    return pc.call_function("utf8_trim", [values], pc.TrimOptions(" \t")).cast(kind)


def _fits(values: pa.Array, kind: pa.DataType) -> bool:
    try:
        _cast(values, kind)
    except pa.ArrowInvalid:
        return False
    return True


def _names(shard: Shard) -> list[str]:
    """Columns of a CSV; keys of the first lines of JSON."""
    if shard.format == "csv":
        with open_stream(shard) as stream, pacsv.open_csv(stream, parse_options=_CSV) as reader:
            return reader.schema.names
    names: dict[str, None] = {}
    with suppress(ValueError, RecursionError):  # objects over several lines: late keys are found
        for line in next(_blocks(shard), b"").splitlines():
            names |= dict.fromkeys(json.loads(line) if line.strip() else ())
    return list(names)


def _read_csv(shard: Shard, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Columns of a CSV as text: `007` is no 7, and `NA` is no null, as an empty cell is."""
    options = pacsv.ConvertOptions(
        include_columns=columns,
        column_types=dict.fromkeys(columns, pa.string()),
        strings_can_be_null=True,
        null_values=[""],
    )
    with (
        open_stream(shard) as stream,
        pacsv.open_csv(stream, parse_options=_CSV, convert_options=options) as reader,
    ):
        yield from reader


def _blocks(shard: Shard) -> Iterator[bytes]:
    """Whole lines of a file."""
    rest = b""
    with open_stream(shard) as stream:
        while chunk := stream.read(_BLOCK_BYTES):
            lines, _, rest = (rest + chunk).rpartition(b"\n")
            if len(rest) > _LINE_BYTES:
                raise DataError(f"a line is longer than {_LINE_BYTES:,} bytes; write one an object")
            if lines.strip():
                yield lines
    if rest.strip():
        yield rest


def _widen_json(shard: Shard, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Columns of JSON lines as they are written, wider as their values ask for it."""
    types: dict[str, pa.DataType] = dict.fromkeys(columns, pa.null())
    for block in _blocks(shard):
        try:
            batches = _parse(block, types)
        except pa.ArrowInvalid:
            block.decode()  # what isn't text, or no JSON whatever the types, is said so
            _parse(block, {})
            types = {name: _widen(block, name, kind) for name, kind in types.items()}
            batches = _parse(block, types)
        yield from batches


def _parse(block: bytes, types: Mapping[str, pa.DataType]) -> list[pa.RecordBatch]:
    table = pajson.read_json(
        pa.BufferReader(block),
        pajson.ReadOptions(use_threads=False, block_size=len(block)),
        pajson.ParseOptions(pa.schema(types.items()), unexpected_field_behavior="ignore"),
    )
    table.validate(full=True)  # pyarrow takes bytes for text, and miscounts lists of nulls
    return table.to_batches()


def _widen(block: bytes, column: str, known: pa.DataType) -> pa.DataType:
    """The narrowest type, from the known one on, that a column of a block can be read as."""
    kinds = [known, *_WIDER.get(known, [])]
    for kind in kinds:
        if _parses(block, column, kind):
            return kind
    lines = block.splitlines(keepends=True)
    first = max(
        _first(len(lines), lambda n, kind=kind: _parses(b"".join(lines[:n]), column, kind))
        for kind in kinds
    )
    line = lines[first].decode(errors="replace").strip()[:_SHOWN]
    raise DataError(f"column {column!r} holds objects or values of several kinds, first in {line}")


def _parses(block: bytes, column: str, kind: pa.DataType) -> bool:
    try:
        _parse(block, {column: kind})
    except pa.ArrowInvalid:
        return False
    return True
