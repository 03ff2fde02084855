"""Vectors of the items of any catalogue, embedded with Ray Data from an export.

    part-00000.parquet ...   the id column, and `vector`: a list of D float32 numbers
    manifest.json            rows, width, and every file's size and SHA-256; written last

A part is some row groups of one shard, in the order of the catalogue, so the files are the same
bytes for any cluster.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from twotower.core.config import Cluster
from twotower.core.errors import InputError
from twotower.core.storage import MANIFEST, Store, describe
from twotower.data.course import Tasks
from twotower.data.pipeline import RayTasks
from twotower.data.shards import Shard, filesystem, list_shards
from twotower.runtime.cluster import connect
from twotower.runtime.run_folder import location
from twotower.serving import files
from twotower.serving.reader import Export

_PART = re.compile(r"part-\d+\.parquet")
_PART_ROWS = 1 << 16
"""A part takes row groups until it has so many rows; the export is opened once a part."""

_BATCH_ROWS = 4096
"""Rows embedded at once; bounds memory."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some row groups of a shard."""

    number: int
    shard: Shard
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What all parts have in common."""

    output: str
    column: str
    """Of the item ids."""


def write_vectors(
    export: str | Path, catalogue: str, output: str | Path, *, verbose: bool = False
) -> dict[str, Any]:
    """Embed every row of a Parquet catalogue on a cluster; columns are named as in training.

    Args:
        export: the export; it is checked and read once, by this process.
        catalogue: file, folder or glob, local or a URI, that all workers can read.
        output: folder that all workers can write to; vectors that stand there are replaced.
        verbose: let Ray's own logs reach the console.

    Returns:
        The manifest.

    Raises:
        InputError: the export or the catalogue can't be used, or the output holds something else.
        RunError: a task failed; the folder holds no manifest then.
    """
    with connect(Cluster(), verbose=verbose):
        return embed_catalogue(export, catalogue, output, RayTasks(None))


def embed_catalogue(
    export: str | Path, catalogue: str, output: str | Path, tasks: Tasks
) -> dict[str, Any]:
    """`write_vectors` by any tasks."""
    contents = files.read_files(Path(export))
    opened = Export(contents)
    column = opened.document["item_id"]
    parts = _parts(list_shards(catalogue, "parquet", frozenset(), "CATALOGUE"), column)
    target = Store(output)
    _clear(target)
    plan = Plan(location(target), column)
    written = sorted(tasks.run("embed", embed_part, parts, contents, plan))
    manifest = {
        "rows": sum(rows for _, rows, _ in written),
        "width": int(opened.vectors.shape[1]),
        "files": {name: about for name, _, about in written},
    }
    target.write_json(MANIFEST, manifest)
    return manifest


def embed_part(
    part: Part, contents: dict[str, bytes], plan: Plan
) -> tuple[str, int, dict[str, Any]]:
    """One task: embed a part and write it; its file, rows, and what the manifest says of it."""
    export = Export(contents)
    width, stream = export.vectors.shape[1], pa.BufferOutputStream()
    rows, writer = 0, None
    with _open(part.shard) as source:
        for batch in source.iter_batches(_BATCH_ROWS, list(part.groups), use_threads=False):
            vectors = np.ascontiguousarray(export.embed_items(batch.to_pylist()))
            listed = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width)
            table = pa.table({plan.column: batch.column(plan.column), "vector": listed})
            writer = writer or pq.ParquetWriter(stream, table.schema, write_page_checksum=True)
            writer.write_table(table)
            rows += len(vectors)
    if writer:
        writer.close()
    name, data = f"part-{part.number:05}.parquet", stream.getvalue().to_pybytes()
    Store(plan.output).write_bytes(name, data)
    return name, rows, describe(data)


def _parts(shards: list[Shard], column: str) -> list[Part]:
    """Cut shards into parts; InputError where one has no ids."""
    parts: list[Part] = []
    for shard in shards:
        with _open(shard) as source:
            if column not in source.schema_arrow.names:
                known = ", ".join(source.schema_arrow.names)
                raise InputError(f"{shard.path}: no column {column!r} of item ids; it has {known}")
            groups: list[int] = []
            rows = 0
            for group in range(source.num_row_groups):
                rows += source.metadata.row_group(group).num_rows
                groups.append(group)
                if rows >= _PART_ROWS or group == source.num_row_groups - 1:
                    parts += [Part(len(parts), shard, tuple(groups))] if rows else []
                    groups, rows = [], 0
    if not parts:
        raise InputError("CATALOGUE: holds no rows")
    return parts


def _open(shard: Shard) -> pq.ParquetFile:
    try:
        source = filesystem(shard.location).open_input_file(shard.path)
        return pq.ParquetFile(source, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{shard.path}: not a readable Parquet file ({error})") from error


def _clear(target: Store) -> None:
    """Remove earlier vectors, the manifest first; InputError where something else stands."""
    names = target.list()
    if other := [name for name in names if name != MANIFEST and not _PART.fullmatch(name)]:
        raise InputError(f"{target.uri}: holds {other[0]}; choose an empty folder with -o")
    if names:
        target.delete()
