"""The best checkpoint of a run as a model, for what reads a run after training."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from twotower.core.config import ExperimentConfig
from twotower.core.errors import DataError, InputError
from twotower.core.storage import MANIFEST, Store
from twotower.data.prepared import Prepared
from twotower.models.two_tower import TwoTower
from twotower.runtime.checkpoint import CheckpointStore, directory_name
from twotower.runtime.recorder import BEST, CHECKPOINTS
from twotower.runtime.run_folder import RECORD, data_identity, read_config
from twotower.runtime.session import build_state

_TRIES = 3
"""Best checkpoints that are tried where each is replaced before it is read. Chosen, not tuned: a
checkpoint is read in less time than a better one takes to train."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run that has a best checkpoint, and the data that it was trained on."""

    store: Store
    config: ExperimentConfig
    record: dict[str, Any]
    prepared: Prepared
    step: int
    """Of the best checkpoint."""

    def load_model(self, device: str = "cpu") -> TwoTower:
        """The model of the best checkpoint; DataError if that is damaged."""
        checkpoint = CheckpointStore(self.store.child(CHECKPOINTS), 1).load(self.step)
        state = build_state(self.config, self.prepared, torch.device(device))
        state.load_state_tensors(checkpoint.tensors)
        return state.model

    def load_best(self, device: str = "cpu") -> tuple["Run", TwoTower]:
        """The model of the best checkpoint as it is by now, and the run with its step.

        A run that still trains deletes its best checkpoint once it has a better one.

        Raises:
            DataError: the best checkpoint is damaged; or it is gone, and no other is named yet.
        """
        run = self
        for _ in range(_TRIES):
            try:
                return run, run.load_model(device)
            except DataError:
                newer = replace(run, step=_best_step(run.store))
                if newer.step == run.step:
                    if run.store.exists(f"{_folder(run.step)}/{MANIFEST}"):
                        raise  # damaged
                    break
                run = newer
        raise DataError(
            f"{run.store.uri}/{_folder(run.step)}: the best checkpoint is gone; if the run still "
            "trains, a better one is taking its place: run the same command again"
        )


def open_store(run: str | Path) -> Store:
    """The directory of a run; InputError if none stands there."""
    store = Store(run)
    if not store.exists(RECORD):
        raise InputError(f"{run}: holds no run (no {RECORD})")
    return store


def open_best(run: str | Path) -> Run:
    """Open a run.

    Raises:
        InputError: no run or no checkpoint stands there, or its data has changed.
    """
    store = open_store(run)
    if not store.exists(BEST):
        raise InputError(f"{store.uri}: has no best checkpoint yet; train it to a validation first")
    record = store.read_json(RECORD)
    prepared = Prepared.open(record["prepared"])
    if record["data"] != data_identity(prepared):
        raise InputError(
            f"{store.uri}: its prepared data {record['prepared']} has changed since it was trained"
        )
    return Run(store, read_config(store), record, prepared, _best_step(store))


def _folder(step: int) -> str:
    return f"{CHECKPOINTS}/{directory_name(step)}"


def _best_step(store: Store) -> int:
    return int(store.read_json(BEST)["step"])
