"""What a kind of table costs a training step of W1, beside the step with full tables.

`python -m twotower.bench.table_steps` is the process of one kind: windows of steps with full tables
and with the kind follow each other, on the same batches, and a ratio is of two neighbours.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch

from twotower.bench.measure import Window
from twotower.bench.step import LOOK_EVERY_S
from twotower.bench.task import serve
from twotower.bench.windows import spread
from twotower.core.config import ExperimentConfig
from twotower.core.types import Batch
from twotower.data.prepared import Prepared
from twotower.kernels.memory import keep_freed_memory
from twotower.models.embeddings.codebooks import CodebookTable
from twotower.training.inputs import batch_reader, train_inputs
from twotower.training.state import TrainState
from twotower.training.step import train_step

_BATCHES = 64
"""Batches that steps take in turn: the log's own, so ids are as frequent as in training."""

_STEPS = 10**6
"""Of the run that the steps are taken from: schedules stand still."""

_WARM_STEPS = 5
_MOST_STEPS = 150
"""Of a window: fewer than lie between two looks for unused centroids, which are timed apart."""


@dataclass(frozen=True, slots=True)
class Spent:
    """One window: means over its steps."""

    wall_ms: float
    cpu_ms: float


class Trainer:
    """Training of one config on a few batches of its data, again and again."""

    def __init__(self, config: ExperimentConfig, prepared: Prepared) -> None:
        """Read the batches and build the state; every row counts as trained, as late in a run."""
        keep_freed_memory()
        reader = batch_reader(config, prepared)
        inputs = train_inputs(config, prepared)
        self.state: TrainState = TrainState.build(config, inputs, total_steps=_STEPS)
        self.state.model.store.touched.fill_(value=True)
        self._batches: list[Batch] = list(islice(reader.batches(0), _BATCHES))
        modules = self.state.model.store.modules()
        self._codebooks = [table for table in modules if isinstance(table, CodebookTable)]
        for _ in range(_WARM_STEPS):
            self.step()

    @property
    def revive_every(self) -> int:
        """Steps between looks for unused centroids; 0 = the kind has none."""
        return max((table.revive_every for table in self._codebooks), default=0)

    def step(self, *, revives: bool = False) -> None:
        """One step; ``revives`` makes it one of those that look for unused centroids."""
        for table in self._codebooks:
            table.steps.fill_(table.revive_every if revives else 1)
        step = self.state.step
        train_step(self.state, replace(self._batches[step % len(self._batches)], step=step))

    def window(self, seconds: float) -> Spent:
        """Train for at least so long."""
        steps, wall, cpu = 0, time.perf_counter(), time.process_time()
        while True:
            self.step()
            steps += 1
            spent = time.perf_counter() - wall
            if spent >= seconds or steps == _MOST_STEPS:
                return Spent(spent / steps * 1e3, (time.process_time() - cpu) / steps * 1e3)

    def revival_ms(self) -> float:
        """Time of a step that looks for unused centroids."""
        began = time.perf_counter()
        self.step(revives=True)
        return (time.perf_counter() - began) * 1e3


def time_pairs(full: Trainer, own: Trainer, seconds: float, repeats: int) -> dict[str, Any]:
    """Windows of both in turn.

    Returns:
        ``step_ms`` and ``full_step_ms`` (median windows), ``ratio`` (median over neighbours, with
        its ``spread``; ``ratios``), ``cpu_ratio``, and ``others_share``. Kinds with codebooks also
        have ``revival_ms`` (what a step that looks for unused centroids takes longer) and
        ``ratio_with_revivals``, as often as they come by default.
    """
    pairs: list[tuple[Spent, Spent]] = []
    revivals: list[float] = []
    with Window(LOOK_EVERY_S) as tree:
        for _ in range(repeats):
            pairs.append((full.window(seconds), own.window(seconds)))
            if own.revive_every:
                revivals.append(own.revival_ms())
    ratios = [mine.wall_ms / theirs.wall_ms for theirs, mine in pairs]
    step_ms, full_ms = (statistics.median(pair[of].wall_ms for pair in pairs) for of in (1, 0))
    found: dict[str, Any] = {
        "step_ms": round(step_ms, 2),
        "full_step_ms": round(full_ms, 2),
        "ratio": round(statistics.median(ratios), 4),
        "spread": spread(ratios),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "cpu_ratio": round(_cpu_ratio(pairs), 4),
        "others_share": round(tree.figures.others_share, 3),
    }
    if revivals:
        longer = max(0.0, statistics.median(revivals) - step_ms)
        found["revival_ms"] = round(longer, 1)
        added = longer / own.revive_every / full_ms
        found["ratio_with_revivals"] = round(statistics.median(ratios) + added, 4)
    return found


def _cpu_ratio(pairs: Sequence[tuple[Spent, Spent]]) -> float:
    return statistics.median(mine.cpu_ms / theirs.cpu_ms for theirs, mine in pairs)


def _measure(spec: Mapping[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(spec["threads"])
    prepared = Prepared.open(spec["prepared"])
    full, own = (
        Trainer(ExperimentConfig.model_validate(spec[name]), prepared) for name in ("full", "own")
    )
    return time_pairs(full, own, spec["seconds"], spec["repeats"])


if __name__ == "__main__":
    serve(_measure)
