"""Training under Ray Train, from a config to evaluated results; what `twotower train` calls."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from twotower.core.config import ExperimentConfig
from twotower.core.errors import DataError, DivergedError, RunError, StoppedError
from twotower.core.lease import Lease
from twotower.data.locate import find_committed, find_inputs
from twotower.data.pipeline import prepare
from twotower.data.prepared import Prepared
from twotower.runtime.assess import write_baselines
from twotower.runtime.cluster import connect, require, wait_free
from twotower.runtime.follow import Tail
from twotower.runtime.ray_train import Need, Work, ray_train
from twotower.runtime.recorder import EVENTS, METRICS
from twotower.runtime.results import read_summary
from twotower.runtime.run_folder import RunFolder, location
from twotower.runtime.stopping import stop_requests, stopped_at_once
from twotower.runtime.worker import STOP
from twotower.training.inputs import require_trainable, total_steps

Event = Mapping[str, Any]
"""`{"kind": "phase", "phase": ...}`, or a line of metrics as it is written."""

Tell = Callable[[Event], None]

_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A run that is done."""

    name: str
    path: str
    """The run directory."""

    reused: bool
    """It was done before, and nothing was trained."""

    restarts: int
    """Times that the workers died and began again from a checkpoint, over all attempts."""

    step: int
    best: dict[str, Any] | None
    """Step, epoch and value of the best validation."""

    summaries: dict[str, dict[str, dict[str, Any]]]
    """Part -> metric -> value, low, high, n."""

    seconds: float
    """Wall clock of all attempts' stages."""


def train(
    config: ExperimentConfig,
    *,
    provenance: Mapping[str, str] | None = None,
    on_progress: Tell | None = None,
    verbose: bool = False,
) -> TrainResult:
    """Train a config, or go on with a run that was cut off; a run that is done is only read.

    Args:
        config: the experiment.
        provenance: where each of its values came from, for the record.
        on_progress: sees phases and lines of metrics, in this process.
        verbose: let Ray's own logs reach the console.

    Raises:
        InputError: config, data, cluster or run directory can't be used; no step was made.
        RunError: training failed; the same call goes on from the last checkpoint.
        StoppedError: asked to stop by SIGTERM or SIGINT; the same call goes on.
    """
    folder = RunFolder(config)
    if folder.is_done and _is_data_there(folder):
        return _result(folder, reused=True)
    folder.store.require_writable("storage.runs")
    if folder.store.exists():
        with Lease(folder.store):
            pass  # in use by another: said before a cluster starts
    stoppable = stopped_at_once(f"{folder.name}: stopped; the same command goes on")
    with stoppable, connect(config.cluster, verbose=verbose) as info:
        need = Need.of(config, info)
        require(need.what, need.cpus, need.gpus)
        was_trained = _train(folder, need, provenance, on_progress or _nobody)
    return _result(folder, reused=not was_trained)


def _train(folder: RunFolder, need: Need, provenance: Mapping[str, str] | None, tell: Tell) -> bool:
    """Wait for CPUs, prepare the data, train; false if another process did it meanwhile."""
    config = folder.config
    # Before the preparation, which would wait without end on a cluster that others hold.
    wait_free(need.what, need.cpus, need.gpus, timeout_s=config.train.start_timeout_s)
    tell({"kind": "phase", "phase": "prepare"})
    began = time.monotonic()
    made = prepare(config, on_progress=_preparing(tell))
    prepared = Prepared.open(made.path)
    require_trainable(config, prepared)
    seconds = time.monotonic() - began
    with Lease(folder.store), stop_requests() as should_stop:
        folder.read()
        folder.check_prepared(prepared)
        if folder.is_done:
            return False
        folder.begin(prepared, provenance)
        if not made.reused:
            folder.add_stage("prepare", seconds)
        _run(_Attempt(folder, prepared, tell, need), should_stop)
    return True


def _run(attempt: "_Attempt", should_stop: Callable[[], bool]) -> None:
    """Run an attempt and write down how it ended, whatever happened."""
    folder = attempt.folder
    try:
        details = attempt.train(should_stop)
        attempt.baselines()
    except StoppedError as error:
        folder.end("stopped", str(error), **attempt.counts())
        raise
    except (KeyboardInterrupt, SystemExit):
        folder.end("stopped", "interrupted", **attempt.counts())
        raise
    except Exception as error:
        folder.end("failed", str(error).strip() or type(error).__name__, **attempt.counts())
        raise
    folder.end("done", "done", **details, **attempt.counts())


