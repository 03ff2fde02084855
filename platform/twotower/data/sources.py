"""What shards hold, and their rows in batches.

A shard's digest, not its path or place in a listing, is what prepared data depends on.
"""

import hashlib
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from twotower.core.errors import DataError
from twotower.data.shards import Shard, filesystem
from twotower.data.text_files import find_types, read_text

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
    """Rows of each row group; all rows of a text file."""

    error: str = ""
    strange: dict[str, str] = field(default_factory=dict)
    """By column of a text file: the value because of which it is text."""

    @property
    def rows(self) -> int:
        """Rows of the shard."""
        return sum(self.groups)


def inspect(shard: Shard) -> Inspected:
    """Digest, columns and rows of a shard; a file that can't be read says so in ``error``."""
    digest, schema, groups, error, strange = "", pa.schema([]), (), "", {}
    try:
        digest = _digest(shard)
        if shard.format == "parquet":
            with _open_parquet(shard, ()) as file:
                schema = file.schema_arrow
                groups = tuple(
                    file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)
                )
        elif shard.size:
            found = find_types(shard)
            schema, groups, strange = found.schema, (found.rows,), found.strange
    except DataError as reason:
        error = str(reason)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as reason:
        error = f"not a readable {shard.format} file ({' '.join(str(reason).split())[:200]})"
    return Inspected(shard, digest, schema.remove_metadata(), groups, error, strange)


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
    """One column of a table, its shards one after the other, of a type that holds them all.

    Raises:
        DataError: a file is damaged, or no type holds its values and the others'; it is named.
    """
    chunks = [
        (inspected.shard.path, batch.column(column))
        for inspected in shards
        for _, batch in read_batches(inspected, [column], 1 << 18)
    ]
    kinds = {chunk.type for _, chunk in chunks} or {pa.null()}
    if len(kinds) == 1:
        return pa.chunked_array([chunk for _, chunk in chunks], kinds.pop())
    wanted, arrays = pa.schema([(column, pa.null())]), []
    for path, chunk in chunks:
        own = pa.schema([(column, _plain(chunk.type))])
        with _joining(path, column):
            wanted = pa.unify_schemas([wanted, own], promote_options="permissive")
    for path, chunk in chunks:
        with _joining(path, column):
            arrays.append(chunk.cast(wanted.field(column).type))
    return pa.chunked_array(arrays)


@contextmanager
def _joining(path: str, column: str) -> Iterator[None]:
    try:
        yield
    except pa.ArrowException as error:
        reason = f"can't be joined with that of the other shards ({str(error)[:200]})"
        raise DataError(f"{path}: column {column!r} {reason}") from error


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
    elif inspected.rows:
        for batch in read_text(shard, inspected.schema, columns):
            for start in range(0, batch.num_rows, rows):
                yield batch.slice(start, rows)


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


def _digest(shard: Shard) -> str:
    digest = hashlib.sha256()
    with filesystem(shard.location).open_input_file(shard.path) as stream:
        while chunk := stream.read(_READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
