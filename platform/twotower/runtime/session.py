"""One run from a config to its evaluations: what both launchers do, with Ray and without."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from twotower.core.config import ExperimentConfig
from twotower.core.errors import ConfigError, RunError
from twotower.data.prepared import Prepared
from twotower.data.reader import BatchReader
from twotower.evaluation.evaluate import Evaluation
from twotower.kernels.memory import keep_freed_memory
from twotower.objectives.group import SINGLE, Group
from twotower.runtime.fault import Injector
from twotower.runtime.recorder import Recorder
from twotower.training.evaluate import Evaluator
from twotower.training.inputs import batch_reader, require_trainable, total_steps, train_inputs
from twotower.training.loop import Job, fit
from twotower.training.progress import Best, Progress
from twotower.training.questions import EvalPart
from twotower.training.state import TrainState

_STOP_EVERY_CPU = 10
"""Steps between looks for a stop on CPUs: there an exchange of one number costs nothing beside a
step. On a GPU it waits for the device, so it is done where a line is logged anyway."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rank works."""

    device: torch.device
    group: Group = SINGLE


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished run leaves in memory; equal on all ranks."""

    state: TrainState
    """Of the best checkpoint where the run keeps any, else of the last step."""

    last_step: int
    best: Best | None
    evaluations: dict[EvalPart, Evaluation]


def run_session(
    config: ExperimentConfig,
    prepared: Prepared,
    recorder: Recorder,
    place: Place,
    parts: tuple[EvalPart, ...] = ("validation", "test"),
    faults: Injector | None = None,
) -> Outcome:
    """Train from the newest checkpoint on, then evaluate the best one. All ranks call it.

    Args:
        config: the experiment.
        prepared: its dataset.
        recorder: the run directory, or none.
        place: this rank's device and group.
        parts: what is evaluated at the end, each once.
        faults: what `config.fault` plans, of `fault.injector`.

    Raises:
        StoppedError: the recorder heard of a stop; a checkpoint stands.
        RunError: training failed; DivergedError where its numbers left the finite ones;
            UnfiredError where a planned failure never happened.
    """
    keep_freed_memory()
    with recorder:
        return _run(config, prepared, recorder, place, parts, faults)


def _run(
    config: ExperimentConfig,
    prepared: Prepared,
    recorder: Recorder,
    place: Place,
    parts: tuple[EvalPart, ...],
    faults: Injector | None,
) -> Outcome:
    require_trainable(config, prepared)
    reader, training, evaluation = _instruments(config, prepared, place.group, faults)
    state = build_state(config, prepared, place.device)
    progress = Progress()
    evaluator = Evaluator(config, prepared, evaluation)
    evaluator.questions("validation")  # a dataset that can't be asked fails before the first step
    recorder.restore(state, progress)
    if faults:
        faults.resumed(state.step)
    pids = [int(pid) for (pid,) in place.group.exchange(float(os.getpid()))]
    recorder.event("start", step=state.step, threads=torch.get_num_threads(), pids=pids)
    _check_agreed(state.step, place.group)
    is_cpu = place.device.type == "cpu"
    job = Job(
        reader,
        evaluator,
        training,
        recorder,
        stop_every=_STOP_EVERY_CPU if is_cpu else config.train.log_every,
    )
    with _saying(state):
        fit(state, progress, job)
    last_step = state.step
    if parts:
        recorder.event("evaluate", step=last_step)
        place.group.exchange(0.0)  # rank 0 may just have written what the others read
        recorder.restore_best(state, progress)
    found: dict[EvalPart, Evaluation] = {}
    for part in parts:
        found[part] = evaluator.evaluate(state.model, part, checkpoint=state.step)
        recorder.evaluated(part, found[part], evaluator.questions(part), prepared)
    if parts:
        recorder.sized(state.model)
    if faults:
        faults.finish(place.group)
    return Outcome(state, last_step, progress.best, found)


@contextmanager
def _saying(state: TrainState) -> Iterator[None]:
    """Note on any error how far training was."""
    try:
        yield
    except Exception as error:
        error.add_note(f"{state.step} steps were done")
        raise


def _instruments(
    config: ExperimentConfig, prepared: Prepared, group: Group, faults: Injector | None
) -> tuple[BatchReader, Group, Group]:
    """The reader, the group of training and that of evaluation, where planned with failures."""
    reader = batch_reader(config, prepared, group)
    if faults:
        faults.begin(group, reader.steps_per_epoch)
        return faults.watch(reader, group)
    if config.fault.plan:
        raise ConfigError("fault.plan: only a run with a directory of its own can be made to fail")
    return reader, group, group


def build_state(config: ExperimentConfig, prepared: Prepared, device: torch.device) -> TrainState:
    """A fresh state of a config over a dataset."""
    inputs, steps = train_inputs(config, prepared), total_steps(config, prepared)
    return TrainState.build(config, inputs, total_steps=steps, device=device)


def describe(outcome: Outcome) -> dict[str, Any]:
    """The outcome as JSON: last step, best validation, values of the evaluations."""
    best = outcome.best
    return {
        "step": outcome.last_step,
        "best": best and {"step": best.step, "epoch": best.epoch, "value": best.value},
        "summaries": {
            part: {name: dict(value) for name, value in found.summary.items()}
            for part, found in outcome.evaluations.items()
        },
    }


def _check_agreed(step: int, group: Group) -> None:
    """Ranks read checkpoints for themselves: RunError where their storage shows different ones."""
    steps = [int(found) for (found,) in group.exchange(float(step))]
    if len(set(steps)) > 1:
        raise RunError(
            f"workers found different checkpoints (steps {steps}): storage.runs must be one "
            "folder that all nodes share"
        )
