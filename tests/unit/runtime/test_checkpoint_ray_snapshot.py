"""Ray Train's own index of checkpoints, torn at every byte: what protects a run from it.

Ray Train overwrites `<storage_path>/<name>/checkpoint_manager_snapshot.json` in place after each
reported checkpoint, and whoever uses the same path and name again reads it: a torn one ends the run
(shown below). Three things keep us out of this:

1. Our workers report numbers, never a checkpoint, and Ray writes the file for checkpoints only.
2. Each attempt of a run has a name of its own under `<run>/ray`, by the number in our record.
3. `forget` deletes `<run>/ray` before the trainer is built, and again when the attempt ends; so a
   driver that was killed, or a record that was deleted by hand, leaves nothing to read.

What a resumed run starts from is our own newest whole checkpoint, which none of this touches.

Real: Ray's manager and its snapshot. Not real: no trainer runs, the manager is called as one does.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import ray.train
from ray.air.config import CheckpointConfig
from ray.train.v2._internal.exceptions import CheckpointManagerInitializationError
from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import CheckpointManager
from ray.train.v2._internal.execution.storage import StorageContext
from ray.train.v2._internal.execution.training_report import _TrainingReport

from twotower.core.storage import Store
from twotower.runtime.checkpoint import CheckpointStore
from twotower.runtime.ray_train import forget
from twotower.runtime.snapshot import Snapshot

NAME = "attempt-1"


def manager_of(run: Path) -> CheckpointManager:
    """What the trainer of the attempt builds first; it reads the snapshot if there is one."""
    return CheckpointManager(CheckpointConfig(), StorageContext(run / "ray", NAME))


def report(run: Path, *, checkpoints: int) -> Path:
    """Report some checkpoints and then some numbers, as a worker would; the snapshot's path."""

    async def reporting() -> None:
        manager = manager_of(run)
        for number in range(checkpoints):
            folder = run / "ray" / NAME / f"checkpoint-{number}"
            folder.mkdir()
            made = ray.train.Checkpoint(str(folder))
            manager.after_report(_TrainingReport(made, {"loss": 0.5}, False), [])
        manager.after_report(_TrainingReport(None, {"loss": 0.25}, False), [])
        await asyncio.sleep(0)

    asyncio.run(reporting())
    return run / "ray" / NAME / "checkpoint_manager_snapshot.json"


def test_numbers_alone_make_ray_write_no_snapshot(tmp_path: Path) -> None:
    assert not report(tmp_path, checkpoints=0).exists()
    assert report(tmp_path, checkpoints=1).exists()


def test_a_snapshot_torn_at_any_byte_is_never_read_and_costs_no_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    document: dict[str, Any] = {"best": None}
    ours = CheckpointStore(Store(run / "checkpoints"), keep=2)
    ours.save(7, Snapshot().take({"model": {}}, document))
    path = report(run, checkpoints=2)
    snapshot = path.read_bytes()
    assert len(snapshot) > 500
    refused = 0
    for cut in range(len(snapshot)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(snapshot[:cut])
        if cut % 50 == 0:
            with pytest.raises(CheckpointManagerInitializationError):
                manager_of(run)
            refused += 1
        forget(Store(run))
        assert not (run / "ray").exists()
        if cut % 50 == 0:
            assert manager_of(run).latest_checkpoint_result is None
        found, skipped = ours.newest()
        assert found is not None
        assert (found.step, skipped) == (7, [])
    assert refused > 10, "without `forget` Ray does refuse a torn snapshot"


def test_ray_refuses_a_whole_snapshot_whose_checkpoint_is_gone_and_is_made_to_forget(
    tmp_path: Path,
) -> None:
    report(tmp_path, checkpoints=2)
    (tmp_path / "ray" / NAME / "checkpoint-1").rmdir()
    with pytest.raises(CheckpointManagerInitializationError):
        manager_of(tmp_path)
    forget(Store(tmp_path))
    assert manager_of(tmp_path).latest_checkpoint_result is None
