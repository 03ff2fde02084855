"""Memory that training with a kind of table takes, in a process of its own.

`python -m twotower.bench.table_memory` is that process.
"""

from collections.abc import Mapping
from typing import Any

import torch

from twotower.bench.measure import forget_peak, memory_mb
from twotower.bench.table_steps import Trainer
from twotower.bench.task import serve
from twotower.core.config import ExperimentConfig
from twotower.data.prepared import Prepared
from twotower.models.sizes import sizes
from twotower.training.state import TrainState

_STEPS = 10


def measure_memory(config: ExperimentConfig, prepared: Prepared) -> dict[str, Any]:
    """Train a few steps and look.

    Returns:
        ``state_mb`` (weights, tables and optimizer state: what a checkpoint holds), ``peak_rss_mb``
        (most that the process held in its steps, data and libraries included; building the model is
        left out), and of all tables ``table_mb`` as served, and ``share_of_full``.
    """
    trainer = Trainer(config, prepared)
    forget_peak()
    for _ in range(_STEPS):
        trainer.step()
    trainer.step(revives=True)
    peak = memory_mb("VmHWM")
    found = sizes(trainer.state.model)
    return {
        "state_mb": round(state_bytes(trainer.state) / 2**20, 1),
        "peak_rss_mb": round(peak, 1),
        "table_mb": round(found.table_bytes / 2**20, 3),
        "share_of_full": round(found.table_bytes / found.full_table_bytes, 4),
    }


def state_bytes(state: TrainState) -> int:
    """Bytes of everything that a checkpoint holds."""
    return sum(
        tensor.numel() * tensor.element_size()
        for part in state.state_tensors().values()
        for tensor in part.values()
    )


def _measure(spec: Mapping[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(spec["threads"])
    config = ExperimentConfig.model_validate(spec["config"])
    return measure_memory(config, Prepared.open(spec["prepared"]))


if __name__ == "__main__":
    serve(_measure)
