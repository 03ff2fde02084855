"""Prepare without Ray, and small raw logs to prepare.

`SerialTasks` is fit as a stand-in for the cluster: kernels get their units through pickle as there,
and results come back in another order than the units.
"""

import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from twotower.core.config import ExperimentConfig
from twotower.data import course
from twotower.data.locate import PrepareResult
from twotower.data.prepared import Prepared


class SerialTasks:
    """Runs the units one after the other in this process."""

    num_cpus = 1.0

    def __init__(self, seed: int = 0) -> None:
        self.stages: list[str] = []
        self._random = random.Random(seed)

    def run(
        self,
        stage: str,
        kernel: Callable[..., Any],
        units: Sequence[Any],
        base: Any = None,
        plan: Any = None,
    ) -> Iterator[Any]:
        self.stages.append(stage)
        blobs = [pickle.dumps(unit) for unit in units]
        self._random.shuffle(blobs)
        shared = pickle.dumps((base, plan))
        for blob in blobs:
            yield pickle.loads(pickle.dumps(kernel(pickle.loads(blob), *pickle.loads(shared))))


def prepare_serially(config: ExperimentConfig, seed: int = 0) -> PrepareResult:
    """`pipeline.prepare` without Ray."""
    return course.run(config, SerialTasks(seed))


def open_prepared(config: ExperimentConfig) -> Prepared:
    """Prepare serially and open what was made, digests compared."""
    return Prepared.open(prepare_serially(config).path, verify=True)


def make_log(
    folder: Path,
    *,
    rows: int = 900,
    shards: int = 3,
    seed: int = 0,
    queries_are_items: bool = False,
    bad: bool = False,
) -> list[Path]:
    """A random log with repeats, times, a device and a rating, and its catalogue.

    Files ``log/part-N.parquet`` and ``items.parquet``; with ``bad`` also null and unknown ids.
    """
    rng = random.Random(seed)
    items = [f"item-{n}" for n in range(60)]
    queries = items[:50] if queries_are_items else [f"query-number-{n}" for n in range(45)]
    table = [
        {
            "query_id": rng.choice(queries),
            "item_id": items[min(int(rng.paretovariate(0.7)) - 1, len(items) - 1)],
            "ts": rng.randrange(1000, 1400),
            "device": rng.choice(["phone", "tablet", "desk", None]),
            "rating": rng.randrange(1, 11),
        }
        for _ in range(rows)
    ]
    if bad:
        for n, row in enumerate(table[::40]):
            row[("query_id", "item_id", "ts")[n % 3]] = None
        table[7]["item_id"] = "stranger"
    (folder / "log").mkdir(parents=True, exist_ok=True)
    paths = []
    for n in range(shards):
        path = folder / "log" / f"part-{n}.parquet"
        part = table[rows * n // shards : rows * (n + 1) // shards]
        pq.write_table(pa.Table.from_pylist(part, LOG_SCHEMA), path, row_group_size=100)
        paths.append(path)
    rng.shuffle(items)
    catalogue = [
        {
            "item_id": item,
            "words": [rng.choice("abcdefgh") for _ in range(rng.randrange(4))] or None,
            "brand": rng.choice(["acme", "bolt", None]),
            "size": rng.choice([1.5, 2.0, 4.0, None]),
            "maker": rng.choice(["m1", "m2", "m3", "m4", "m5", "m6", "m7", None]),
        }
        for item in items
    ]
    pq.write_table(pa.Table.from_pylist(catalogue, ITEM_SCHEMA), folder / "items.parquet")
    return paths


LOG_SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("item_id", pa.string()),
        ("ts", pa.int64()),
        ("device", pa.string()),
        ("rating", pa.int32()),
    ]
)
ITEM_SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("words", pa.list_(pa.string())),
        ("brand", pa.string()),
        ("size", pa.float64()),
        ("maker", pa.string()),
    ]
)


def make_config(folder: Path, **data: Any) -> ExperimentConfig:
    """Config of `make_log`'s files; keyword arguments replace keys of the `data` section."""
    section: dict[str, Any] = {
        "interactions": {"path": str(folder / "log"), "time": "ts"},
        "items": {"path": str(folder / "items.parquet")},
        "features": {
            "item": {
                "item_id": {"kind": "categorical"},
                "words": {"kind": "multi", "min_count": 2, "max_values": 2},
                "brand": {"kind": "categorical"},
                "size": {"kind": "dense"},
            },
            "query": {"query_id": {"kind": "categorical", "min_count": 2}},
            "context": {"device": {"kind": "categorical"}},
        },
        "lanes": 4,
        "max_dropped_share": 0.2,
    }
    if data.get("queries") == "items":
        section["features"]["query"] = {
            "item_id": {"kind": "categorical", "share": "item_id"},
            "words": {"kind": "multi", "share": "words"},
            "maker": {"kind": "categorical"},
        }
    storage = {"prepared": str(folder / "prepared"), "runs": str(folder / "runs")}
    return ExperimentConfig.model_validate(
        {"name": "small", "data": section | data, "storage": storage, "train": {"batch_size": 64}}
    )
