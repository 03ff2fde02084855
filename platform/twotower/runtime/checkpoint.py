"""Checkpoints of a run: safetensors and JSON, the same for any number of workers.

    checkpoints/step-00000400/{model,optimizer}.safetensors  state.json  manifest.json (last)

A directory without a valid manifest does not exist; the newest that is whole counts.
Order is by step, never by time.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
from torch import Tensor

from twotower.core.errors import DataError, RunError
from twotower.core.storage import MANIFEST, Store, commit, dump_json, load_commit

Tensors = Mapping[str, Mapping[str, Tensor]]

_NAME = re.compile(r"step-(\d{8,})")
_STATE = "state.json"
_SUFFIX = ".safetensors"


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

    def __init__(self, store: Store, keep: int) -> None:
        """Use a directory, which need not exist.

        Args:
            store: the directory.
            keep: newest checkpoints that are kept; the best that each of them knows is kept too.
        """
        self._store, self._keep = store, keep

    def save(self, step: int, tensors: Tensors, document: Mapping[str, Any]) -> None:
        """Commit a checkpoint, then delete those that are no longer wanted.

        A directory of that step can only be a broken one, or the same state written before: a step
        is reached once, and again only after its checkpoint was found broken.
        """
        files = {
            f"{part}{_SUFFIX}": safetensors.torch.save(_contiguous(named))
            for part, named in tensors.items()
        }
        files[_STATE] = dump_json(dict(document))
        commit(self._store.child(_name(step)), files, step=step)
        self._prune()

    def load(self, step: int) -> Checkpoint:
        """The checkpoint of a step; DataError if it is missing or damaged, naming the file."""
        manifest, files = load_commit(self._store.child(_name(step)))
        if manifest["step"] != step:
            raise DataError(f"{self._store.uri}/{_name(step)}: is of step {manifest['step']}")
        tensors = {
            name.removesuffix(_SUFFIX): safetensors.torch.load(data)
            for name, data in files.items()
            if name.endswith(_SUFFIX)
        }
        return Checkpoint(step, tensors, json.loads(files[_STATE]))

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest whole checkpoint, and one line for each newer one that is broken.

        Raises:
            RunError: there are checkpoints and none of them is whole: starting again from nothing
                would hide the loss.
        """
        broken: list[str] = []
        for step in reversed(self.steps()):
            try:
                return self.load(step), broken
            except DataError as error:
                broken.append(f"{error}; falling back to an older checkpoint")
        if broken:
            raise RunError(
                f"{self._store.uri}: no checkpoint is whole ({broken[0].partition(';')[0]}); "
                "delete the folder to start the run again"
            )
        return None, broken

    def steps(self) -> list[int]:
        """Steps of all committed checkpoints, whole or damaged, rising."""
        names = (_NAME.fullmatch(name) for name in self._store.list())
        steps = [int(match[1]) for match in names if match]
        return sorted(step for step in steps if self._store.exists(f"{_name(step)}/{MANIFEST}"))

    def _prune(self) -> None:
        steps = self.steps()
        kept = set(steps[-self._keep :])
        for step in sorted(kept):
            try:
                best = self._store.read_json(f"{_name(step)}/{_STATE}").get("best")
            except DataError:
                continue  # damaged: `newest` will say so, deleting on its word would be worse
            if best is not None:
                kept.add(best["step"])
        names = [name for name in self._store.list() if _NAME.fullmatch(name)]
        for name in names:
            if name not in {_name(step) for step in kept}:
                self._store.delete(name)


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _contiguous(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}
