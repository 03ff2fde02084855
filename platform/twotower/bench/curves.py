"""How a step's cost grows: with the catalogue, with the batch, and its bytes with workers."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twotower.bench.exchange import measure_exchange
from twotower.bench.scaling import ITEMS, measure_scaling
from twotower.bench.w1 import Cell, cell_config
from twotower.bench.workload import Sizes, write_workload
from twotower.core.config import ExperimentConfig

BATCHES = (512, 1024, 2048, 4096, 8192)
WORKERS = (1, 2, 4)
EXCHANGE_ITEMS = (10_000, 1_000_000)
"""Catalogues besides the workload's own."""

_BATCH = 4096
_ROWS = 500_000


def vocabulary_curve(
    base: ExperimentConfig, threads: int, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Milliseconds a step against items in the catalogue, at batch 4096."""
    lines: list[dict[str, Any]] = []
    for items in ITEMS:
        tell(f"{items:,} items")
        config = cell_config(base, Cell(_BATCH, ssl=False))
        lines.append(measure_scaling(config, items=items, threads=threads))
    return lines


def exchange_curve(
    base: ExperimentConfig, folder: Path, cpus: int, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Bytes a step and worker against workers, batch, SSL and catalogue."""
    lines: list[dict[str, Any]] = []

    def measure(cell: Cell, workers: int, where: Path) -> None:
        tell(f"exchange {cell.name}, {workers} workers")
        config = cell_config(base, cell)
        found = measure_exchange(config, where, workers=workers, cpus=cpus)
        lines.append({"cell": cell.name, **found})

    for batch in (1024, _BATCH):
        for workers in WORKERS:
            measure(Cell(batch, ssl=False), workers, folder)
        measure(Cell(batch, ssl=True), 2, folder)
    for items in EXCHANGE_ITEMS:
        with tempfile.TemporaryDirectory(prefix="twotower-bench-") as scratch:
            write_workload(Path(scratch), Sizes(items=items, rows=_ROWS))
            measure(Cell(_BATCH, ssl=False), 2, Path(scratch))
    return lines


def batch_curve(
    base: ExperimentConfig,
    time_ours: Callable[[ExperimentConfig], dict[str, Any]],
    tell: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Milliseconds a step against the batch, whose softmax is over all its pairs."""
    lines: list[dict[str, Any]] = []
    for batch in BATCHES:
        tell(f"batch {batch}")
        found = time_ours(cell_config(base, Cell(batch, ssl=False)))
        outside = found["step_ms"] * (1 - found["shares"]["softmax"])
        lines.append(
            {
                "batch": batch,
                "step_ms": found["step_ms"],
                "us_per_example": round(found["step_ms"] / batch * 1e3, 2),
                "us_per_example_without_softmax": round(outside / batch * 1e3, 2),
                "shares": found["shares"],
                "spread": found["spread"],
                "others_share": found["others_share"],
            }
        )
    return lines
