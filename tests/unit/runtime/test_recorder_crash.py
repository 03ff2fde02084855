"""A crash at any call of the loop's hooks: fence, events, metrics, checkpoint and best together."""

from pathlib import Path
from typing import Any

import torch

from crash_disk import NotingDisk
from crash_trials import Note, Tried, note, scratch
from tiny_catalogue import tiny_experiment, tiny_state
from twotower.core import files
from twotower.core.errors import DataError, RunError
from twotower.core.storage import Store
from twotower.runtime.json_lines import JsonLines
from twotower.runtime.recorder import Recorder, Watch
from twotower.training.progress import Best, Progress
from twotower.training.state import TrainState

__all__ = ["note", "scratch"]


def state_of(step: int) -> TrainState:
    """A state that can be told by its step."""
    state = tiny_state(tiny_experiment(), dtype=torch.float32)
    state.step = step
    state.model.store.weight.fill_(step)
    return state


def record(root: Path, disk: NotingDisk | None, steps: tuple[int, ...]) -> None:
    """One process that trains."""
    files._durable.clear()
    recorder = Recorder(Store(root), Watch(), keep=1, background=False)
    recorder.restore(state_of(0), Progress())
    for step in steps:
        recorder.log({"kind": "train", "step": step})
        best = Best(step // 20 * 20, 1, "recall@10", 0.5) if step >= 20 else None
        if disk:
            disk.mark("begun", step)
        recorder.save(state_of(step), Progress(best))
        if disk:
            disk.mark("safe", step)


def found_in(folder: Path, **_: Any) -> Any:
    """The step that the next process goes on from, 0 for none, or what is wrong."""
    state, progress = state_of(0), Progress()
    recorder = Recorder(Store(folder), Watch(), keep=1, background=False)
    try:
        recorder.restore(state, progress)
        step = state.step
        if progress.best:
            recorder.restore_best(state, progress)
    except (RunError, DataError, ValueError) as error:
        return f"can't go on: {error}"
    lines = [line["step"] for line in JsonLines(Store(folder), "metrics.jsonl").lines()]
    if lines != list(range(10, step + 1, 10)):
        return f"metrics of {step} are not whole"
    is_whole = not step or bool((state.model.store.weight == state.step).all())
    return step if is_whole else f"a mix of states at {step}"


def test_a_recorder_keeps_all_it_promises(scratch: Path, note: Note) -> None:
    root = scratch / "run"
    record(root, None, (10,))
    disk = note(root)
    disk.mark("safe", 10)
    record(root, disk, (20, 30))
    tried = Tried(scratch, found_in).all_of(disk)
    assert not tried.wrong
    assert tried.points >= 8000
