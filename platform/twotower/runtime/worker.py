"""The function that Ray Train runs on every worker."""

import os
import resource
import time
from collections.abc import Mapping
from typing import Any

import ray.train
import ray.train.torch
import torch

from twotower.core.config import ExperimentConfig
from twotower.core.errors import DivergedError, StoppedError
from twotower.core.storage import Store
from twotower.data.prepared import Prepared
from twotower.objectives.group import SINGLE
from twotower.runtime.fault import UnfiredError, injector
from twotower.runtime.recorder import Recorder, Watch
from twotower.runtime.session import Outcome, Place, describe, run_session
from twotower.training.collectives import DistributedGroup
from twotower.training.loop import Line

STOP = "stop"
"""File whose presence in a run directory asks the workers to stop."""

_LOOK_EVERY_S = 0.5
"""Seconds between looks for it: an object store is slow to ask."""


def train_worker(setup: Mapping[str, str]) -> dict[str, Any]:
    """Train one data-parallel replica from the newest checkpoint to the end.

    Ray Train calls this once per worker and, after a failure, again from the top. Only what the
    recorder committed survives; Ray keeps no checkpoint of ours.

    What ends all ranks alike (done, stopped, diverged, a planned failure that never came) is
    returned, so that Ray doesn't start them again; whatever else goes wrong is raised, and the
    group restarts within `train.max_failures`.

    Args:
        setup: `config` (JSON), `prepared` and `store` (locations that every node can read).

    Returns:
        `status` (done, stopped, diverged, failed), `message`, or what the run reached; plain JSON.
    """
    config = ExperimentConfig.model_validate_json(setup["config"])
    context = ray.train.get_context()
    world, rank = context.get_world_size(), context.get_world_rank()
    torch.set_num_threads(config.train.threads or _own_cpus(context.get_local_world_size()))
    device = ray.train.torch.get_device()
    group = DistributedGroup(device) if world > 1 else SINGLE
    store = Store(setup["store"])
    watch = Watch(on_line=_report, should_stop=_StopFile(store).stands if rank == 0 else None)
    faults = injector(config, store, rank)
    kept_in = faults.watch_store() if faults else store
    recorder = Recorder(
        kept_in,
        watch,
        keep=config.train.keep_checkpoints,
        rank=rank,
        background=config.train.checkpoint_async,
    )
    try:
        prepared = Prepared.open(setup["prepared"])
        outcome = run_session(config, prepared, recorder, Place(device, group), faults=faults)
    except StoppedError as error:
        return {"status": "stopped", "message": str(error)}
    except DivergedError as error:
        return {"status": "diverged", "message": str(error)}
    except UnfiredError as error:
        return {"status": "failed", "message": str(error)}
    except Exception as error:
        recorder.failed(rank, error)
        raise
    peaks = [megabytes for (megabytes,) in group.exchange(_peak_memory_mb())]
    return {"status": "done", "peak_memory_mb": round(sum(peaks), 1), **_plain(outcome)}


class _StopFile:
    """Looks for the file that asks to stop, now and then."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._next_look = 0.0

    def stands(self) -> bool:
        now = time.monotonic()
        if now < self._next_look:
            return False
        self._next_look = now + _LOOK_EVERY_S
        return self._store.exists(STOP)


def _report(line: Line) -> None:
    """Give validations to Ray Train, for its own tools; a barrier, so on every rank alike."""
    if line["kind"] == "validation":
        ray.train.report({name: value for name, value in line.items() if value is not None})


def _plain(outcome: Outcome) -> dict[str, Any]:
    return {**describe(outcome), "threads": torch.get_num_threads()}


def _own_cpus(local_world_size: int) -> int:
    """A worker's share of the CPUs that its node lets it use."""
    return max(1, len(os.sched_getaffinity(0)) // local_world_size)


def _peak_memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
