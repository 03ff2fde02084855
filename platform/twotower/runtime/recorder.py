"""Everything that a run leaves while it trains: checkpoints, metrics, events, the best so far."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from twotower.core.errors import DivergedError, RunError
from twotower.core.storage import Store
from twotower.data.prepared import Prepared
from twotower.evaluation.evaluate import Evaluation
from twotower.runtime.checkpoint import Checkpoint, CheckpointStore
from twotower.runtime.results import write_evaluation
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


class JsonLines:
    """A file of JSON lines that only grows.

    On an object store, which can't append, lines are held back until `sync`.
    """

    def __init__(self, store: Store, name: str) -> None:
        """Use a file, which need not exist."""
        self._store, self._name = store, name
        self._held: list[bytes] | None = None if store.is_local else [self._read()]

    def lines(self) -> list[Line]:
        """All whole lines; a torn last one, which a kill can leave, is not there."""
        *whole, _ = self._read().split(b"\n")
        return [json.loads(line) for line in whole]

    def append(self, line: Line) -> None:
        """Add a line; others see it at once on a local disk."""
        data = (json.dumps(line, allow_nan=False, ensure_ascii=False) + "\n").encode()
        if self._held is not None:
            self._held.append(data)
            return
        path = self._store.local_path(self._name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as stream:
            stream.write(data)

    def sync(self) -> None:
        """Make all lines durable."""
        if self._held is not None:
            self._store.write_bytes(self._name, b"".join(self._held))
        elif self._store.exists(self._name):
            with self._store.local_path(self._name).open("ab") as stream:
                os.fsync(stream.fileno())

    def keep(self, wanted: Callable[[Line], bool]) -> None:
        """Drop the lines that are not wanted, and a torn end."""
        kept = [line for line in self.lines() if wanted(line)]
        texts = [json.dumps(line, allow_nan=False, ensure_ascii=False) + "\n" for line in kept]
        data = "".join(texts).encode()
        if data != self._read():
            self._store.write_bytes(self._name, data)
        if self._held is not None:
            self._held = [data]

    def _read(self) -> bytes:
        return self._store.read_bytes(self._name) if self._store.exists(self._name) else b""


@dataclass(frozen=True, slots=True)
class Watch:
    """How a launcher watches a run and ends it."""

    on_line: Callable[[Line], None] | None = None
    """Called on every rank with every line of metrics; what it raises ends the run."""

    should_stop: Callable[[], bool] | None = None
    """Whether this rank has heard that the run should stop; asked every few steps."""


class Recorder:
    """The loop's hooks over a run directory, or over none. Only rank 0 writes."""

    def __init__(self, store: Store | None, watch: Watch, *, keep: int, rank: int = 0) -> None:
        """Record into a directory.

        Args:
            store: the run directory; None keeps nothing, and nothing can be resumed.
            watch: the launcher's callbacks.
            keep: newest checkpoints kept, beside the best.
            rank: this worker.
        """
        self._store, self._watch = store, watch
        self._writes = store is not None and rank == 0
        self._checkpoints = CheckpointStore(store.child(CHECKPOINTS), keep) if store else None
        self._metrics = JsonLines(store, METRICS) if store else None
        self._events = JsonLines(store, EVENTS) if store else None

    def restore(self, state: TrainState, progress: Progress) -> bool:
        """Go back to the newest whole checkpoint, metrics included; whether there was one."""
        if self._checkpoints is None:
            return False
        found, broken = self._checkpoints.newest()
        for line in broken:
            self.event("skipped", message=line)
        if self._writes and self._metrics:
            step = found.step if found else 0
            self._metrics.keep(lambda line: line["step"] <= step)
        if found is None:
            return False
        self._load(found, state)
        progress.load(found.document, state.model.device)
        self._write_best(progress)
        return True

    def restore_best(self, state: TrainState, progress: Progress) -> None:
        """Take the model of the best checkpoint.

        Raises:
            RunError: the run keeps checkpoints and has no best one, or it is damaged.
        """
        if self._checkpoints is None:
            return
        if progress.best is None:
            raise RunError("the run has no validation yet, and so no best checkpoint")
        self._load(self._checkpoints.load(progress.best.step), state)

    def save(self, state: TrainState, progress: Progress) -> None:
        """Commit a checkpoint of the state and make the metrics up to it durable."""
        document = progress.document()  # on every rank: it refuses a loss that is not finite
        _check_finite(state)
        if not self._writes or self._checkpoints is None or self._metrics is None:
            return
        self._metrics.sync()
        document |= {"step": state.step, "epoch": state.epoch}
        self._checkpoints.save(state.step, state.state_tensors(), document)
        self._write_best(progress)

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
        """Append that a rank failed, and of what. Any rank: appending a line is one write."""
        if self._store and self._events and (self._writes or self._store.is_local):
            message = f"{type(error).__name__}: {error}"[:_LONGEST_MESSAGE]
            self._events.append({"event": "failed", "rank": rank, "message": message})

    def evaluated(
        self, part: EvalPart, found: Evaluation, asked: Questions, prepared: Prepared
    ) -> None:
        """Write an evaluation and what was asked."""
        if self._writes and self._store:
            write_evaluation(self._store, part, found, asked, prepared)

    def stop_requested(self) -> bool:
        """Whether this rank has heard that the run should stop."""
        return self._watch.should_stop is not None and self._watch.should_stop()

    def _write_best(self, progress: Progress) -> None:
        if self._writes and self._store and progress.best:
            best = asdict(progress.best)
            if not self._store.exists(BEST) or self._store.read_json(BEST) != best:
                self._store.write_json(BEST, best)

    def _load(self, checkpoint: Checkpoint, state: TrainState) -> None:
        state.load_state_tensors(checkpoint.tensors)
        state.step, state.epoch = checkpoint.step, checkpoint.document["epoch"]


def _check_finite(state: TrainState) -> None:
    """Refuse a state whose last update broke the weights: a run resumed from it never recovers."""
    broken = [n for n, p in state.model.state_dict().items() if not bool(torch.isfinite(p).all())]
    if broken:
        raise DivergedError(
            f"step {state.step}: {broken[0]} is not finite after the update; lower "
            "train.learning_rate or set train.clip_norm"
        )
