"""What a checkpoint costs training: a state of workload W1's size, real steps, real files.

The steps are `train_step` on drawn batches (ids by a power law), on one thread; data loading,
validation and Ray are not in it. Checkpoints go through the run's own `Recorder`.

`python -m twotower.bench.checkpoint FOLDER` prints the document.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from twotower.core.config import ExperimentConfig
from twotower.core.files import sync_directory
from twotower.core.loading import build_config
from twotower.core.storage import Store
from twotower.core.types import Batch, EncodedFeature, Ragged, Side
from twotower.runtime.json_lines import JsonLines
from twotower.runtime.recorder import EVENTS, Recorder, Watch
from twotower.training.progress import Progress
from twotower.training.state import TrainInputs, TrainState
from twotower.training.step import train_step

PERIOD_S = 60.0
"""Time between checkpoints that the loss of throughput is stated for."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the state is, and how much is measured."""

    items: int = 200_000
    queries: int = 160_000
    width: int = 64
    hidden: tuple[int, ...] = (512, 256)
    batch: int = 4096
    steps: int = 20
    """Steps of a window: it must be longer than the writing of a checkpoint."""

    repeats: int = 5
    """Pairs of windows, one with a checkpoint and one without, in turn."""


@dataclass(frozen=True, slots=True)
class Window:
    """Some steps on end; seconds of this thread."""

    wall_s: float
    cpu_s: float
    save_wall_s: float = 0.0
    save_cpu_s: float = 0.0


def measure_checkpoints(folder: Path, sizes: Sizes | None = None) -> dict[str, Any]:
    """Train with and without checkpoints in turn.

    Args:
        folder: where checkpoints are written; its disk is part of what is measured.
        sizes: state and repeats.

    Returns:
        ``state_mb``; ``save_s`` (the training thread stands still: smallest, median and largest;
        ``of_it_copy_s`` of the median); ``writer`` (wall and CPU seconds of one checkpoint beside
        training, medians); ``step_s`` without; ``plain_save`` (`torch.save` and fsync, and our
        writer, in turn: smallest CPU and wall seconds); ``lost_share`` of throughput at one
        checkpoint a minute: ``spare_cpu`` (only the stop), ``no_spare_cpu`` (the writer's CPU time
        is taken from training too), ``measured`` (wall time of the windows with a checkpoint
        against those without; noisy where others use the machine).
    """
    sizes = sizes or Sizes()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(prefix="checkpoints-", dir=folder) as scratch:
            return _measure(Path(scratch), sizes)
    finally:
        torch.set_num_threads(threads)


def _measure(folder: Path, sizes: Sizes) -> dict[str, Any]:
    state = _state(sizes)
    store = Store(folder / "run")
    with Recorder(store, Watch(), keep=2) as recorder:
        recorder.restore(state, Progress())
        _window(state, sizes, recorder)  # warm: memory of the snapshot, tables in the caches
        recorder.wait()
        without: list[Window] = []
        saving: list[Window] = []
        for _ in range(sizes.repeats):
            without.append(_window(state, sizes, None))
            saving.append(_window(state, sizes, recorder))
            recorder.wait()
    lines = [line for line in JsonLines(store, EVENTS).lines() if line["event"] == "checkpoint"]
    costs = lines[1:]
    saves = sorted(window.save_wall_s for window in saving)
    stop, cpu = median(saves), median(line["cpu_s"] for line in costs)
    stop_cpu = median(window.save_cpu_s for window in saving)
    extra = median(with_.wall_s - bare.wall_s for with_, bare in zip(saving, without, strict=True))
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "state_mb": costs[0]["megabytes"],
        "repeats": sizes.repeats,
        "batch": sizes.batch,
        "step_s": round(median(window.wall_s for window in without) / sizes.steps, 4),
        "step_cpu_s": round(min(window.cpu_s for window in without) / sizes.steps, 4),
        "save_s": {
            "min": round(saves[0], 4),
            "median": round(stop, 4),
            "max": round(saves[-1], 4),
            "cpu": round(stop_cpu, 4),
            "of_it_copy_s": median(line["copied_s"] for line in costs),
            "waited_s": max(line["waited_s"] for line in costs),
        },
        "writer": {
            "wall_s": median(line["written_s"] for line in costs),
            "cpu_s": cpu,
            "min_cpu_s": min(line["cpu_s"] for line in costs),
        },
        "plain_save": _against_plain(state, folder, sizes.repeats),
        "lost_share": {
            "every_s": PERIOD_S,
            "spare_cpu": round(stop / PERIOD_S, 5),
            "no_spare_cpu": round((stop + cpu) / PERIOD_S, 5),
            "measured": round(extra / PERIOD_S, 5),
        },
    }


