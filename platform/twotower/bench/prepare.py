"""Throughput and memory of `prepare`, one process a cell.

The log is workload W2's shape (query, item, country, time; items with category, developer, price),
from a folder made by its generator or from our own synthetic generator.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twotower.bench.measure import measured
from twotower.core.config import Cluster, ExperimentConfig
from twotower.core.loading import build_config
from twotower.core.records import environment
from twotower.core.storage import Store
from twotower.data.pipeline import prepare
from twotower.datasets.synthetic import write_synthetic
from twotower.runtime.cluster import connect

QUERIES, ITEMS, SHARDS = 100_000, 200_000, 8
CELLS = ((2_000_000, 2), (20_000_000, 2), (20_000_000, 1))
"""(rows, CPUs that the whole process tree may use)."""


def config_of(
    log: str, items: str, prepared: str, columns: tuple[str, str, str]
) -> ExperimentConfig:
    """The experiment that prepares one log; ``columns`` names query, item and time."""
    query, item, moment = columns
    features = {
        "item": {
            "id": {"kind": "categorical", "column": item, "min_count": 1},
            "category": {"kind": "categorical", "min_count": 2},
            "developer": {"kind": "categorical", "min_count": 2},
            "price": {"kind": "dense"},
        },
        "query": {"query": {"kind": "categorical", "column": query, "min_count": 2}},
        "context": {"country": {"kind": "categorical", "min_count": 2}},
    }
    if query == "query_id":  # our generator says brand where W2 says developer
        features["item"]["developer"]["column"] = "brand"
    return build_config(
        {
            "name": "bench",
            "data": {
                "interactions": {"path": log, "query": query, "item": item, "time": moment},
                "items": {"path": items, "id": item},
                "features": features,
                "split": {"kind": "time"},
            },
            "storage": {"prepared": prepared},
            "cluster": {"object_store_mb": 1024},
        },
        "bench",
    )


def run_cell(config: ExperimentConfig, cpus: int) -> dict[str, Any]:
    """Prepare once on a local cluster of ``cpus``; Ray's start is outside the window."""
    with connect(Cluster(num_cpus=cpus, object_store_mb=config.cluster.object_store_mb)):
        result, figures = measured(lambda: prepare(config))
        again, second = measured(lambda: prepare(config))
    rows = int(result.record["rows"])
    return {
        "rows": rows,
        "cpus": cpus,
        "rows_per_s": round(rows / figures.wall_s),
        **figures.document(),
        "stages": result.record["seconds"],
        "second_call_s": round(second.wall_s, 2),
        "second_call_reused": again.reused,
    }


def bench(out: Path, w2: Path | None = None, repeats: int = 1) -> dict[str, Any]:
    """Measure every cell in a process of its own and write `prepare.json`."""
    with tempfile.TemporaryDirectory(prefix="twotower-bench-") as scratch:
        cells = list(_cells(Path(scratch), w2, repeats))
    by = {(cell["rows"], cell["cpus"]): cell for cell in cells}
    big, small, one = (by[20_000_000, 2], by[2_000_000, 2], by[20_000_000, 1])
    document = {
        "date": datetime.now(UTC).date().isoformat(),
        "workload": "W2 of the peers' kit" if w2 else "synthetic, W2's shape",
        "environment": environment(),
        "cells": cells,
        "rows_per_s_20m": big["rows_per_s"],
        "memory_20m_over_2m": round(big["peak_pss_mb"] / small["peak_pss_mb"], 3),
        "two_cpus_over_one": round(one["wall_s"] / big["wall_s"], 3),
    }
    Store(out).write_json("prepare.json", document)
    return document


def _cells(scratch: Path, w2: Path | None, repeats: int) -> Iterator[dict[str, Any]]:
    for rows, cpus in CELLS:
        for repeat in range(repeats):
            log, items, columns = _source(scratch, w2, rows)
            command = [sys.executable, "-m", "twotower.bench.prepare", log, items]
            command += [str(scratch / f"out-{rows}-{cpus}-{repeat}"), str(cpus), *columns]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            yield json.loads(done.stdout.splitlines()[-1])


def _source(scratch: Path, w2: Path | None, rows: int) -> tuple[str, str, tuple[str, str, str]]:
    if w2:
        return (
            str(w2 / f"{rows // 1_000_000}Mx8"),
            str(w2 / "items.parquet"),
            ("query", "item", "ts"),
        )
    made = scratch / f"log-{rows}"
    if not made.exists():
        write_synthetic(made, rows=rows, queries=QUERIES, items=ITEMS, shards=SHARDS, seed=0)
    return str(made / "interactions"), str(made / "items.parquet"), ("query_id", "item_id", "ts")


def main() -> None:
    """Run one cell and print its figures as one line of JSON."""
    parser = argparse.ArgumentParser()
    for name in ("log", "items", "prepared", "cpus", "query", "item", "time"):
        parser.add_argument(name)
    a = parser.parse_args()
    # Ray's own processes count too: a machine of one CPU has no second one for them.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(a.cpus)])
    config = config_of(a.log, a.items, a.prepared, (a.query, a.item, a.time))
    sys.stdout.write(json.dumps(run_cell(config, int(a.cpus))) + "\n")


if __name__ == "__main__":
    main()
