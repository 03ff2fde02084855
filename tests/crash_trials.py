"""Runs that write checkpoints, killed and crashed, and what a new process then finds.

Real: the code that writes and reads checkpoints, metrics and records. `crash_disk` plays the crash.
"""

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from crash_bucket import Bucket
from crash_disk import Crashes, Killed, Mark, NotingDisk, Tree, lay_out
from twotower.core import files
from twotower.core.errors import DataError, RunError
from twotower.core.files import Disk
from twotower.core.storage import Store
from twotower.runtime.checkpoint import CheckpointStore
from twotower.runtime.checkpoint_writer import CheckpointWriter, Written
from twotower.runtime.json_lines import JsonLines
from twotower.runtime.snapshot import Tensors

GO_ON_EVERY = 20
"""Of so many distinct disks one is trained on from."""

BEST_EVERY = 20
"""Steps between validations; each is the best so far."""

Note = Callable[[Path], NotingDisk]


class QuietDisk(Disk):
    """The real disk without syncs, for what is only looked at."""

    def sync(self, descriptor: int) -> None: ...

    def sync_directory(self, path: Path) -> None: ...


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder for thousands of small disks, in memory where the machine has such a place."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else tmp_path
    with tempfile.TemporaryDirectory(prefix="crashes-", dir=place) as folder:
        yield Path(folder)


@pytest.fixture
def note(monkeypatch: pytest.MonkeyPatch) -> Iterator[Note]:
    """Make the disk below a folder note its calls."""

    def noting(root: Path) -> NotingDisk:
        root.mkdir(exist_ok=True)
        disk = NotingDisk(root)
        monkeypatch.setattr(files, "DISK", disk)
        return disk

    monkeypatch.setattr(files, "DISK", QuietDisk())
    yield noting
    files._durable.clear()


def tensors_of(step: int) -> dict[str, dict[str, torch.Tensor]]:
    noise = torch.Generator().manual_seed(step)
    return {
        "model": {"weight": torch.randn(4, generator=noise)},
        "optimizer": {"sum": torch.randn(3, generator=noise)},
    }


def is_state_of(step: int, found: Tensors) -> bool:
    return all(
        torch.equal(found[part][name], value)
        for part, named in tensors_of(step).items()
        for name, value in named.items()
    )


class Life:
    """One process that trains: takes the directory over, and goes on from what it finds."""

    def __init__(self, store: Store, keep: int) -> None:
        files._durable.clear()
        self.store = store
        self.metrics = JsonLines(store, "metrics.jsonl")
        self.checkpoints = CheckpointStore(store.child("checkpoints"), keep)
        self.checkpoints.take_over()
        self.found, self.skipped = self.checkpoints.newest()
        self.step = self.found.step if self.found else 0
        self.metrics.keep(lambda line: line["step"] <= self.step)
        self.writer = CheckpointWriter(
            self.checkpoints, before=self.metrics.sync, after=self._committed, background=False
        )

    def train_to(self, step: int) -> None:
        """Write a line every five steps, then a checkpoint."""
        for at in range(self.step + 5, step + 1, 5):
            self.metrics.append({"step": at})
        self.step = step
        best = step // BEST_EVERY * BEST_EVERY
        document = {"step": step, "best": {"step": best} if best else None}
        self.writer.save(step, tensors_of(step), document)

    def _committed(self, written: Written, document: Mapping[str, Any]) -> None:
        if document["best"]:
            self.store.write_json("best.json", document["best"])


def look(store: Store, keep: int, *, go_on: bool) -> str | int:
    """What a new process finds: the step of a whole state, 0 for none, or what is wrong.

    Args:
        store: the run directory.
        keep: checkpoints kept.
        go_on: also write the next checkpoint: what the crash left must not be in the way.
    """
    try:
        life = Life(store, keep)
        if store.exists("best.json"):
            store.read_json("best.json")["step"]
        if life.found is None:
            return 0
        if best := life.found.document["best"]:
            life.checkpoints.load(best["step"])
    except (RunError, DataError, ValueError) as error:
        return f"can't go on: {error}"
    if not is_state_of(life.step, life.found.tensors):
        return f"a mix of states at {life.step}"
    if [line["step"] for line in life.metrics.lines()] != list(range(5, life.step + 1, 5)):
        return f"metrics of {life.step} are not whole"
    step = life.step
    if go_on:
        life.train_to(step + 10)
        again = Life(store, keep)
        if again.step != step + 10 or again.skipped:
            return f"can't go on from {step}: {again.skipped}"
    return step


def look_at_files(folder: Path, keep: int, *, go_on: bool) -> str | int:
    """`look`, and nothing in the making may be left."""
    found = look(Store(folder), keep, go_on=go_on)
    if any(path.name.startswith(".tmp-") for path in (folder / "checkpoints").rglob("*")):
        return "files in the making are left"
    return found


@dataclass
class Tried:
    """Crashes tried so far, and what was found on each distinct disk."""

    folder: Path
    look: Callable[..., Any]
    points: int = 0
    found: dict[Tree, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def all_of(self, disk: NotingDisk, first_note: int = 0, most: int | None = None) -> "Tried":
        """Try every crash of what was noted, from a note on; ``most``: as `Crashes.points`."""
        for done, tree in Crashes(disk).points(first_note, most):
            self.points += 1
            if tree not in self.found:
                self.found[tree] = self._look(tree)
            if self.found[tree] not in allowed(disk.notes[:done]):
                self.wrong.append(f"after {done} notes: {self.found[tree]}")
        return self

    def _look(self, tree: Tree) -> Any:
        noting, files.DISK = files.DISK, QuietDisk()
        folder = self.folder / "disk"
        try:
            lay_out(tree, folder)
            return self.look(folder, go_on=len(self.found) % GO_ON_EVERY == 0)
        finally:
            shutil.rmtree(folder)
            files.DISK = noting


def allowed(notes: list[Any]) -> set[Any]:
    """What was last reported safe, or anything that was begun since."""
    states: set[Any] = {0}
    for note in notes:
        if isinstance(note, Mark):
            states = {note.value} if note.what == "safe" else states | {note.value}
    return states


def train(store: Store, notes: NotingDisk | Bucket, keep: int, steps: tuple[int, ...]) -> None:
    """One life, with marks around each checkpoint."""
    life = Life(store, keep)
    for step in steps:
        if step > life.step:
            notes.mark("begun", step)
            life.train_to(step)
            notes.mark("safe", step)


def begin(store: Store, steps: tuple[int, ...], keep: int) -> int:
    """A run that was trained before, all of it durable; the last step."""
    life = Life(store, keep)
    for step in steps:
        life.train_to(step)
    return life.step


def kill_then_crash(
    scratch: Path,
    note: Note,
    before: tuple[int, ...],
    steps: tuple[int, ...],
    *,
    stop_at_harm: bool = False,
) -> Tried:
    """Kill a process at each of its calls, then crash the machine at each call of the next one."""
    tried = Tried(scratch, partial(look_at_files, keep=1))
    for die_at in itertools.count():
        root = scratch / f"run-{die_at}"
        files.DISK = QuietDisk()
        last = begin(Store(root), before, 1)
        disk = note(root)
        disk.mark("safe", last)
        disk.die_at = die_at
        try:
            train(Store(root), disk, 1, steps[:1])
        except Killed:
            disk.die_at = None
            first = len(disk.notes)
            train(Store(root), disk, 1, steps)
            tried.all_of(disk, first)
        else:
            break
        if stop_at_harm and tried.wrong:
            break
    return tried
