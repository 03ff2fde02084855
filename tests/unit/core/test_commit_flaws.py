"""Each protection of the commit protocol is switched off in turn: then a crash must do harm.

A test of crashes that passes with the protection gone would measure nothing.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from crash_disk import Killed, NotingDisk
from crash_trials import Note, Tried, kill_then_crash, look_at_files, note, scratch, train
from twotower.core import files, storage
from twotower.core.errors import DataError
from twotower.core.files import Data
from twotower.core.storage import MANIFEST, Store, commit, describe, load_commit
from twotower.runtime import checkpoint
from twotower.runtime.checkpoint import CheckpointStore, directory_name
from twotower.runtime.json_lines import JsonLines

__all__ = ["note", "scratch"]


def no_file_syncs(disk: NotingDisk, patch: pytest.MonkeyPatch) -> None:
    disk.forgets_files = True


def no_directory_syncs(disk: NotingDisk, patch: pytest.MonkeyPatch) -> None:
    disk.forgets_directories = True


def no_sync_of_metrics(disk: NotingDisk, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(JsonLines, "sync", lambda _: None)


def no_temporary_name(disk: NotingDisk, patch: pytest.MonkeyPatch) -> None:
    def in_place(path: Path, data: Data) -> None:
        if path.exists():
            files.delete_file(path)
        files.append(path, data)
        files.sync_file(path)

    patch.setattr(storage, "write_file", in_place)


def manifest_first(disk: NotingDisk, patch: pytest.MonkeyPatch) -> None:
    def backwards(store: Store, contents: Mapping[str, Data], **extra: Any) -> None:
        described = {name: describe(data) for name, data in contents.items()}
        store.write_json(MANIFEST, {"files": described, **extra})
        for name, data in contents.items():
            store.write_bytes(name, data)

    patch.setattr(checkpoint, "commit", backwards)


def prune_first(disk: NotingDisk, patch: pytest.MonkeyPatch) -> None:
    def backwards(self: CheckpointStore, step: int, contents: Mapping[str, Data]) -> None:
        for old in self._store.list():
            self._store.delete(old)
        commit(self._store.child(directory_name(step)), contents, step=step)

    patch.setattr(CheckpointStore, "save", backwards)


FLAWS = [
    no_file_syncs,
    no_directory_syncs,
    no_sync_of_metrics,
    no_temporary_name,
    manifest_first,
    prune_first,
]


@pytest.mark.parametrize("flaw", FLAWS, ids=lambda flaw: flaw.__name__)
def test_a_flaw_is_found(
    flaw: Callable[..., None], scratch: Path, note: Note, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = scratch / "run"
    disk = note(root)
    flaw(disk, monkeypatch)
    train(Store(root), disk, 1, (10, 20))
    monkeypatch.undo()
    # Without syncs everything is unsure, and the disks of one crash are beyond counting.
    assert Tried(scratch, partial(look_at_files, keep=1)).all_of(disk, most=100).wrong


def test_trust_in_a_checkpoint_that_another_process_renamed_is_found(
    scratch: Path, note: Note, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CheckpointStore, "take_over", lambda self: self._store.sweep())
    tried = kill_then_crash(scratch, note, (10,), (20, 30), stop_at_harm=True)
    assert any("never committed" in line for line in tried.wrong)


def trusting(path: Path) -> None:
    """`make_directory` as if one that is there were there for good."""
    if not path.exists():
        trusting(path.parent)
        files.DISK.make_directory(path)
        files.sync_directory(path.parent)


@pytest.mark.parametrize("trusts", [False, True])
def test_a_kill_in_a_commit_then_a_crash(
    trusts: bool, scratch: Path, note: Note, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any committed set, in directories of its own; the flaw of trust in them must be found."""
    contents = {name: name.encode() * 9 for name in "ab"}

    def read(folder: Path, **_: Any) -> str | int:
        try:
            return "whole" if load_commit(Store(folder / "deep" / "set"))[1] == contents else "mix"
        except DataError as error:
            return 0 if "never committed" in str(error) else str(error)

    if trusts:
        monkeypatch.setattr(files, "make_directory", trusting)
    tried = Tried(scratch, read)
    for die_at in range(30):
        files._durable.clear()
        disk = note(scratch / f"run-{die_at}")
        disk.mark("begun", "whole")
        disk.die_at = die_at
        with suppress(Killed):
            commit(Store(disk.root / "deep" / "set"), contents)
        disk.die_at = None
        files._durable.clear()
        first = len(disk.notes)
        commit(Store(disk.root / "deep" / "set"), contents)
        disk.mark("safe", "whole")
        tried.all_of(disk, first)
    assert bool(tried.wrong) == trusts
    assert tried.points >= 3500