def _window(state: TrainState, sizes: Sizes, recorder: Recorder | None) -> Window:
    """Some steps, with a checkpoint before the first where there is a recorder."""
    batches = [_batch(state.step + at, sizes) for at in range(sizes.steps)]
    wall, cpu = time.perf_counter(), time.thread_time()
    if recorder is not None:
        recorder.save(state, Progress())
    save_wall, save_cpu = time.perf_counter() - wall, time.thread_time() - cpu
    for batch in batches:
        train_step(state, batch)
    return Window(time.perf_counter() - wall, time.thread_time() - cpu, save_wall, save_cpu)


def _against_plain(state: TrainState, folder: Path, repeats: int) -> dict[str, Any]:
    """The same state by `torch.save` and fsync, and by us without a thread."""
    path = folder / "plain.pt"
    plain: list[tuple[float, float]] = []
    ours: list[tuple[float, float]] = []
    with Recorder(Store(folder / "alone"), Watch(), keep=1, background=False) as recorder:
        recorder.restore(state, Progress())
        for _ in range(repeats + 1):
            wall, cpu = time.perf_counter(), time.process_time()
            with path.open("wb") as stream:
                torch.save(state.state_tensors(), stream)
                stream.flush()
                os.fsync(stream.fileno())
            sync_directory(folder)
            plain.append((time.perf_counter() - wall, time.process_time() - cpu))
            state.step += 1  # a checkpoint that stands is not written again
            wall, cpu = time.perf_counter(), time.process_time()
            recorder.save(state, Progress())
            ours.append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        "torch_save": _least(plain[1:]),
        "ours": _least(ours[1:]),
        "ours_over_torch_save": round(
            min(wall for wall, _ in ours[1:]) / min(wall for wall, _ in plain[1:]), 2
        ),
    }


def _least(times: Iterable[tuple[float, float]]) -> dict[str, float]:
    walls, cpus = zip(*times, strict=True)
    return {"wall_s": round(min(walls), 4), "cpu_s": round(min(cpus), 4)}


def _state(sizes: Sizes) -> TrainState:
    def side(name: str, rows: int) -> Side:
        ids = np.arange(rows, dtype=np.int32) + 2
        values = Ragged(np.arange(rows + 1, dtype=np.int64), ids)
        return Side(rows, (EncodedFeature("id", "categorical", f"{name}.id", rows + 2, values),))

    inputs = TrainInputs(
        side("item", sizes.items),
        side("query", sizes.queries),
        np.full(sizes.queries, -1),
        np.ones(sizes.items, dtype=np.int64),
    )
    return TrainState.build(_config(sizes), inputs, total_steps=10**6)


def _config(sizes: Sizes) -> ExperimentConfig:
    feature = {"id": {"kind": "categorical"}}
    return build_config(
        {
            "name": "checkpoint",
            "data": {
                "interactions": {"path": "log"},
                "items": {"path": "items"},
                "queries": {"path": "queries"},
                "features": {"item": feature, "query": feature},
            },
            "model": {"embed_dim": sizes.width, "hidden": list(sizes.hidden)},
            "train": {"batch_size": sizes.batch},
        },
        "checkpoint",
    )


def _batch(step: int, sizes: Sizes) -> Batch:
    draws = np.random.default_rng(step)
    rows = sizes.batch

    def popular(count: int) -> Any:
        return (count * draws.random(rows) ** 3).astype(np.int64)

    return Batch(
        query=popular(sizes.queries),
        item=popular(sizes.items),
        weight=np.ones(rows, dtype=np.float32),
        position=np.arange(rows),
        epoch=0,
        step=step,
        context={},
        history=None,
    )


def main() -> None:
    """Measure in a folder and print the document."""
    found = measure_checkpoints(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
