"""Files of a committed dataset, checked and read; every error names the file and the mend."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from twotower.core.errors import DataError
from twotower.core.storage import Store
from twotower.core.types import Int64, Ragged

_CHUNK_BYTES = 1 << 22


def check_files(store: Store, files: Mapping[str, Mapping[str, Any]], verify: bool) -> None:
    """Compare the files of a manifest with what stands on disk.

    Args:
        store: the directory.
        files: ``size`` in bytes and ``sha256`` by name.
        verify: compare the digests too, which reads every byte.

    Raises:
        DataError: a file is missing, cut or changed; the first such file is named.
    """
    for name, expected in files.items():
        path = store.full_path(name)
        with _naming(store, name), store.filesystem.open_input_file(path) as stream:
            size = stream.size()
            if size != expected["size"]:
                raise pa.ArrowInvalid(f"{size} bytes, its manifest says {expected['size']}")
            if verify and _sha256(stream) != expected["sha256"]:
                raise pa.ArrowInvalid("its SHA-256 differs from the manifest's")


def read_table(store: Store, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Columns of one Parquet file (all by default), page checksums compared."""
    with _open(store, name) as file:
        missing = set(columns or ()) - set(file.schema_arrow.names)
        if missing:
            raise pa.ArrowInvalid(f"it has no column {min(missing)!r}")
        return file.read(list(columns) if columns is not None else None)


def read_row_groups(store: Store, name: str, groups: Int64, rows: Int64) -> pa.Table:
    """Some row groups of one Parquet file, in the given order, page checksums compared.

    Args:
        store: the directory.
        name: the file.
        groups: int64, row groups to read.
        rows: int64, rows that each row group of the file must have.
    """
    with _open(store, name) as file:
        found = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
        if found != rows.tolist():
            raise pa.ArrowInvalid("its row groups are not the lanes of the manifest")
        # An empty row group costs as much to open as a full one. One thread: cores are for steps.
        return file.read_row_groups([int(g) for g in groups if rows[g]], use_threads=False)


def column_names(store: Store, name: str) -> list[str]:
    """Columns of one Parquet file."""
    with _open(store, name) as file:
        return list(file.schema_arrow.names)


def to_ragged(column: pa.ChunkedArray) -> Ragged:
    """A column of ids: one a row, or a list (null is empty); int32 values that can be written."""
    if not pa.types.is_list(column.type) and not pa.types.is_large_list(column.type):
        values = column.to_numpy().astype(np.int32)
        return Ragged(np.arange(len(values) + 1, dtype=np.int64), values)
    lengths = pc.call_function("list_value_length", [column]).fill_null(0).to_numpy()
    values = pc.call_function("list_flatten", [column]).to_numpy()
    return Ragged.from_lengths(lengths, values.astype(np.int32))


@contextmanager
def _open(store: Store, name: str) -> Iterator[pq.ParquetFile]:
    with (
        _naming(store, name),
        store.filesystem.open_input_file(store.full_path(name)) as source,
        pq.ParquetFile(source, page_checksum_verification=True) as file,
    ):
        yield file


@contextmanager
def _naming(store: Store, name: str) -> Iterator[None]:
    """Errors of the file system and of Parquet as a DataError that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(
            f"{store.uri}/{name}: missing; delete the folder and run `twotower prepare` again"
        ) from error
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{store.uri}/{name}: damaged ({reason}); delete the folder and run "
            "`twotower prepare` again"
        ) from error


def _sha256(stream: Any) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()
