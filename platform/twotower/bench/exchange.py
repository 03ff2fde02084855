"""Bytes that workers exchange in a step, and how they grow: gloo processes without Ray.

`python -m twotower.bench.exchange` is the process of one rank; ranks have one thread each.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from twotower.bench.in_memory import InMemory, Share
from twotower.bench.task import finish_task, serve, start_task
from twotower.bench.traffic import counted_traffic, wire_bytes
from twotower.core.config import ExperimentConfig
from twotower.objectives.group import SINGLE
from twotower.training.collectives import DistributedGroup
from twotower.training.state import TrainState
from twotower.training.step import train_step

_MODULE = "twotower.bench.exchange"
_WARM_STEPS = 3


def measure_exchange(
    config: ExperimentConfig, folder: Path, *, workers: int, cpus: int, steps: int = 10
) -> dict[str, Any]:
    """Train on the workload below a folder with gloo workers, and count.

    Returns:
        Per step and worker, means over both: ``bytes`` handed to collectives, the same
        ``by_collective`` and ``by_caller``, ``wire_bytes`` (`traffic.wire_bytes`),
        ``dense_wire_bytes`` (what summing a dense gradient of everything would send),
        ``collective_ms`` (waiting for others included) and ``step_ms``. A lone worker has no group.
    """
    with tempfile.TemporaryDirectory(prefix="twotower-bench-") as meet:
        spec = {
            "config": config.model_dump(mode="json"),
            "folder": str(folder),
            "workers": workers,
            "steps": steps,
            "meet": f"file://{meet}/meet",
        }
        started = [
            start_task(_MODULE, {**spec, "rank": rank}, threads=1, cpus=cpus)
            for rank in range(workers)
        ]
        ranks = [finish_task(process, _MODULE) for process in started]
    by_collective, by_caller = (_mean(ranks, key) for key in ("by_collective", "by_caller"))
    dense_wire = wire_bytes({"all_reduce": ranks[0]["dense_bytes"]}, workers)
    return {
        "workers": workers,
        "batch": config.train.batch_size,
        "items": ranks[0]["items"],
        "bytes": sum(by_collective.values()),
        "by_collective": by_collective,
        "by_caller": by_caller,
        "wire_bytes": round(wire_bytes(by_collective, workers)),
        "dense_wire_bytes": round(dense_wire),
        "collective_ms": round(sum(rank["collective_ms"] for rank in ranks) / workers, 2),
        "step_ms": round(max(rank["step_ms"] for rank in ranks), 2),
    }


def _mean(ranks: list[dict[str, Any]], key: str) -> dict[str, int]:
    total: Counter[str] = Counter()
    for rank in ranks:
        total.update(rank[key])
    return {name: round(size / len(ranks)) for name, size in sorted(total.items())}


def _measure(spec: Mapping[str, Any]) -> dict[str, Any]:
    """One rank."""
    config = ExperimentConfig.model_validate(spec["config"])
    rank, workers, steps = spec["rank"], spec["workers"], spec["steps"]
    torch.set_num_threads(1)
    data = InMemory(Path(spec["folder"]))
    state = TrainState.build(config, data.inputs, total_steps=_WARM_STEPS + steps)
    share = Share(config.train.batch_size, rank, workers)
    dist.init_process_group("gloo", init_method=spec["meet"], rank=rank, world_size=workers)
    try:
        group = DistributedGroup(torch.device("cpu")) if workers > 1 else SINGLE
        began = 0.0
        with counted_traffic() as traffic:
            for step in range(_WARM_STEPS + steps):
                if step == _WARM_STEPS:
                    traffic.reset()
                    began = time.perf_counter()
                train_step(state, data.batch(step, share), group)
            seconds = time.perf_counter() - began
    finally:
        dist.destroy_process_group()
    weights = [state.model.store.weight, *state.model.parameters()]
    return {
        "items": data.inputs.item.num_rows,
        "by_collective": {name: size / steps for name, size in traffic.by_collective.items()},
        "by_caller": {name: size / steps for name, size in traffic.by_caller.items()},
        "dense_bytes": sum(w.numel() * w.element_size() for w in weights),
        "collective_ms": traffic.seconds / steps * 1e3,
        "step_ms": seconds / steps * 1e3,
    }


if __name__ == "__main__":
    serve(_measure)
