"""What runs inside one trial of a search.

Training and validation only: the test part is never touched, so that the winner's test figure is
not the best of many looks. A trial's process imports this module before its first step, so it
imports little itself: Optuna, Ray Data and Ray Train stay out.
"""

import functools
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ray import tune

from twotower.core.config import ExperimentConfig
from twotower.core.errors import DivergedError, TwotowerError
from twotower.core.storage import Store
from twotower.data.prepared import Prepared
from twotower.runtime.recorder import Watch
from twotower.runtime.reference import Machine, train_reference

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class TrialTask:
    """One trial as it travels to its process."""

    number: int
    config: str
    """The trial's whole config, JSON."""

    prepared: str
    """The prepared dataset."""

    threads: int
    device: str
    asked_at: float
    """Wall clock when the trial was handed out, in seconds since 1970."""

    stops: str = ""
    """Directory where a file named after the trial asks it to end; only groups look there."""

    def dump(self) -> str:
        """As one text, which Tune passes on untouched."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> "TrialTask":
        """Inverse of `dump`."""
        return cls(**json.loads(text))


class TrialReporter:
    """Turns the loop's lines into a trial's reports."""

    def __init__(self, task: TrialTask, metric: str, report: Report) -> None:
        """Report through `report`; `metric` is the validation metric that counts."""
        self._task, self._metric, self._report = task, metric, report
        self._cpu_before = time.process_time()
        self._start_s: float | None = None
        self._best: float | None = None
        self._last: dict[str, Any] = {}

    def on_record(self, line: dict[str, Any]) -> None:
        """Take a line of the loop; validations are reported."""
        self.alive()
        if line["kind"] != "validation":
            return
        value = float(line[self._metric])
        self._best = value if self._best is None else max(self._best, value)
        self._last = {"epoch": int(line["epoch"]), "value": value, "best": self._best}
        self._report(self._last | self._costs() | {"state": "running"})

    def alive(self) -> bool:
        """Called by the loop now and then: the first call dates its first steps. Never stops it."""
        if self._start_s is None:
            self._start_s = time.time() - self._task.asked_at
        return False

    def end(self, state: str, error: str | None = None) -> None:
        """Report the end; the last validation's values stay with it."""
        self._report(self._last | self._costs() | {"state": state, "error": error})

    def _costs(self) -> dict[str, Any]:
        return {"cpu_s": time.process_time() - self._cpu_before, "start_s": self._start_s}


def trial_alone(setup: dict[str, Any]) -> None:
    """Tune's function of a one-worker trial; `setup` holds a dumped `task`."""
    run_alone(TrialTask.parse(setup["task"]), tune.report)


def run_alone(task: TrialTask, report: Report) -> None:
    """Train one trial in this process, without Ray Train.

    A failure that the package foresees is the trial's result, not the process's: it is reported,
    and the process takes the next trial.
    """
    config = ExperimentConfig.model_validate_json(task.config)
    reporter = TrialReporter(task, config.eval.select, report)
    try:
        train_reference(
            config,
            open_prepared(task.prepared),
            watch=Watch(on_line=reporter.on_record, should_stop=reporter.alive),
            machine=Machine(threads=task.threads, device=task.device),
            final=False,
        )
    except DivergedError as error:
        reporter.end("diverged", str(error))
    except TwotowerError as error:
        reporter.end("failed", str(error))
    else:
        reporter.end("complete")


@functools.lru_cache(maxsize=1)
def open_prepared(location: str) -> Prepared:
    """The prepared dataset, opened once a process: trials that follow each other share it."""
    return Prepared.open(Store(location))
