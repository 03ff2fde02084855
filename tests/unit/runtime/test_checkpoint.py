"""Checkpoints on disk: what counts, what is fallen back from, what is kept."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from twotower.core.errors import DataError, RunError
from twotower.core.storage import Store
from twotower.runtime.checkpoint import CheckpointStore
from twotower.runtime.snapshot import Snapshot


def tensors_of(step: int) -> dict[str, dict[str, torch.Tensor]]:
    noise = torch.Generator().manual_seed(step)
    return {
        "model": {"weight": torch.randn(5, 3, generator=noise), "touched": torch.ones(5) > 0},
        "optimizer": {"sum": torch.randn(5, generator=noise), "steps": torch.tensor(step)},
    }


def save(store: CheckpointStore, step: int, best: int | None = None) -> None:
    document: dict[str, Any] = {"best": None if best is None else {"step": best}, "loss": 0.1}
    store.save(step, Snapshot().take(tensors_of(step), document))


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    store = CheckpointStore(Store(tmp_path), keep=2)
    assert store.newest() == (None, [])
    save(store, 7)
    found, broken = store.newest()
    assert found is not None
    assert not broken
    assert (found.step, found.document["loss"]) == (7, 0.1)
    for part, named in tensors_of(7).items():
        assert found.tensors[part].keys() == named.keys()
        for name, value in named.items():
            assert torch.equal(found.tensors[part][name], value)


def test_equal_states_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(CheckpointStore(Store(tmp_path / name), keep=2), 3)
    a, b = (sorted((tmp_path / name).rglob("*.*")) for name in ("a", "b"))
    assert [path.read_bytes() for path in a] == [path.read_bytes() for path in b]


@pytest.mark.parametrize(
    "file", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]
)
def test_a_flipped_byte_falls_back_to_the_one_before_and_says_so(tmp_path: Path, file: str) -> None:
    store = CheckpointStore(Store(tmp_path), keep=2)
    save(store, 10)
    save(store, 20)
    path = tmp_path / "step-00000020" / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    found, broken = store.newest()
    assert found is not None
    assert found.step == 10
    assert len(broken) == 1
    assert "step-00000020" in broken[0]
    save(store, 20)
    found, broken = store.newest()
    assert found is not None
    assert (found.step, broken) == (20, [])


@pytest.mark.parametrize("file", ["model.safetensors", "state.json"])
def test_a_missing_file_falls_back(tmp_path: Path, file: str) -> None:
    store = CheckpointStore(Store(tmp_path), keep=2)
    save(store, 10)
    save(store, 20)
    (tmp_path / "step-00000020" / file).unlink()
    found, broken = store.newest()
    assert found is not None
    assert (found.step, len(broken)) == (10, 1)


def test_a_directory_without_a_manifest_does_not_exist(tmp_path: Path) -> None:
    store = CheckpointStore(Store(tmp_path), keep=2)
    save(store, 10)
    save(store, 20)
    (tmp_path / "step-00000020" / "manifest.json").unlink()
    found, broken = store.newest()
    assert found is not None
    assert (found.step, len(broken)) == (10, 1)
    assert "step-00000020: was never committed" in broken[0]
    save(store, 30)
    assert not (tmp_path / "step-00000020").exists(), "an unfinished commit is swept"


def test_no_whole_checkpoint_is_an_error_not_a_fresh_start(tmp_path: Path) -> None:
    store = CheckpointStore(Store(tmp_path), keep=2)
    save(store, 10)
    (tmp_path / "step-00000010" / "model.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match=r"no checkpoint is whole.*delete the folder"):
        store.newest()


def test_newest_and_best_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(Store(tmp_path), keep=2)
    for step in (1, 2, 3, 4, 5):
        save(store, step, best=2 if step >= 2 else None)
    assert store.steps() == [2, 4, 5]
    save(store, 6, best=6)
    assert store.steps() == [2, 5, 6], "step 5 is still there to fall back on, and so is its best"
    save(store, 7, best=6)
    assert store.steps() == [6, 7]


def test_order_is_by_step_not_by_time_or_name(tmp_path: Path) -> None:
    store = CheckpointStore(Store(tmp_path), keep=9)
    for step in (5, 99_999_999, 100_000_000):
        save(store, step)
    for day, step in enumerate((100_000_000, 5, 99_999_999), start=-1):
        for path in (tmp_path / f"step-{step:08d}").iterdir():
            moment = time.time() + day * 86400
            os.utime(path, (moment, moment))
    found, _ = store.newest()
    assert found is not None
    assert found.step == 100_000_000


def test_a_renamed_checkpoint_is_refused(tmp_path: Path) -> None:
    store = CheckpointStore(Store(tmp_path), keep=2)
    save(store, 10)
    (tmp_path / "step-00000010").rename(tmp_path / "step-00000020")
    with pytest.raises(DataError, match="is of step 10"):
        store.load(20)