class _Attempt:
    """One call's share of a run."""

    def __init__(self, folder: RunFolder, prepared: Prepared, tell: Tell, need: Need) -> None:
        self.folder = folder
        self._prepared, self._tell = prepared, tell
        self._store, self._config = folder.store, folder.config
        self._work = Work(
            prepared=location(prepared.store),
            store=location(folder.store),
            name=f"attempt-{len(folder.record['attempts'])}",
            need=need,
        )
        self._starts: list[float] = []
        self._evaluates: float | None = None
        self._before = folder.record.get("restarts", 0)

    def train(self, should_stop: Callable[[], bool]) -> dict[str, Any]:
        """Train and evaluate on the workers; what the run reached, for the record."""
        config = self._config
        self._total_steps = total_steps(config, self._prepared)
        self._tell({"kind": "phase", "phase": "start"})
        self._store.delete(STOP)
        tails = (Tail(self._store, METRICS, self._tell), Tail(self._store, EVENTS, self._on_event))
        began = time.time()
        try:
            with ray_train(config, self._work) as fit:
                while fit.is_running(_POLL_S):
                    for tail in tails:
                        tail.look()
                    if should_stop() and not self._store.exists(STOP):
                        self._store.write_bytes(STOP, b"")
            returned = fit.returned()
        finally:
            for tail in tails:
                tail.look()
            self._add_stages(began, time.time())
            self._store.delete(STOP)
        if returned["status"] == "stopped":
            raise StoppedError(f"{self.folder.name}: {returned['message']}")
        if returned["status"] == "diverged":
            raise DivergedError(returned["message"])
        if returned["status"] == "failed":
            raise RunError(returned["message"])
        self.folder.add_stage("train", 0.0, returned["peak_memory_mb"])
        return {name: returned[name] for name in ("step", "best", "threads")}

    def baselines(self) -> None:
        """Write the rows that every table has."""
        self._tell({"kind": "phase", "phase": "baselines"})
        began = time.monotonic()
        write_baselines(self._config, self._prepared, self._store)
        self.folder.add_stage("baselines", time.monotonic() - began)

    def counts(self) -> dict[str, Any]:
        """How often workers began again."""
        return {"restarts": self._before + max(0, len(self._starts) - 1)}

    def _on_event(self, event: Event) -> None:
        if event["event"] == "start":
            self._starts.append(event["time"])
            phase = {"step": event["step"], "total_steps": self._total_steps}
            self._tell({"kind": "phase", "phase": "train", **phase})
        elif event["event"] == "evaluate":
            self._evaluates = event["time"]
            self._tell({"kind": "phase", "phase": "evaluate"})

    def _add_stages(self, began: float, ended: float) -> None:
        """Split the time of Ray Train by what the workers say of themselves."""
        started = self._starts[0] if self._starts else ended
        evaluates = self._evaluates or ended
        self.folder.add_stage("start", started - began)
        if self._starts:
            self.folder.add_stage("train", evaluates - started)
        if self._evaluates:
            self.folder.add_stage("evaluate", ended - evaluates)


def _result(folder: RunFolder, *, reused: bool) -> TrainResult:
    record = folder.record
    return TrainResult(
        name=folder.name,
        path=f"{folder.config.storage.runs.rstrip('/')}/{folder.name}",
        reused=reused,
        restarts=record["restarts"],
        step=record["step"],
        best=record["best"],
        summaries={part: read_summary(folder.store, part) for part in ("validation", "test")},
        seconds=sum(stage["seconds"] for stage in record["stages"]),
    )


def _is_data_there(folder: RunFolder) -> bool:
    """Whether the data that a finished run began with is what its config asks for now."""
    try:
        found = find_committed(folder.config, find_inputs(folder.config.data))
    except DataError:
        return True  # the sources are gone: there is nothing newer to train on
    if found is None:
        return False
    folder.check_prepared(Prepared.open(found.path))
    return True


def _preparing(tell: Tell) -> Callable[[str, int, int], None]:
    def told(stage: str, done: int, total: int) -> None:
        place = {"stage": stage, "step": done, "total_steps": total}
        tell({"kind": "phase", "phase": "prepare", **place})

    return told


def _nobody(_: Event) -> None:
    """Nobody watches."""
