"""Everything that a run leaves while it trains: checkpoints, metrics, events, the best so far."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from twotower.core.errors import DivergedError, RunError
from twotower.core.lease import Fence
from twotower.core.storage import Store, dump_json
from twotower.data.prepared import Prepared
from twotower.evaluation.evaluate import Evaluation
from twotower.models.two_tower import TwoTower
from twotower.runtime.checkpoint import Checkpoint, CheckpointStore, directory_name
from twotower.runtime.checkpoint_writer import CheckpointWriter, Written
from twotower.runtime.json_lines import JsonLines
from twotower.runtime.results import write_evaluation, write_sizes
from twotower.training.loop import Line
from twotower.training.progress import Progress
from twotower.training.questions import EvalPart, Questions
from twotower.training.state import TrainState

METRICS = "metrics.jsonl"
EVENTS = "events.jsonl"
BEST = "best.json"
CHECKPOINTS = "checkpoints"

_LONGEST_MESSAGE = 2000
"""Characters kept of an error: a line stays one write."""


@dataclass(frozen=True, slots=True)
class Watch:
    """How a launcher watches a run and ends it."""

    on_line: Callable[[Line], None] | None = None
    """Called on every rank with every line of metrics; what it raises ends the run."""

    should_stop: Callable[[], bool] | None = None
    """Whether this rank has heard that the run should stop; asked every few steps."""


class Recorder:
    """The loop's hooks over a run directory, or over none. Only rank 0 writes.

    Checkpoints are written beside training: `wait` before relying on one. A context manager, which
    ends only when the last one is written.
    """

    def __init__(
        self,
        store: Store | None,
        watch: Watch,
        *,
        keep: int,
        rank: int = 0,
        background: bool = True,
    ) -> None:
        """Record into a directory.

        Args:
            store: the run directory; None keeps nothing, and nothing can be resumed.
            watch: the launcher's callbacks.
            keep: newest checkpoints kept, beside the best.
            rank: this worker.
            background: write checkpoints beside training; false makes `save` wait for the disk.
        """
        self._store, self._watch = store, watch
        self._writes = store is not None and rank == 0
        self._metrics = JsonLines(store, METRICS) if store else None
        self._events = JsonLines(store, EVENTS) if store else None
        self._fence = Fence(store) if store else None
        self._checkpoints = None
        self._writer = None
        if store and self._metrics and self._fence:
            folder = store.child(CHECKPOINTS)
            self._checkpoints = CheckpointStore(folder, keep, self._fence.check)
            if self._writes:
                self._writer = CheckpointWriter(
                    self._checkpoints,
                    before=self._metrics.sync,
                    after=self._committed,
                    background=background,
                )

    def __enter__(self) -> "Recorder":
        """Nothing is touched before `restore`."""
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Wait for the last checkpoint; its failure is raised, or noted on ``error``."""
        try:
            self.close()
        except Exception as late:
            if error is None:
                raise
            error.add_note(f"besides, the last checkpoint: {late}")

    def restore(self, state: TrainState, progress: Progress) -> bool:
        """Take the directory over and go back to the newest whole checkpoint, metrics included.

        What is not gone back to, and why, is written to the events.

        Returns:
            Whether there was a checkpoint.

        Raises:
            RunError: there are checkpoints, and none is whole.
        """
        if self._checkpoints is None:
            return False
        if self._writes and self._fence:
            self._fence.take()
            for name in self._checkpoints.take_over():
                self._skip(f"{CHECKPOINTS}/{name}: left by a process that died; deleted")
        found, skipped = self._checkpoints.newest()
        step = found.step if found else 0
        for line in skipped:
            self._skip(line)
        if self._writes and self._metrics:
            self._say_lost(step)
            if broken := self._metrics.keep(lambda line: line["step"] <= step):
                self._skip(f"{METRICS}: {broken} lines were no JSON; deleted")
        if found is None:
            return False
        self._load(found, state)
        progress.load(found.document, state.model.device)
        if self._writes:
            self._write_best(found.document)
        return True

    def restore_best(self, state: TrainState, progress: Progress) -> None:
        """Take the model of the best checkpoint.

        Raises:
            RunError: the run keeps checkpoints and has no best one, or it is damaged.
        """
        if self._checkpoints is None:
            return
        self.wait()
        if progress.best is None:
            raise RunError("the run has no validation yet, and so no best checkpoint")
        self._load(self._checkpoints.load(progress.best.step), state)

    def save(self, state: TrainState, progress: Progress) -> None:
        """Have a checkpoint of the state written; the metrics up to it become durable before it.

        Raises:
            DivergedError: a weight is not finite; on every rank alike.
            RunError: the checkpoint before this one could not be written.
        """
        document = progress.document()  # on every rank: it refuses a loss that is not finite
        _check_finite(state)
        if self._writer is None:
            return
        document |= {"step": state.step, "epoch": state.epoch}
        self._writer.save(state.step, state.state_tensors(), document)

    def wait(self) -> None:
        """Wait until every checkpoint is committed; raises what went wrong with one."""
        if self._writer is not None:
            self._writer.wait()

    def close(self) -> None:
        """`wait` for the last time."""
        if self._writer is not None:
            self._writer.close()

    def log(self, line: Line) -> None:
        """Append a line of metrics and pass it on."""
        if self._writes and self._metrics:
            self._metrics.append(line)
        if self._watch.on_line:
            self._watch.on_line(line)

    def event(self, event: str, **details: Any) -> None:
        """Append a line of events, with the time (seconds since 1970)."""
        if self._writes and self._events:
            self._events.append({"event": event, "time": round(time.time(), 3), **details})
            self._events.sync()

    def failed(self, rank: int, error: BaseException) -> None:
        """Append that a rank failed, and of what; any rank. The last checkpoint is waited for."""
        errors = [error]
        try:
            self.wait()
        except Exception as late:  # noqa: BLE001 - told like the first
            errors.append(late)
        if self._store and self._events and (self._writes or self._store.is_local):
            for one in errors:
                said = [f"{type(one).__name__}: {one}", *getattr(one, "__notes__", [])]
                line = {"event": "failed", "time": round(time.time(), 3), "rank": rank}
                self._events.append({**line, "message": "; ".join(said)[:_LONGEST_MESSAGE]})

    def evaluated(
        self, part: EvalPart, found: Evaluation, asked: Questions, prepared: Prepared
    ) -> None:
        """Write an evaluation and what was asked."""
        if self._writes and self._store:
            write_evaluation(self._store, part, found, asked, prepared)

    def sized(self, model: TwoTower) -> None:
        """Write the bytes that the evaluated model is served with."""
        if self._writes and self._store:
            write_sizes(self._store, model)

    def stop_requested(self) -> bool:
        """Whether this rank has heard that the run should stop."""
        return self._watch.should_stop is not None and self._watch.should_stop()

    def _committed(self, written: Written, document: Mapping[str, Any]) -> None:
        """Called in the writer's thread."""
        self._write_best(document)
        if self._events:
            line = {"event": "checkpoint", "time": round(time.time(), 3), **asdict(written)}
            self._events.append(line)

    def _skip(self, message: str) -> None:
        self.event("skipped", message=message)

    def _say_lost(self, found: int) -> None:
        """Say where the last checkpoint that the events know is gone, directory and all."""
        if self._store is None or self._events is None:
            return
        known = [e["step"] for e in self._events.lines() if e["event"] in ("checkpoint", "start")]
        name = f"{CHECKPOINTS}/{directory_name(known[-1] if known else 0)}"
        if known and known[-1] > found and not self._store.exists(name):
            where = f"{self._store.uri}/{name}"
            self._skip(f"{where}: was committed and is gone; going on from step {found}")

    def _write_best(self, document: Mapping[str, Any]) -> None:
        best = document["best"]
        if self._store and best:
            text = dump_json(best)
            if not self._store.exists(BEST) or self._store.read_bytes(BEST) != text:
                self._store.write_bytes(BEST, text)

    def _load(self, checkpoint: Checkpoint, state: TrainState) -> None:
        state.load_state_tensors(checkpoint.tensors)
        state.step, state.epoch = checkpoint.step, checkpoint.document["epoch"]


def _check_finite(state: TrainState) -> None:
    """Refuse a state whose last update broke the weights: a run resumed from it never recovers."""
    for name, value in state.model.state_dict().items():
        # A sum is one pass without memory. It may overflow where no weight is infinite.
        if not bool(torch.isfinite(value.sum())) and not bool(torch.isfinite(value).all()):
            raise DivergedError(
                f"step {state.step}: {name} is not finite after the update; lower "
                "train.learning_rate or set train.clip_norm"
            )
