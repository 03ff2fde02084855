"""Checkpoints that are written while training goes on."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from functools import partial
from typing import Any

from twotower.core.files import Data
from twotower.runtime.checkpoint import CheckpointStore
from twotower.runtime.snapshot import Snapshot, Tensors


@dataclass(frozen=True, slots=True)
class Written:
    """What a checkpoint cost."""

    step: int
    megabytes: float
    waited_s: float
    """The training thread waited for the checkpoint before this one."""

    copied_s: float
    """The training thread copied the state; with `waited_s` all that it lost."""

    written_s: float
    """The writer hashed, wrote, synced and pruned, beside training."""

    cpu_s: float
    """CPU time of the writer."""


class CheckpointWriter:
    """Writes the checkpoints of a run, one at a time.

    `save` costs its caller a copy of the state, and the wait for the checkpoint before if that is
    still being written. What goes wrong in between is raised by the next `save`, or by `wait`.
    """

    def __init__(
        self,
        checkpoints: CheckpointStore,
        *,
        before: Callable[[], object],
        after: Callable[[Written, Mapping[str, Any]], object],
        background: bool = True,
    ) -> None:
        """Prepare to write.

        Args:
            checkpoints: where.
            before: called by the writer first: makes durable what a checkpoint relies on.
            after: called by the writer when a checkpoint is committed, with its document.
            background: false writes in the caller's thread.
        """
        self._checkpoints, self._before, self._after = checkpoints, before, after
        self._snapshot = Snapshot()
        # One thread; an interpreter that ends waits for it.
        self._pool = ThreadPoolExecutor(1, "checkpoint") if background else None
        self._pending: Future[None] | None = None

    def save(self, step: int, tensors: Tensors, document: Mapping[str, Any]) -> None:
        """Copy a state and have it written.

        Args:
            step: steps done.
            tensors: parts of the state, live; they may change once this returns.
            document: the JSON part of the state.

        Raises:
            RunError: the checkpoint before this one could not be written; this one is not tried.
        """
        began = time.perf_counter()
        self.wait()
        waited = time.perf_counter()
        files = self._snapshot.take(tensors, document)
        copied = time.perf_counter()
        cost = partial(
            Written,
            step,
            round(sum(len(data) for data in files.values()) / 1e6, 3),
            round(waited - began, 4),
            round(copied - waited, 4),
        )
        if self._pool is None:
            self._write(step, files, document, cost)
        else:
            self._pending = self._pool.submit(self._write, step, files, document, cost)

    def wait(self) -> None:
        """Wait until everything is committed; raises what went wrong with it."""
        if self._pending is None:
            return
        wait_for([self._pending])  # Ctrl-C ends the wait, not the writing
        pending, self._pending = self._pending, None
        pending.result()

    def close(self) -> None:
        """Wait, then end the thread; raises what went wrong with the last checkpoint."""
        try:
            self.wait()
        finally:
            if self._pool is not None:
                self._pool.shutdown()

    def _write(
        self,
        step: int,
        files: Mapping[str, Data],
        document: Mapping[str, Any],
        cost: Callable[[float, float], Written],
    ) -> None:
        began, cpu = time.perf_counter(), time.thread_time()
        self._snapshot.wait()
        self._before()
        self._checkpoints.save(step, files)
        written = cost(round(time.perf_counter() - began, 4), round(time.thread_time() - cpu, 4))
        self._after(written, document)
