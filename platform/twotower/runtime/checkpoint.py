"""Checkpoints of a run: safetensors and JSON, the same for any number of workers.

    checkpoints/step-00000400/{model,optimizer}.safetensors  state.json  manifest.json (last)

A directory without a valid manifest does not exist; the newest that is whole counts.
Order is by step, never by time.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
from torch import Tensor

from twotower.core.errors import DataError, RunError
from twotower.core.files import Data
from twotower.core.storage import MANIFEST, Store, commit, load_commit
from twotower.runtime.snapshot import STATE, TENSORS

_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A whole checkpoint, read and checked."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
    """Parts of the state by name (`model`, `optimizer`), on the CPU."""

    document: dict[str, Any]
    """The JSON part of the state; holds `best`, the step of the best checkpoint so far or None."""


class CheckpointStore:
    """The checkpoints of one run, in one directory. One process writes, any may read."""

    def __init__(self, store: Store, keep: int, check: Callable[[], object] | None = None) -> None:
        """Use a directory, which need not exist.

        Args:
            store: the directory.
            keep: newest checkpoints that are kept; the best that each of them knows is kept too.
            check: called before anything is written and before anything is deleted; raises where
                another writer has taken the run over.
        """
        self._store, self._keep = store, keep
        self._check = check or (lambda: None)

    def take_over(self) -> tuple[str, ...]:
        """Begin to write where another process may have been killed.

        What it left in the making is deleted. What it committed is made durable: it may have been
        killed after the rename and before the sync, and checkpoints to come will rely on it.

        Returns:
            Names of the files that were deleted.
        """
        swept = self._store.sweep()
        if self._store.exists():
            for name in self._directories().values():
                self._store.sync(name)
            self._store.sync()
        return swept

    def save(self, step: int, files: Mapping[str, Data]) -> None:
        """Commit a checkpoint, then delete those that are no longer wanted.

        A whole checkpoint of the step is left as it is: a step is reached once, so it is this
        state, and to write it again would put it at risk.

        Args:
            step: steps done.
            files: of `Snapshot.take`.

        Raises:
            RunError: the storage can't be written to; what was committed before still stands.
        """
        self._check()
        name = directory_name(step)
        if not self._is_whole(step):
            commit(self._store.child(name), files, step=step)
        self._prune(step)

    def load(self, step: int) -> Checkpoint:
        """The checkpoint of a step; DataError if it is missing or damaged, naming the file."""
        manifest, files = load_commit(self._store.child(directory_name(step)))
        if manifest.get("step") != step or STATE not in files:
            where = f"{self._store.uri}/{directory_name(step)}/{MANIFEST}"
            raise DataError(f"{where}: is of step {manifest.get('step')}")
        tensors = {
            name.removesuffix(TENSORS): safetensors.torch.load(data)
            for name, data in files.items()
            if name.endswith(TENSORS)
        }
        return Checkpoint(step, tensors, json.loads(files[STATE]))

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest whole checkpoint, and one line for each newer one that doesn't count, and why.

        Raises:
            RunError: there are checkpoints and none of them is whole: starting again from nothing
                would hide the loss.
        """
        skipped: list[str] = []
        damaged: list[DataError] = []
        committed = self.steps()
        for step in sorted(self._directories(), reverse=True):
            if step not in committed:
                where = f"{self._store.uri}/{directory_name(step)}"
                skipped.append(f"{where}: was never committed (no {MANIFEST}); skipped")
                continue
            try:
                return self.load(step), skipped
            except DataError as error:
                damaged.append(error)
                skipped.append(f"{error}; falling back to an older checkpoint")
        if damaged:
            raise RunError(
                f"{self._store.uri}: no checkpoint is whole ({damaged[0]}); "
                "delete the folder to start the run again"
            )
        return None, skipped

    def steps(self) -> list[int]:
        """Steps of all committed checkpoints, whole or damaged, rising."""
        names = self._directories().items()
        return sorted(step for step, name in names if self._store.exists(f"{name}/{MANIFEST}"))

    def _directories(self) -> dict[int, str]:
        """Names by step, also of what was never committed."""
        names = (_NAME.fullmatch(name) for name in self._store.list())
        found = {int(match[1]): match[0] for match in names if match}
        return {step: name for step, name in found.items() if name == directory_name(step)}

    def _is_whole(self, step: int) -> bool:
        try:
            self.load(step)
        except DataError:
            return False
        return True

    def _prune(self, newest: int) -> None:
        """Delete all but the newest checkpoints and their best ones.

        Those of later steps go too. They are damaged, else the run had gone on from them; counted
        as the newest they would push out the whole ones.
        """
        kept = {step for step in self.steps() if step <= newest}
        kept = set(sorted(kept)[-self._keep :])
        kept |= {best for step in sorted(kept) if (best := self._best_of(step)) is not None}
        unwanted = [name for step, name in self._directories().items() if step not in kept]
        self._check()  # after the look: what another writer commits from here on is not in it
        for name in unwanted:
            self._store.delete(name)

    def _best_of(self, step: int) -> int | None:
        """Step of the best checkpoint that one knows; None too where that can't be read."""
        try:
            best = self._store.read_json(f"{directory_name(step)}/{STATE}")["best"]
            return best and int(best["step"])
        except (DataError, LookupError, TypeError, ValueError):
            return None  # damaged: `newest` will say so, deleting on its word would be worse


def directory_name(step: int) -> str:
    """Name of the checkpoint of a step inside the directory of checkpoints."""
    return f"step-{step:08d}"
