"""Last pass: the files of train rows and of pairs.

Shape letters:
    R rows of a bucket    L lanes
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from twotower.core.storage import Store
from twotower.core.types import Int64
from twotower.data.columns import Int32
from twotower.data.dedupe import read_pairs, read_queries
from twotower.data.divide import pack, split_file
from twotower.data.rows import lexical_order
from twotower.data.spill import open_spill, read_one, read_part
from twotower.data.splits import PARTS, TRAIN

_TABLE_ROWS = 1 << 17
"""Rows of a row group where lanes don't decide."""


@dataclass(frozen=True, slots=True)
class Written:
    """A file of the prepared dataset, as its manifest describes it."""

    name: str
    rows: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class WritePlan:
    """What all files have in common."""

    lanes: int
    context_ids: dict[str, Int32]
    """Vocabulary id by code of each context feature; the last one is for null."""
    spilled: tuple[tuple[str, int], ...]
    """Scratch files of train rows, and how many parts of the queries each has."""
    num_buckets: int
    bucket_first: Int64
    """int64: position of each bucket's first row."""
    first_query: Int64
    """int64: row in the query table of each part's first query."""
    reverses: Int64
    """Rising: reverses of test pairs that are looked for in train."""


@dataclass(frozen=True, slots=True)
class WrittenPairs:
    """Files of one part of the queries."""

    files: list[Written]
    reverses_found: int


def bucket_file(bucket: int) -> str:
    """Train rows of one bucket."""
    return f"train/bucket-{bucket:05}.parquet"


def write_bucket(bucket: int, plan: WritePlan, scratch: Store, target: Store) -> Written:
    """Put a bucket's rows in keyed order and write them, a row group a lane."""
    columns = _bucket_columns(bucket, plan, scratch)
    keyed = lexical_order(columns.pop("key"), columns["query"], columns["item"])
    place = plan.bucket_first[bucket] + np.arange(len(keyed))
    lane = (place % plan.lanes).astype(np.uint16)
    order = keyed[np.argsort(lane, kind="stable")]
    table = _table({name: values[order] for name, values in columns.items()}, plan)
    return write_table(target, bucket_file(bucket), table, np.bincount(lane, minlength=plan.lanes))


def write_pairs(part: int, plan: WritePlan, scratch: Store, target: Store) -> WrittenPairs:
    """Write the train, validation and test pairs of one part of the queries."""
    pairs = read_pairs(scratch, part, list(plan.context_ids))
    codes = read_one(scratch, split_file(part))["part"].to_numpy()
    files = []
    for code, name in enumerate(PARTS):
        own = pairs.take(codes == code)
        columns: dict[str, NDArray[Any]] = {
            "query": own.query + np.int32(plan.first_query[part]),
            "item": own.item,
            "weight": own.weight,
        }
        if own.time is not None:
            columns["time"] = own.time
        columns |= {f"c.{n}": codes for n, codes in own.context.items()}
        table = _table(columns, plan)
        files.append(write_table(target, f"pairs/{name}-{part:05}.parquet", table))
    found = 0
    if len(plan.reverses):
        train = pairs.take(codes == TRAIN)
        own_items = read_queries(scratch, part).items[train.query]
        found = _count_present(pack(own_items, train.item)[own_items >= 0], plan.reverses)
    return WrittenPairs(files, found)


def write_table(target: Store, name: str, table: pa.Table, groups: Int64 | None = None) -> Written:
    """Write a Parquet file; the same table gives the same bytes.

    Args:
        target: the dataset's directory.
        name: file inside it.
        table: the rows.
        groups: rows of each row group, empty ones too; None cuts them evenly.
    """
    stream = pa.BufferOutputStream()
    if groups is None:
        groups = np.full(max(1, -(-table.num_rows // _TABLE_ROWS)), _TABLE_ROWS, dtype=np.int64)
    split: Any = [f.name for f in table.schema if pa.types.is_primitive(f.type)]
    with pq.ParquetWriter(
        stream,
        table.schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=False,
        # Bytes of equal weight side by side: numbers in random order compress twice as well.
        use_byte_stream_split=split,
        write_page_checksum=True,
    ) as writer:
        for start, rows in zip(np.cumsum(groups) - groups, groups, strict=True):
            writer.write_table(table.slice(int(start), int(rows)))
    return write_file(target, name, stream.getvalue(), table.num_rows)


def write_file(target: Store, name: str, data: Any, rows: int = 0) -> Written:
    """Write a file of the dataset; what makes it durable is the commit of them all."""
    path = target.full_path(name)
    target.filesystem.create_dir(path.rpartition("/")[0], recursive=True)
    with target.filesystem.open_output_stream(path) as stream:
        stream.write(data)
    return Written(name, rows, len(data), hashlib.sha256(data).hexdigest())


def _bucket_columns(bucket: int, plan: WritePlan, scratch: Store) -> dict[str, NDArray[Any]]:
    """Columns of a bucket, its pieces in the order of the parts of the queries."""
    pieces: list[dict[str, NDArray[Any]]] = []
    for name, parts in plan.spilled:
        with open_spill(scratch, name) as reader:
            for part in range(parts):
                columns = read_part(reader, part * plan.num_buckets + bucket)
                pieces.append({n: v.to_numpy() for n, v in columns.items()})
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _table(columns: dict[str, NDArray[Any]], plan: WritePlan) -> pa.Table:
    """Columns as they are stored: context codes become vocabulary ids, the weight a float."""
    stored = {
        name: plan.context_ids[name[2:]][values] if name.startswith("c.") else values
        for name, values in columns.items()
    }
    stored["weight"] = stored["weight"].astype(np.float32)
    return pa.table(stored)


def _count_present(values: Int64, wanted: Int64) -> int:
    """How many values are among the wanted ones, which rise and are distinct."""
    place = np.minimum(np.searchsorted(wanted, values), len(wanted) - 1)
    return int((wanted[place] == values).sum())
