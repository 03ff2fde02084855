"""The training loop, the same under Ray Train and without it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from twotower.core.errors import RunError, StoppedError
from twotower.data.reader import BatchReader
from twotower.objectives.group import Group
from twotower.training.evaluate import Evaluator
from twotower.training.meters import Meter
from twotower.training.progress import Best, Progress
from twotower.training.state import TrainState
from twotower.training.step import train_step

Line = dict[str, Any]
"""One line of metrics.jsonl: `kind` (train or validation), `step` (done), `epoch` and values."""


class Hooks(Protocol):
    """How the loop reaches the outside. Every rank calls each method at the same steps."""

    def save(self, state: TrainState, progress: Progress) -> None:
        """Keep everything that a resumed run needs; it may be written while training goes on."""
        ...

    def wait(self) -> None:
        """Return when all that was saved is safe; raises what went wrong with it."""
        ...

    def log(self, line: Line) -> None:
        """Keep a line, and show it to whoever watches. Times in it are this rank's own."""
        ...

    def stop_requested(self) -> bool:
        """Whether this rank has heard that the run should stop."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """What the loop works with beside its state."""

    reader: BatchReader
    evaluator: Evaluator
    group: Group
    hooks: Hooks
    stop_every: int = 10
    """Steps between looks for a stop: with several workers each is a small all-reduce."""


def fit(state: TrainState, progress: Progress, job: Job) -> None:
    """Train from where the state stands to the last epoch, or until patience runs out.

    Every branch depends on values that are equal on all ranks (steps, global losses, gathered
    metrics, the agreed stop), so no rank waits for one that went another way. Checkpoints inside
    an epoch lie before its last step; after that step comes the validation, then the checkpoint.

    Raises:
        StoppedError: the run was asked to stop; a checkpoint of this very step stands.
        RunError: a loss was not finite; the step is named and no such state was saved.
    """
    train, per_epoch = state.config.train, job.reader.steps_per_epoch
    meter = Meter()
    while not is_finished(state, progress):
        first_step = state.step - state.epoch * per_epoch
        batches = job.reader.batches(state.epoch, first_step)
        for batch in meter.timed(batches, "data_wait"):
            logs = (state.step + 1) % train.log_every == 0
            with meter.time("step"):
                losses = train_step(state, batch, job.group, detail=logs)
            progress.window.add(losses, batch.step)
            meter.add_step(int(np.count_nonzero(batch.weight)) * job.group.size)
            if logs:
                with meter.time("step"):
                    means = progress.window.close()
                job.hooks.log(_line("train", state, per_epoch, means | _rates(meter)))
            if state.step % per_epoch == 0:
                continue
            if state.step % job.stop_every == 0 and _stop_agreed(job):
                _stop(state, progress, job)
            if state.step % train.checkpoint_every == 0:
                job.hooks.save(state, progress)
        state.epoch += 1
        validates = state.epoch % train.validate_every == 0 or state.epoch == train.num_epochs
        if validates:
            _validate(state, progress, job)
        if not is_finished(state, progress) and _stop_agreed(job):
            _stop(state, progress, job)
        if validates or state.step % train.checkpoint_every == 0:
            job.hooks.save(state, progress)
    job.hooks.wait()


def is_finished(state: TrainState, progress: Progress) -> bool:
    """Whether all epochs are done or patience has run out."""
    train = state.config.train
    return state.epoch >= train.num_epochs or 0 < train.patience <= progress.stale


def _validate(state: TrainState, progress: Progress, job: Job) -> None:
    progress.window.check()
    values = job.evaluator.values(state.model, "validation")
    select = state.config.eval.select
    value = values[select]
    if value is None:
        raise RunError(f"eval.select: {select} is undefined, no validation query has a true item")
    if not state.model.store.is_warming:  # what is served later is another model
        progress.observe(Best(state.step, state.epoch, select, value))
    job.hooks.log(_line("validation", state, job.reader.steps_per_epoch, values))


def _line(kind: str, state: TrainState, per_epoch: int, values: Mapping[str, Any]) -> Line:
    epoch = round(state.step / per_epoch, 4)
    return {"kind": kind, "step": state.step, "epoch": epoch, **values}


def _rates(meter: Meter) -> dict[str, float]:
    """Times since the last line, and rows per second of training alone: no validation, no save."""
    found = meter.summary()
    waited, stepped = found["data_wait_s"], found["step_s"]
    rows = found["rows_per_s"] * found["wall_s"]
    return {"data_wait_s": waited, "step_s": stepped, "rows_per_s": rows / (waited + stepped)}


def _stop_agreed(job: Job) -> bool:
    """Whether any rank heard of a stop; all ranks get the same answer."""
    asked = float(job.hooks.stop_requested())
    return any(heard for (heard,) in job.group.exchange(asked))


def _stop(state: TrainState, progress: Progress, job: Job) -> None:
    job.hooks.save(state, progress)
    job.hooks.wait()
    raise StoppedError(f"stopped after step {state.step}; the same command goes on from there")
