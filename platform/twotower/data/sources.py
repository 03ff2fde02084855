"""What shards hold, and their rows in batches.

A shard's digest, not its path or place in a listing, is what prepared data depends on.
"""

import hashlib
from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from twotower.core.errors import DataError
from twotower.data.shards import Shard, filesystem

_READ_BYTES = 1 << 22
_PAGE_BYTES = 1 << 20
"""Bytes of a column read ahead: a row group of any size is streamed."""


@dataclass(frozen=True, slots=True)
class Inspected:
    """What a shard holds, or why it can't be read."""

    shard: Shard
    digest: str
    """SHA-256 of the bytes, hex."""

    schema: pa.Schema
    groups: tuple[int, ...]
    """Rows of each row group; lines of a text file."""

    error: str = ""

    @property
    def rows(self) -> int:
        """Rows of the shard."""
        return sum(self.groups)


def inspect(shard: Shard) -> Inspected:
    """Digest, columns and rows of a shard; a file that can't be read says so in ``error``."""
    digest, schema, groups, error = "", pa.schema([]), (), ""
    try:
        digest = _digest(shard)
        if shard.format == "parquet":
            with _open_parquet(shard, ()) as file:
                schema = file.schema_arrow
                groups = tuple(
                    file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)
                )
        elif shard.size:
            schema, groups = _text_schema(shard), (_count_lines(shard),)
    except DataError as reason:
        error = str(reason)
    except (pa.ArrowException, OSError) as reason:
        error = f"not a readable {shard.format} file ({' '.join(str(reason).split())[:200]})"
    return Inspected(shard, digest, schema.remove_metadata(), groups, error)


def read_batches(
    inspected: Inspected, columns: Sequence[str], rows: int, groups: range | None = None
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Rows of a shard in batches, text as dictionaries where the format allows it.

    Args:
        inspected: the shard.
        columns: columns read.
        rows: most rows of a batch.
        groups: row groups read; None = all.

    Yields:
        Number of the batch's first row in the shard, and the batch.

    Raises:
        DataError: the file is damaged; it is named.
    """
    shard = inspected.shard
    groups = range(len(inspected.groups)) if groups is None else groups
    first = sum(inspected.groups[: groups.start])
    try:
        for batch in _batches(inspected, columns, rows, groups):
            first += batch.num_rows
            yield first - batch.num_rows, batch
            del batch  # the reader of the batches decides how many are kept
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{shard.path}: damaged ({' '.join(str(error).split())[:200]})") from error


def read_column(shards: Sequence[Inspected], column: str) -> pa.ChunkedArray:
    """One column of a table, its shards one after the other."""
    chunks = [
        batch.column(column)
        for inspected in shards
        for _, batch in read_batches(inspected, [column], 1 << 18)
    ]
    if not chunks:
        return pa.chunked_array([], shards[0].schema.field(column).type)
    wanted = chunks[0].type if all(c.type == chunks[0].type for c in chunks) else None
    return pa.chunked_array(chunks if wanted else [c.cast(_plain(c.type)) for c in chunks])


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _batches(
    inspected: Inspected, columns: Sequence[str], rows: int, groups: range
) -> Iterator[pa.RecordBatch]:
    shard = inspected.shard
    if shard.format == "parquet":
        schema = inspected.schema
        texts = [n for n in shard.texts & set(columns) if pa.types.is_string(schema.field(n).type)]
        with _open_parquet(shard, texts) as file:
            yield from file.iter_batches(rows, list(groups), list(columns), use_threads=False)
    elif shard.size:
        with _open_stream(shard) as stream, _open_text(shard, stream) as reader:
            for batch in reader:
                for start in range(0, batch.num_rows, rows):
                    yield batch.slice(start, rows).select(list(columns))


def _open_parquet(shard: Shard, texts: Sequence[str]) -> pq.ParquetFile:
    system = filesystem(shard.location)
    source = system.open_input_file(shard.path)
    metadata = pq.read_metadata(source)
    described = (metadata.metadata or {}).get(b"ARROW:schema")
    if described and b"ARROW:extension:name" in b64decode(described):
        raise DataError("a column has an Arrow extension type; store it as a plain type")
    return pq.ParquetFile(
        source,
        metadata=metadata,
        read_dictionary=[name for name in texts if _reads_as_dictionary(metadata, name)],
        buffer_size=_PAGE_BYTES,
        pre_buffer=False,
        page_checksum_verification=True,
        arrow_extensions_enabled=False,
    )


def _reads_as_dictionary(metadata: pq.FileMetaData, column: str) -> bool:
    """Whether all chunks of a column have an encoding that pyarrow decodes to dictionaries."""
    groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
    chunks = [group.column(c) for group in groups for c in range(group.num_columns)]
    return not any(
        chunk.path_in_schema == column and any(e.startswith("DELTA") for e in chunk.encodings)
        for chunk in chunks
    )


def _open_text(shard: Shard, stream: Any) -> Any:
    """A streaming reader of a text file. Ids of a CSV stay as written (`007` is no 7)."""
    if shard.format == "csv":
        types = dict.fromkeys(shard.texts, pa.string())
        options = pacsv.ConvertOptions(column_types=types, strings_can_be_null=True)
        return pacsv.open_csv(stream, convert_options=options)
    return pajson.open_json(stream)


def _text_schema(shard: Shard) -> pa.Schema:
    with _open_stream(shard) as stream, _open_text(shard, stream) as reader:
        return reader.schema


def _count_lines(shard: Shard) -> int:
    lines, last = 0, b"\n"
    with _open_stream(shard) as stream:
        while chunk := stream.read(_READ_BYTES):
            lines += chunk.count(b"\n")
            last = chunk[-1:]
    return lines + (last != b"\n") - (shard.format == "csv")


def _open_stream(shard: Shard) -> Any:
    return filesystem(shard.location).open_input_stream(shard.path, compression="detect")


def _digest(shard: Shard) -> str:
    digest = hashlib.sha256()
    with filesystem(shard.location).open_input_file(shard.path) as stream:
        while chunk := stream.read(_READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
