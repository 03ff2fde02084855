"""Ray Tune as the engine of a search: it places trials, stops the weak ones and replaces the dead.

Tune keeps nothing that we read back: its snapshot is a pickle, so it goes to a folder that is
deleted, and `journal` is what survives.
"""

import contextlib
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search import Searcher
from typing_extensions import override

from twotower.core.errors import ResourceError
from twotower.runtime.admission import TrialNeed
from twotower.runtime.environment import environment
from twotower.runtime.journal import ENDED, Trial
from twotower.runtime.pruning import METRIC, TIME, Pruning, scheduler
from twotower.runtime.sweep import Sweep
from twotower.runtime.trial import TrialTask, trial_alone
from twotower.runtime.trial_group import trial_with_group

_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in configs mean the driver's folder
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the stop is ours
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial may fail before its first validation
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}


@dataclass(frozen=True, slots=True)
class TunePlan:
    """How Tune runs a sweep."""

    need: TrialNeed
    concurrent: int
    """Trials at once."""

    pruning: Pruning | None
    """How weak trials are stopped; None lets all run on."""

    max_epochs: int
    start_timeout_s: float
    """Longest time without any running trial."""


def run_sweep(
    sweep: Sweep,
    plan: TunePlan,
    make_task: Callable[[Trial], TrialTask],
    should_stop: Callable[[], bool],
) -> None:
    """Run trials until all have ended or a stop is asked for.

    Ray must be connected. Trials that were running at a stop stay running in the journal.

    Raises:
        ResourceError: no trial could start for `plan.start_timeout_s`: others hold the cluster.
    """
    hooks = _Hooks(sweep, plan, should_stop)
    with _quiet_tune() as folder:
        tune.Tuner(
            _trainable(plan.need),
            run_config=tune.RunConfig(
                name="search",
                storage_path=str(folder),
                verbose=0,
                callbacks=[hooks],
                stop=hooks.stopper,
            ),
            tune_config=tune.TuneConfig(
                num_samples=-1,
                max_concurrent_trials=plan.concurrent,
                search_alg=_Points(sweep, make_task),
                scheduler=scheduler(plan.pruning, sweep.progress().trials),
                reuse_actors=plan.need.workers == 1,
                trial_dirname_creator=lambda trial: f"trial-{trial.config['number']}",
            ),
        ).fit()
    if hooks.starved:
        raise ResourceError(hooks.starved)


def _trainable(need: TrialNeed) -> Callable[[dict[str, Any]], None]:
    """The trial's function, and what it holds: of a group, the workers hold everything.

    A byte of memory stands for nothing, which Tune doesn't allow. A part of a CPU would not do: two
    workers and a driver need more than the two CPUs of a small machine.
    """
    if need.workers > 1:
        return tune.with_resources(trial_with_group, {"CPU": 0, "memory": 1})
    resources = {"CPU": need.cpus} | ({"GPU": need.gpus} if need.gpus else {})
    return tune.with_resources(trial_alone, resources)


class _Points(Searcher):
    """Gives Tune the sweep's points. Results reach the sweep through `_Hooks` alone."""

    def __init__(self, sweep: Sweep, make_task: Callable[[Trial], TrialTask]) -> None:
        super().__init__(metric=METRIC, mode="max")
        self._sweep, self._make_task = sweep, make_task

    @override
    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        trial = self._sweep.next_trial()
        if trial is not None:
            return {"number": trial.number, "task": self._make_task(trial).dump()}
        return cast(Any, Searcher.FINISHED) if self._sweep.finished else None

    @override
    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing to do: `_Hooks` hears of it with more detail."""

    @override
    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the journal is."""

    @override
    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the journal was read at the start, Tune's snapshot is thrown away."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher into the snapshot that nobody reads


class _Hooks(tune.Callback):
    """Hears of every trial and tells the sweep; ends the run on a stop or a starved cluster."""

    def __init__(self, sweep: Sweep, plan: TunePlan, should_stop: Callable[[], bool]) -> None:
        self._sweep, self._plan, self._should_stop = sweep, plan, should_stop
        self.starved = ""
        self.stopper = _Stopper(self._is_over)

    @override
    def on_trial_start(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """Note that the cluster still gives us something."""
        self._sweep.last_event = time.monotonic()

    @override
    def on_trial_result(
        self,
        iteration: int,
        trials: list[TuneTrial],
        trial: TuneTrial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """Pass a validation on."""
        self._sweep.report(trial.config["number"], result)

    @override
    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """Pass an end on: what did not end itself was stopped by ASHA, early or at its end."""
        last = trial.last_result
        stopped = "complete" if last.get(TIME, 0) >= self._plan.max_epochs else "pruned"
        state = last.get("state")
        self._sweep.end(trial.config["number"], state if state in ENDED else stopped)

    @override
    def on_trial_error(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """Pass the death of a process, or a fault in the package itself, on."""
        self._sweep.died(trial.config["number"], _last_line(trial.error_file))

    @override
    def on_step_end(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        """See whether trials wait for a cluster that others hold."""
        idle_s = time.monotonic() - self._sweep.last_event
        if idle_s > self._plan.start_timeout_s and not any(t.status == "RUNNING" for t in trials):
            need = self._plan.need
            self.starved = (
                f"no trial could start for {idle_s:.0f} s: each needs {need.cpus:g} CPUs"
                + (f" and {need.gpus:g} GPU" if need.gpus else "")
                + ", which the cluster has but others hold; wait for them, or raise "
                "train.start_timeout_s"
            )

    def _is_over(self) -> bool:
        return bool(self.starved) or self._should_stop()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as in `_Points`


class _Stopper(tune.Stopper):
    """Ends the whole run, never a single trial."""

    def __init__(self, is_over: Callable[[], bool]) -> None:
        self._is_over = is_over

    @override
    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    @override
    def stop_all(self) -> bool:
        return self._is_over()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as in `_Points`


def _last_line(error_file: str | None) -> str:
    text = Path(error_file).read_text(encoding="utf-8") if error_file else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "its process died"


@contextlib.contextmanager
def _quiet_tune() -> Iterator[Path]:
    """A folder for what Tune insists on writing, Tune's console off, the environment put back."""
    logger = logging.getLogger("ray.tune")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with (
            environment(_ENVIRONMENT),
            tempfile.TemporaryDirectory(prefix="twotower-search-") as folder,
        ):
            yield Path(folder)
    finally:
        logger.setLevel(level)
