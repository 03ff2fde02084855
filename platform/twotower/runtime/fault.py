"""Failures that a config asks for: real ones, each once, each written down before it happens.

The loop knows nothing of them. The reader, the group and the store that a session works with are
wrapped, and only where a config plans something.
"""

import os
import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from twotower.core.config import ExperimentConfig
from twotower.core.errors import ConfigError, RunError
from twotower.core.fault_config import Fault
from twotower.core.seeding import integers
from twotower.core.storage import MANIFEST, Store
from twotower.core.types import Batch
from twotower.data.reader import BatchReader
from twotower.objectives.group import Group
from twotower.runtime.json_lines import JsonLines
from twotower.runtime.recorder import CHECKPOINTS, EVENTS
from twotower.runtime.watched import WatchedGroup, WatchedReader, WatchedStore

_CHECKPOINT_FILE = re.compile(rf"{CHECKPOINTS}/[^/]*?(\d+)[^/]*$")
_OTHERS_WAIT_S = 0.3
"""So long the victim stays away from a collective, so that the others wait inside it."""


class UnfiredError(RunError):
    """A planned failure did not happen, so the run proves nothing."""


class InjectedError(RunError):
    """The failure of `action: error`."""


class Watched(NamedTuple):
    """What a session works with, wrapped."""

    reader: BatchReader
    training: Group
    evaluation: Group


class Injector:
    """The planned failures of one worker's process.

    Attempts are counted, and what has happened is known, by the run's events: they outlive the
    worker, the driver and the cluster.
    """

    def __init__(self, config: ExperimentConfig, store: Store, rank: int) -> None:
        """Read the plan; `begin` arms it.

        Raises:
            ConfigError: the run directory can't take the line of a worker that is about to die.
        """
        if not store.is_local:
            raise ConfigError(f"fault.plan: storage.runs must be a local folder, not {store.uri!r}")
        self._config, self._store, self._rank = config, store, rank
        self._events = JsonLines(store, EVENTS)
        self._trace = JsonLines(store, f"trace-{rank}.jsonl") if config.fault.trace else None
        self._armed: dict[Fault, int] = {}
        self._attempt = 0
        self._done = 0

    def begin(self, group: Group, steps_per_epoch: int) -> None:
        """Count the attempt and arm what it is planned for; collective."""
        lines = self._events.lines()
        # One rank counts: the others may look when its line already stands.
        before = float(sum(line["event"] == "attempt" for line in lines))
        self._attempt = int(group.exchange(before)[0][0]) + 1
        if self._rank == 0:
            self._write("attempt", process_age_s=round(_process_age_s(), 3))
        happened = _happened(lines)
        total = self._config.train.num_epochs * steps_per_epoch
        for place, fault in enumerate(self._config.fault.plan):
            again = fault.every and self._attempt >= fault.attempt
            first = self._attempt == fault.attempt and fault not in happened
            if fault.rank == self._rank and (again or first):
                self._armed[fault] = self._step_of(fault, place, total)
        self._meet("start", 0)

    def finish(self, group: Group) -> None:
        """Fail where something planned never happened; collective.

        Raises:
            UnfiredError: it is named, with the attempts that there were.
        """
        group.exchange(0.0)  # the others may still be about to strike
        happened = _happened(self._events.lines())
        missing = [fault for fault in self._config.fault.plan if fault not in happened]
        if missing:
            first = missing[0].model_dump_json(exclude_defaults=True)
            raise UnfiredError(
                f"fault: {first} never fired in {self._attempt} attempts and {self._done} steps"
            )

    def watch(self, reader: BatchReader, group: Group) -> Watched:
        """Wrap what the session reads from and talks through."""
        return Watched(
            WatchedReader(reader, self._before_step, self._after_step),
            WatchedGroup(group, before_sum=self._before_sum),
            WatchedGroup(group, before_gather=self._before_gather),
        )

    def watch_store(self) -> Store:
        """The run directory, with a look after each file of a checkpoint."""
        return WatchedStore(self._store, self._after_file)

    def resumed(self, step: int) -> None:
        """Note the steps done before this attempt."""
        self._done = step

    def _before_step(self, batch: Batch) -> None:
        self._done = batch.step
        self._meet("step", batch.step)
        if self._trace:
            real = batch.weight > 0
            rows = np.stack([batch.position, batch.query, batch.item], axis=1)[real].tolist()
            line = {"step": batch.step, "attempt": self._attempt, "time": time.time()}
            self._trace.append({**line, "rows": rows})

    def _after_step(self, batch: Batch) -> None:
        self._done = batch.step + 1

    def _before_sum(self, x: Tensor) -> None:
        if self._meet("all_reduce", self._done):
            x.fill_(torch.nan)

    def _before_gather(self) -> None:
        self._meet("evaluate", self._done)

    def _after_file(self, folder: str, name: str) -> None:
        found = _CHECKPOINT_FILE.search(folder)
        if found and name != MANIFEST:
            self._meet("checkpoint", int(found[1]))

    def _meet(self, phase: str, step: int) -> bool:
        """Let what is due here happen; whether numbers should be poisoned."""
        armed = tuple(self._armed.items())  # a copy: checkpoints are written by a thread
        due = [fault for fault, at in armed if fault.phase == phase and step >= at]
        for fault in due:
            del self._armed[fault]
            if phase in ("all_reduce", "evaluate"):
                time.sleep(_OTHERS_WAIT_S)
            self._write("fault", rank=self._rank, step=step, planned=fault.model_dump())
            _strike(fault, step)
        return any(fault.action == "nan" for fault in due)

    def _step_of(self, fault: Fault, place: int, total: int) -> int:
        if fault.phase == "start":
            return 0
        if fault.step is not None:
            return fault.step
        return int(integers(self._config.fault.seed, "fault", 0, np.array([place]), total)[0])

    def _write(self, event: str, **details: Any) -> None:
        line = {"event": event, "time": round(time.time(), 3), "attempt": self._attempt}
        self._events.append({**line, "pid": os.getpid(), **details})
        self._events.sync()


def injector(config: ExperimentConfig, store: Store | None, rank: int = 0) -> Injector | None:
    """The failures of a run; None where it plans none or has no directory to note them in."""
    wanted = config.fault.plan or config.fault.trace
    return Injector(config, store, rank) if wanted and store else None


def _strike(fault: Fault, step: int) -> None:
    if fault.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault.action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif fault.action == "error":
        raise InjectedError(f"fault: asked for in phase {fault.phase} after {step} steps")


def _happened(events: Sequence[dict[str, Any]]) -> list[Fault]:
    return [Fault.model_validate(line["planned"]) for line in events if line["event"] == "fault"]


def _process_age_s() -> float:
    """Seconds since this process began, imports included; 0 where /proc doesn't say."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
