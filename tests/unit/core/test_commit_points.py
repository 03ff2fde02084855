"""A crash after every system call of the commit protocol: the old state or the new one, whole.

Real: the code that writes and reads checkpoints, metrics and records, its files and its calls. The
crash is played back from notes of the calls (`crash_disk`), with all that POSIX lets a disk lose.
"""

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from crash_bucket import Bucket
from crash_disk import Killed
from crash_trials import (
    Note,
    Tried,
    allowed,
    begin,
    kill_then_crash,
    look,
    look_at_files,
    note,
    scratch,
    train,
)
from twotower.core.errors import DataError
from twotower.core.storage import Store, commit, load_commit
from twotower.runtime.checkpoint import directory_name

__all__ = ["note", "scratch"]

CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], int, int]] = {
    "first checkpoint": ((), (10,), 2, 100),
    "two more, the oldest pruned": ((10, 20), (30, 40), 2, 1500),
    "keep one": ((10, 20), (30, 40), 1, 5000),
}
"""Steps trained before, steps trained, checkpoints kept, least number of crashes."""


@pytest.mark.parametrize("case", CASES)
def test_a_crash_of_the_machine_at_any_call(case: str, scratch: Path, note: Note) -> None:
    before, steps, keep, least = CASES[case]
    root = scratch / "run"
    last = begin(Store(root), before, keep)
    disk = note(root)
    disk.mark("safe", last)
    train(Store(root), disk, keep, steps)
    tried = Tried(scratch, partial(look_at_files, keep=keep)).all_of(disk)
    assert not tried.wrong
    assert tried.points >= least


def test_a_kill_in_the_first_checkpoint_then_a_crash(scratch: Path, note: Note) -> None:
    tried = kill_then_crash(scratch, note, (), (10, 20))
    assert not tried.wrong
    assert tried.points >= 15_000


def test_a_kill_in_the_best_checkpoint_then_a_crash(scratch: Path, note: Note) -> None:
    tried = kill_then_crash(scratch, note, (10,), (20, 30))
    assert not tried.wrong
    assert tried.points >= 50_000


@pytest.mark.parametrize("step", [15, 20])
def test_a_damaged_checkpoint_is_written_again_or_left_behind(
    step: int, scratch: Path, note: Note
) -> None:
    """Step 15 is a stop before the damaged one: it must not be pruned as the older of the two."""
    root = scratch / "run"
    begin(Store(root), (10, 20), 2)
    damage(root / "checkpoints" / directory_name(20) / "model.safetensors")
    disk = note(root)
    disk.mark("safe", 10)
    train(Store(root), disk, 1, (step,))
    tried = Tried(scratch, partial(look_at_files, keep=1)).all_of(disk)
    assert not tried.wrong
    assert tried.points >= 200


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["best.json", "record.json"])
def test_a_record_is_the_old_one_or_the_new_one(name: str, scratch: Path, note: Note) -> None:
    root = scratch / "run"
    Store(root).write_json(name, {"number": 1})
    disk = note(root)
    disk.mark("safe", 1)
    for number in (2, 3):
        disk.mark("begun", number)
        Store(root).write_json(name, {"number": number, "text": "x" * 100 * number})
        disk.mark("safe", number)

    def read(folder: Path, **_: Any) -> int:
        return Store(folder).read_json(name)["number"]

    tried = Tried(scratch, read).all_of(disk)
    assert not tried.wrong
    assert tried.points >= 30


def test_a_deleted_set_is_whole_or_was_never_committed(scratch: Path, note: Note) -> None:
    root = scratch / "run"
    contents = {name: name.encode() * 9 for name in "abc"}
    commit(Store(root / "set"), contents)
    disk = note(root)
    disk.mark("safe", "whole")
    disk.mark("begun", "gone")
    Store(root).delete("set")
    disk.mark("begun", "gone")

    def read(folder: Path, **_: Any) -> str:
        try:
            return "whole" if load_commit(Store(folder / "set"))[1] == contents else "a mix"
        except DataError as error:
            return "gone" if "never committed" in str(error) else str(error)

    tried = Tried(scratch, read).all_of(disk)
    assert not tried.wrong
    assert set(tried.found.values()) == {"whole", "gone"}


# Object stores: a put is whole or nothing, and durable; only the order of calls protects.


@pytest.mark.parametrize(("before", "steps"), [((), (10, 20)), ((10, 20), (30, 40, 50))])
def test_a_kill_at_any_call_to_an_object_store_and_again(
    before: tuple[int, ...], steps: tuple[int, ...]
) -> None:
    first = Bucket()
    last = begin(first.store(), before, 1)
    points, found = 0, dict[tuple[Any, ...], Any]()
    for die_at in itertools.count():
        bucket = Bucket(first.objects)
        bucket.mark("safe", last)
        bucket.die_at = die_at
        try:
            train(bucket.store(), bucket, 1, steps[:1])
            break
        except Killed:
            bucket.die_at = None
            train(bucket.store(), bucket, 1, steps)
        for done, objects in bucket.points():
            points += 1
            key = tuple(sorted(objects.items()))
            if key not in found:
                found[key] = look(Bucket(objects).store(), 1, go_on=True)
            assert found[key] in allowed(bucket.notes[:done])
    assert points >= 150
