"""A step's time against the size of the catalogue, the batch fixed.

Every batch has as many different items, drawn uniformly, so that each catalogue gives the same
work: what is left is what the size itself costs. `python -m twotower.bench.scaling` is the process
of one catalogue.
"""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from twotower.bench.in_memory import InMemory, Share
from twotower.bench.measure import Window
from twotower.bench.shares import timed_phases
from twotower.bench.step import LOOK_EVERY_S, peak_rss_mb
from twotower.bench.task import run_task, serve
from twotower.bench.windows import spread
from twotower.bench.workload import Sizes, write_workload
from twotower.core.config import ExperimentConfig
from twotower.core.errors import ResourceError
from twotower.training.state import TrainState
from twotower.training.step import train_step

ITEMS = (10_000, 100_000, 1_000_000, 10_000_000)
STEPS = 20
"""Steps of a window."""

_MODULE = "twotower.bench.scaling"
_WARM_STEPS = 5
_LOG_ROWS = 500_000
_BASE_BYTES, _ITEM_BYTES = 2 << 30, 1000
"""Memory that a run needs: table and sums of 64 floats an item, features, what building takes."""


def measure_scaling(
    config: ExperimentConfig, *, items: int, threads: int, windows: int = 3
) -> dict[str, Any]:
    """Time steps over a catalogue of ``items``, in a process of its own.

    Returns:
        ``items``, ``step_ms`` (median window), ``least_step_ms``, ``spread``, ``shares``,
        ``table_gb``, ``peak_rss_mb``, ``others_share``; or ``skipped``, the reason, where memory is
        short.
    """
    needs = _BASE_BYTES + items * _ITEM_BYTES
    if (free := _available_bytes()) < needs:
        reason = f"needs {needs / 2**30:.0f} GiB of memory, {free / 2**30:.0f} GiB are free"
        return {"items": items, "skipped": reason}
    spec = {
        "config": config.model_dump(mode="json"),
        "items": items,
        "threads": threads,
        "windows": windows,
    }
    return run_task(_MODULE, spec, threads=threads, cpus=threads)


def time_catalogue(config: ExperimentConfig, items: int, windows: int) -> dict[str, Any]:
    """Write a workload of so many items, train over it in this process, and time it."""
    with tempfile.TemporaryDirectory(prefix="twotower-bench-") as folder:
        write_workload(Path(folder), Sizes(items=items, rows=_LOG_ROWS))
        data = InMemory(Path(folder))
    steps = _WARM_STEPS + windows * STEPS
    state = TrainState.build(config, data.inputs, total_steps=steps)
    share = Share(config.train.batch_size)
    times: list[float] = []
    with timed_phases() as phases, Window(LOOK_EVERY_S) as tree:
        for step in range(steps):
            if step == _WARM_STEPS:
                phases.reset()
            batch = data.batch(step, share, distinct=True)
            began = time.perf_counter()
            train_step(state, batch)
            times.append(time.perf_counter() - began)
    timed = times[_WARM_STEPS:]
    means = sorted(sum(timed[w * STEPS : (w + 1) * STEPS]) / STEPS for w in range(windows))
    return {
        "items": items,
        "step_ms": round(means[len(means) // 2] * 1e3, 2),
        "least_step_ms": round(min(timed) * 1e3, 2),
        "spread": spread(means),
        "shares": phases.shares(sum(timed), wait_s=0.0),
        "table_gb": round(state.model.store.weight.numel() * 4 / 1e9, 3),
        "peak_rss_mb": peak_rss_mb(),
        "others_share": round(tree.figures.others_share, 3),
    }


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise ResourceError("/proc/meminfo: names no available memory; the bench runs on Linux")


def _measure(spec: Mapping[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(spec["threads"])
    config = ExperimentConfig.model_validate(spec["config"])
    return time_catalogue(config, spec["items"], spec["windows"])


if __name__ == "__main__":
    serve(_measure)
