"""Ray Train behind one door: its trainer, its settings, its errors."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray.exceptions
from ray.train import FailureConfig, Result, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from twotower.core.config import ExperimentConfig
from twotower.core.errors import RunError, TwotowerError
from twotower.core.storage import Store
from twotower.core.train_config import Train
from twotower.kernels import memory
from twotower.runtime.cluster import ClusterInfo
from twotower.runtime.environment import environment
from twotower.runtime.worker import train_worker

_FOLDER = "ray"
"""Ray Train's own files inside a run; ours don't depend on them."""

_HEALTH_CHECK_S = 0.5
"""How often Ray asks its workers: 2 s by default, which is lost at the end of every run."""


@dataclass(frozen=True, slots=True)
class Need:
    """What the workers of a run hold together."""

    what: str
    """Who asks, for messages."""

    cpus: float
    """Their threads, at least one each."""

    gpus: float
    watches_notices: bool
    """Whether nodes may be taken away with notice: not where there is one."""

    @classmethod
    def of(cls, config: ExperimentConfig, info: ClusterInfo) -> "Need":
        """What a config needs on a cluster; `device: auto` takes GPUs if all workers get one."""
        workers, device = config.train.num_workers, config.train.device
        use_gpu = device == "cuda" or (device == "auto" and info.gpus >= workers)
        return cls(
            what=f"train.num_workers: {workers} workers",
            cpus=float(max(config.train.threads, 1) * workers),
            gpus=float(workers if use_gpu else 0),
            watches_notices=info.nodes > 1,
        )


@dataclass(frozen=True, slots=True)
class Work:
    """What one start of Ray Train works on; locations are readable from every node."""

    prepared: str
    store: str
    name: str
    """Never used before in this run; see `forget`."""

    need: Need


class Fit:
    """Ray Train in a thread beside the caller.

    On the main thread it would take over SIGINT, and answer the third with exit code 0.
    """

    def __init__(self, trainer: TorchTrainer) -> None:
        """Start the workers."""
        self._trainer = trainer
        self._result: Result | None = None
        self._error: BaseException | None = None
        # Daemon: a second Ctrl-C must not wait for it.
        self._thread = threading.Thread(target=self._run, name="ray-train", daemon=True)
        self._thread.start()

    def is_running(self, wait_s: float) -> bool:
        """Whether the workers still run, after waiting for their end at most ``wait_s`` seconds."""
        self._thread.join(wait_s)
        return self._thread.is_alive()

    def returned(self) -> dict[str, Any]:
        """What the worker of rank 0 returned; RunError if Ray Train gave up."""
        if self._error is not None:
            raise _explained(self._error) from self._error
        assert self._result is not None, "asked before the end"
        assert self._result.return_value is not None, "rank 0 returned nothing"
        return self._result.return_value

    def _run(self) -> None:
        try:
            self._result = self._trainer.fit()
        except BaseException as error:  # noqa: BLE001 - raised again by `returned`
            self._error = error


@contextmanager
def ray_train(config: ExperimentConfig, work: Work) -> Iterator[Fit]:
    """Run the workers of a run while the block watches them.

    A block that is left early leaves them to the end of the connection.
    """
    forget(Store(work.store))
    try:
        with _settings(config.train, work.need):
            yield Fit(_trainer(config, work))
    finally:
        forget(Store(work.store))


def forget(run: Store) -> None:
    """Delete what Ray Train wrote of its own into a run directory, and a killed driver left there.

    Under a name that it knows, Ray Train reads its snapshot (`checkpoint_manager_snapshot.json`,
    written in place) and fails where that is torn. Nothing in it is of use: it is given no
    checkpoint, ours are elsewhere.
    """
    run.delete(_FOLDER)


def _trainer(config: ExperimentConfig, work: Work) -> TorchTrainer:
    train, need = config.train, work.need
    each = {"CPU": need.cpus / train.num_workers, "GPU": need.gpus / train.num_workers}
    return TorchTrainer(
        train_worker,
        train_loop_config={
            "config": config.model_dump_json(),
            "prepared": work.prepared,
            "store": work.store,
        },
        torch_config=TorchConfig(
            backend="nccl" if need.gpus else "gloo", timeout_s=int(train.collective_timeout_s)
        ),
        scaling_config=ScalingConfig(
            num_workers=train.num_workers,
            use_gpu=need.gpus > 0,
            resources_per_worker={name: amount for name, amount in each.items() if amount},
        ),
        run_config=RunConfig(
            name=work.name,
            storage_path=f"{work.store}/{_FOLDER}",
            # Ray Train calls the worker's function in a thread of its own.
            worker_runtime_env={"env_vars": dict(memory.ENVIRONMENT)},
            failure_config=FailureConfig(
                max_failures=train.max_failures, controller_failure_limit=train.max_failures
            ),
        ),
    )


@contextmanager
def _settings(train: Train, need: Need) -> Iterator[None]:
    """Settings that Ray Train takes from the environment of the driver only."""
    values = {
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": str(_HEALTH_CHECK_S),
        "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": str(train.collective_timeout_s),
        "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": str(train.collective_timeout_s),
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(train.start_timeout_s),
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "1" if need.watches_notices else "0",
        "RAY_TRAIN_METRICS_ENABLED": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
    }
    with environment(values):
        yield


def _explained(error: BaseException) -> BaseException:
    """Ray Train's error as one of ours, with what a worker said."""
    if isinstance(error, ray.exceptions.RayActorError):
        return RunError(
            "Ray Train's controller died (its process was killed, or its node is gone); "
            "the same command goes on from the last checkpoint"
        )
    if not isinstance(error, TrainingFailedError):
        return error
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    for cause in failures.values():
        if own := _own_error(cause):
            return RunError(str(own))
    if failures:
        rank, cause = min(failures.items(), key=lambda one: _blame(one[1]))
        notes = {note for other in failures.values() for note in getattr(other, "__notes__", ())}
        return RunError(
            f"worker {rank} failed once more than train.max_failures allows: {_said(cause)}"
            + "".join(f"; {note}" for note in sorted(notes))
        )
    cause = getattr(error, "controller_failure", error)
    return RunError(f"Ray Train could not start or keep the workers: {str(cause).strip()}")


def _blame(cause: BaseException) -> int:
    """0 for a worker that Ray lost, 1 for one that raised, 2 for one that was left waiting."""
    if type(cause).__module__.startswith("ray."):
        return 0
    return 2 if "gloo" in str(cause) or "NCCL" in str(cause) else 1


def _said(cause: BaseException) -> str:
    """The last line of an error; of a lost worker, which has much boilerplate, how it was lost."""
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    if type(cause).__module__.startswith("ray."):
        return "its process hangs" if "hanging" in lines[0] else "its process died"
    return lines[-1]


def _own_error(cause: BaseException | None) -> TwotowerError | None:
    while cause is not None:
        if isinstance(cause, TwotowerError):
            return cause
        cause = cause.__cause__
    return None
