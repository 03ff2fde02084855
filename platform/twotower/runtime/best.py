"""The best checkpoint of a run as a model, for what reads a run after training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from twotower.core.config import ExperimentConfig
from twotower.core.errors import InputError
from twotower.core.storage import Store
from twotower.data.order import steps_per_epoch
from twotower.data.prepared import Prepared
from twotower.models.two_tower import TwoTower
from twotower.runtime.checkpoint import CheckpointStore
from twotower.runtime.recorder import BEST, CHECKPOINTS
from twotower.runtime.run_folder import RECORD, data_identity, read_config
from twotower.runtime.session import build_state


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
        config, prepared = self.config, self.prepared
        per_epoch = steps_per_epoch(prepared.num_train, prepared.lanes, config.train.batch_size)
        state = build_state(config, prepared, per_epoch, torch.device(device))
        state.load_state_tensors(checkpoint.tensors)
        return state.model


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
    return Run(store, read_config(store), record, prepared, int(store.read_json(BEST)["step"]))
