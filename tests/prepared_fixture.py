"""A slow, obvious writer of prepared datasets: the layout of the reader's contract, row by row.

Fit as a stand-in for `prepare` in tests of the reading side: it writes the same files with the same
columns and row groups, from random pairs, with plain Python loops and no code of the pipeline.
"""

import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

FEATURES: dict[str, Any] = {
    "item": {
        "item_id": {"kind": "categorical"},
        "words": {"kind": "multi"},
        "size": {"kind": "dense"},
    },
    "query": {
        "item_id": {"kind": "categorical", "share": "item_id"},
        "words": {"kind": "multi", "share": "words"},
        "home": {"kind": "categorical"},
        "past": {"kind": "history", "share": "item_id", "max_values": 5},
    },
    "context": {"device": {"kind": "categorical"}},
}


@dataclass(frozen=True)
class Shape:
    """Sizes of a dataset to write."""

    num_train: int = 200
    lanes: int = 4
    bucket_rows: int = 60
    """Rows of every bucket but the last."""
    num_items: int = 40
    num_queries: int = 30
    seed: int = 0
    time: bool = True
    history: bool = True


@dataclass(frozen=True)
class Row:
    """One train row as written."""

    query: int
    item: int
    time: int
    weight: float
    device: int
    history_from: int


def write_prepared(folder: Path, shape: Shape | None = None) -> list[Row]:
    """Write a dataset and return its train rows in keyed order (position p is ``rows[p]``)."""
    shape = shape or Shape()
    rng = random.Random(shape.seed)
    files: dict[str, dict[str, Any]] = {}
    names = [f"i{n:04}" for n in range(shape.num_items)]
    _write(folder, files, "items.parquet", _items(rng, names))
    _write(folder, files, "queries.parquet", _queries(rng, shape))

    pairs = [(q, i) for q in range(shape.num_queries) for i in range(shape.num_items)]
    rng.shuffle(pairs)
    chosen = [(q, i, rng.randrange(50)) for q, i in pairs[: shape.num_train]]
    rest = [(q, i, rng.randrange(50)) for q, i in pairs[shape.num_train : shape.num_train + 20]]
    lists = {
        q: sorted(((i, t) for p, i, t in chosen if p == q), key=lambda it: (-it[1], it[0]))
        for q in range(shape.num_queries)
    }
    rows = [_row(rng, shape, q, i, t, lists[q]) for q, i, t in chosen]
    buckets = _write_buckets(folder, files, shape, rows)
    by_pair = {(row.query, row.item): row for row in rows}
    ordered = [by_pair[q, i] for q in lists for i, _ in lists[q]]
    half = len(ordered) // 2
    _write_pairs(folder, files, shape, "train-00000", ordered[:half])
    _write_pairs(folder, files, shape, "train-00001", ordered[half:])
    for part, some in (("validation", rest[:10]), ("test", rest[10:])):
        held = [_row(rng, shape, q, i, t, []) for q, i, t in sorted(some)]
        _write_pairs(folder, files, shape, f"{part}-00000", held)

    mi = {
        "features": ["item_id", "words", "size"],
        "raw": [[2, 1, 0], [1, 2, 0], [0, 0, 1]],
        "normalised": [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]],
        "entropy": [2, 2, 1],
    }
    _write(folder, files, "mi.json", mi)
    _write(folder, files, "profile.json", {"rows": shape.num_train})
    features = json.loads(json.dumps(FEATURES))
    if not shape.history:
        del features["query"]["past"]
    manifest = {
        "schema_version": 1,
        "fingerprint": f"{shape.seed:064}",
        "data": {"seed": shape.seed, "features": features, "lanes": shape.lanes},
        "lanes": shape.lanes,
        "buckets": buckets,
        "tables": {
            "item.item_id": shape.num_items + 2,
            "item.words": 12,
            "query.home": 5,
            "context.device": 4,
        },
        "files": files,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return rows


def _items(rng: random.Random, names: list[str]) -> pa.Table:
    count = len(names)
    bags = [[rng.randrange(2, 12) for _ in range(rng.randrange(4))] for _ in names]
    return pa.table(
        {
            "item_id": names,
            "count": pa.array(range(count), pa.int64()),
            "full_count": pa.array(range(10, 10 + count), pa.int64()),
            "group": pa.array([None if n % 5 == 0 else f"g{n % 3}" for n in range(count)]),
            "f.item_id": pa.array(range(2, 2 + count), pa.int32()),
            "f.words": pa.array(bags, pa.list_(pa.int32())),
            "f.size": pa.array([rng.random() for _ in names], pa.float32()),
        }
    )


def _queries(rng: random.Random, shape: Shape) -> pa.Table:
    rows = range(shape.num_queries)
    return pa.table(
        {
            "query_id": [f"q{n:04}" for n in rows],
            "item": pa.array([n if n % 2 else -1 for n in rows], pa.int32()),
            "f.item_id": pa.array([n % shape.num_items + 2 for n in rows], pa.int32()),
            "f.words": pa.array([[2] * (n % 3) for n in rows], pa.list_(pa.int32())),
            "f.home": pa.array([rng.randrange(5) for _ in rows], pa.int32()),
        }
    )


def _row(
    rng: random.Random, shape: Shape, query: int, item: int, time: int, known: list[tuple[int, int]]
) -> Row:
    newer = sum(1 for _, other in known if other >= time) if shape.time else 0
    return Row(query, item, time, float(rng.randrange(1, 4)), rng.randrange(4), newer)


def _write_buckets(
    folder: Path, files: dict[str, dict[str, Any]], shape: Shape, rows: list[Row]
) -> list[dict[str, Any]]:
    buckets: list[dict[str, Any]] = []
    for first in range(0, len(rows), shape.bucket_rows):
        name = f"train/bucket-{len(buckets):05}.parquet"
        last = min(first + shape.bucket_rows, len(rows))
        lanes = [
            _rows_table([rows[p] for p in range(first, last) if p % shape.lanes == lane], shape)
            for lane in range(shape.lanes)
        ]
        _write(folder, files, name, lanes)
        buckets.append({"file": name, "rows": last - first, "first": first})
    return buckets


def _rows_table(rows: list[Row], shape: Shape) -> pa.Table:
    columns = {
        "query": pa.array([row.query for row in rows], pa.int32()),
        "item": pa.array([row.item for row in rows], pa.int32()),
        "weight": pa.array([row.weight for row in rows], pa.float32()),
        "c.device": pa.array([row.device for row in rows], pa.int32()),
        "history_from": pa.array([row.history_from for row in rows], pa.int32()),
    }
    if not shape.history:
        del columns["history_from"]
    return pa.table(columns)


def _write_pairs(
    folder: Path, files: dict[str, dict[str, Any]], shape: Shape, name: str, rows: list[Row]
) -> None:
    table = _rows_table(rows, shape).select(["query", "item", "weight", "c.device"])
    if shape.time:
        table = table.append_column("time", pa.array([row.time for row in rows], pa.int64()))
    _write(folder, files, f"pairs/{name}.parquet", table)


def _write(folder: Path, files: dict[str, dict[str, Any]], name: str, content: Any) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = 0
    if isinstance(content, dict):
        path.write_text(json.dumps(content))
    else:
        groups = content if isinstance(content, list) else [content]
        with pq.ParquetWriter(path, groups[0].schema, write_page_checksum=True) as writer:
            for group in groups:
                writer.write_table(group)
                rows += group.num_rows
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    files[name] = {"rows": rows, "size": len(data), "sha256": digest}
