"""Scratch files between the stages: rows cut into parts, each part read back on its own.

An Arrow IPC file whose record batches have one row; every column is a list, the values of a part.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from twotower.core.storage import Store
from twotower.core.types import Int64
from twotower.data.rows import Rows

Columns = Mapping[str, "pa.Array | NDArray[Any]"]
_CONTEXT = "c."


class SpillWriter:
    """Writes the parts of a scratch file, in order; use as a context manager."""

    def __init__(self, store: Store, name: str) -> None:
        """Write to a file of the scratch directory; one of that name is replaced."""
        path = store.full_path(name)
        store.filesystem.create_dir(path.rpartition("/")[0], recursive=True)
        self._stream = store.filesystem.open_output_stream(path)
        self._writer: pa.RecordBatchFileWriter | None = None

    def write(self, columns: Columns, counts: Mapping[str, Int64]) -> None:
        """Append parts: part p has the next ``counts[name][p]`` values of each column."""
        names = list(columns)
        lists = [_lists(columns[name], counts[name]) for name in names]
        batch = pa.RecordBatch.from_arrays(lists, names)
        if self._writer is None:
            self._writer = pa.ipc.new_file(self._stream, batch.schema)
        for part in range(batch.num_rows):
            self._writer.write_batch(batch.slice(part, 1))

    def __enter__(self) -> "SpillWriter":
        """Nothing to do: the file is open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
        self._stream.close()


@contextmanager
def open_spill(store: Store, name: str) -> Iterator[pa.RecordBatchFileReader]:
    """A scratch file whose parts are read by `read_part`; local ones are mapped."""
    path = store.full_path(name)
    with (
        pa.memory_map(path) if store.is_local else store.filesystem.open_input_file(path)
    ) as source:
        yield pa.ipc.open_file(source)


def read_part(reader: pa.RecordBatchFileReader, part: int) -> dict[str, pa.Array]:
    """Columns of one part."""
    batch = reader.get_batch(part)
    return {name: batch.column(i).flatten() for i, name in enumerate(batch.schema.names)}


def write_one(store: Store, name: str, columns: Columns) -> None:
    """Write a scratch file of one part."""
    with SpillWriter(store, name) as writer:
        writer.write(columns, {n: np.array([len(v)]) for n, v in columns.items()})


def read_one(store: Store, name: str) -> dict[str, pa.Array]:
    """Columns of a scratch file of one part."""
    with open_spill(store, name) as reader:
        return read_part(reader, 0)


def row_columns(rows: Rows) -> dict[str, NDArray[Any]]:
    """Columns of rows for a scratch file."""
    columns: dict[str, NDArray[Any]] = {
        "query": rows.query,
        "item": rows.item,
        "weight": rows.weight,
        "key": rows.key,
    }
    if rows.time is not None:
        columns["time"] = rows.time
    return columns | {_CONTEXT + name: codes for name, codes in rows.context.items()}


def to_rows(columns: Mapping[str, pa.Array], context: Sequence[str]) -> Rows:
    """Rows of a part; a missing weight is 1."""
    arrays = {n: v.to_numpy() for n, v in columns.items() if n != "value"}
    query = arrays["query"]
    weight = arrays.get("weight")
    return Rows(
        query,
        arrays["item"],
        np.ones(len(query), dtype=np.int32) if weight is None else weight,
        arrays["key"],
        arrays.get("time"),
        {name: arrays[_CONTEXT + name] for name in context},
    )


def _lists(values: Any, counts: Int64) -> pa.Array:
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    array = values if isinstance(values, pa.Array) else pa.array(values)
    return pa.LargeListArray.from_arrays(pa.array(offsets), array)
