"""Vectors of the items of any catalogue, embedded with Ray Data from an export.

    part-00000.parquet ...   the id column, and `vector`: a list of D float32 numbers
    manifest.json            rows, width, and every file's size and SHA-256; written last

A part is some row groups of one shard, in the order of the catalogue, so the files are the same
bytes for any cluster.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from twotower.core.config import Cluster
from twotower.core.errors import DataError, InputError
from twotower.core.storage import MANIFEST, Store, describe
from twotower.data.course import Tasks
from twotower.data.pipeline import RayTasks
from twotower.data.schema import ROLES, Need, check_shards, refuse
from twotower.data.shards import Shard, filesystem, list_shards
from twotower.data.sources import Inspected, read_batches
from twotower.export.encode import encode_batch
from twotower.export.folder import MEND, file_sizes
from twotower.runtime.cluster import connect
from twotower.runtime.run_folder import location
from twotower.runtime.stopping import stopped_at_once
from twotower.serving.files import is_description
from twotower.serving.model import ItemEncoder
from twotower.serving.reader import Export
from twotower.serving.sides import Side

_PART = re.compile(r"part-\d+\.parquet")
_PART_ROWS = 1 << 16
"""A part takes row groups until it has so many rows."""

_BATCH_ROWS = 4096
"""Rows embedded at once; bounds memory."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some row groups of a shard."""

    number: int
    shard: Inspected
    groups: range


@dataclass(frozen=True, slots=True)
class Plan:
    """What all parts have in common, beside the item tower."""

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
        StoppedError: asked to stop by SIGTERM; neither does it then.
    """
    stoppable = stopped_at_once(f"{output}: stopped; the same command starts again")
    with stoppable, connect(Cluster(), verbose=verbose):
        return embed_catalogue(export, catalogue, output, RayTasks(None))


def embed_catalogue(
    export: str | Path, catalogue: str, output: str | Path, tasks: Tasks
) -> dict[str, Any]:
    """`write_vectors` by any tasks."""
    opened = Export.open(export)
    column, items = opened.document["item_id"], opened.model.items
    shards = list_shards(catalogue, "parquet", frozenset(), "CATALOGUE")
    parts = _parts(shards, column, items.side)
    target = Store(output)
    _refuse_overlap(target, shards)
    replaced = _replaced(target)
    plan = Plan(location(target), column)
    if target.exists(MANIFEST):
        target.delete(MANIFEST)
        target.sync()
    for name in replaced:
        target.delete(name)
    # Tasks get the item tower and what it reads: no vectors, no queries.
    written = sorted(tasks.run("embed", embed_part, parts, items, plan))
    manifest = {
        "rows": sum(rows for _, rows, _ in written),
        "width": int(opened.vectors.shape[1]),
        "files": {name: about for name, _, about in written},
    }
    target.write_json(MANIFEST, manifest)
    return manifest


def embed_part(part: Part, items: ItemEncoder, plan: Plan) -> tuple[str, int, dict[str, Any]]:
    """One task: embed a part and write it; its file, rows, and what the manifest says of it."""
    stream = pa.BufferOutputStream()
    rows, writer = 0, None
    wanted = {plan.column, *(spec.column for spec in items.side.features)}
    present = [name for name in part.shard.schema.names if name in wanted]
    with _naming(part.shard.shard):
        for _, batch in read_batches(part.shard, present, _BATCH_ROWS, part.groups):
            vectors = np.ascontiguousarray(items.embed(encode_batch(batch, items.side)))
            listed = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
            table = pa.table({plan.column: batch.column(plan.column), "vector": listed})
            writer = writer or pq.ParquetWriter(stream, table.schema, write_page_checksum=True)
            writer.write_table(table)
            rows += len(vectors)
    if writer:
        writer.close()
    name, data = f"part-{part.number:05}.parquet", stream.getvalue().to_pybytes()
    Store(plan.output).write_bytes(name, data)
    return name, rows, describe(data)


def _parts(shards: Sequence[Shard], column: str, side: Side) -> list[Part]:
    """Cut shards into parts; DataError where a column can't be what it was in training."""
    found = [_inspect(shard) for shard in shards]
    there = {name for one in found for name in one.schema.names}
    features = [
        Need(spec.column, ROLES[spec.kind], f"feature {spec.name!r}")
        for spec in side.features
        if spec.column in there
    ]
    refuse(check_shards(found, [Need(column, "id", "item ids"), *features]))
    parts: list[Part] = []
    for one in found:
        first, rows = 0, 0
        for group, size in enumerate(one.groups):
            rows += size
            if rows >= _PART_ROWS or group == len(one.groups) - 1:
                parts += [Part(len(parts), one, range(first, group + 1))] if rows else []
                first, rows = group + 1, 0
    if not parts:
        raise DataError("CATALOGUE: holds no rows")
    return parts


def _inspect(shard: Shard) -> Inspected:
    """Columns and row groups of a shard; its digest, which takes every byte, is left out."""
    with (
        _naming(shard),
        filesystem(shard.location).open_input_file(shard.path) as source,
        pq.ParquetFile(source) as file,
    ):
        groups = tuple(file.metadata.row_group(g).num_rows for g in range(file.num_row_groups))
        return Inspected(shard, "", file.schema_arrow.remove_metadata(), groups)


@contextmanager
def _naming(shard: Shard) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{shard.path}: not a readable Parquet file ({reason})") from error
    except InputError as error:
        if isinstance(error, DataError):
            raise
        raise InputError(f"{shard.path}: {error}") from error


def _refuse_overlap(target: Store, shards: Iterable[Shard]) -> None:
    """Refuse to write where the catalogue lies."""
    for shard in shards:
        if target.is_local and isinstance(filesystem(shard.location), pafs.LocalFileSystem):
            own, path = target.local_path().resolve(), Path(shard.path).resolve()
            inside = path.is_relative_to(own)
        else:
            own = target.full_path().rstrip("/")
            inside = shard.path == own or shard.path.startswith(f"{own}/")
            inside &= filesystem(shard.location).equals(target.filesystem)
        if inside:
            raise InputError(f"{target.uri}: holds the catalogue ({shard.path}); {MEND}")


def _replaced(target: Store) -> list[str]:
    """Files of earlier vectors; InputError where anything else stands, listed or not."""
    sizes = file_sizes(target)
    if not sizes:
        return []
    listed: dict[str, int] = {}
    with suppress(DataError, RecursionError):
        listed = _listed(target.read_json(MANIFEST))
    if not listed:
        raise InputError(f"{target.uri}: is not empty and holds no vectors of ours; {MEND}")
    for name in sizes.keys() - {MANIFEST}:
        if listed.get(name) != sizes[name]:
            why = "has changed" if name in listed else "is not ours"
            raise InputError(f"{target.uri}: {name} {why}; {MEND}")
    return sorted(sizes.keys() - {MANIFEST})


def _listed(manifest: Any) -> dict[str, int]:
    """Bytes of each file of vectors that a manifest lists; empty where it is none of ours."""
    if not isinstance(manifest, dict) or manifest.keys() != {"rows", "width", "files"}:
        return {}
    found = manifest["files"]
    if type(manifest["rows"]) is not int or type(manifest["width"]) is not int:
        return {}
    if not isinstance(found, dict):
        return {}
    sound = all(_PART.fullmatch(name) and is_description(one) for name, one in found.items())
    return {name: one["size"] for name, one in found.items()} if sound else {}
