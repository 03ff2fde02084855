"""Checkpoints that are damaged, deleted, or that the disk has no room for.

Real: files, flipped bits, the kernel's own refusals (EFBIG under a file-size limit, ENOSPC on a
small tmpfs).
"""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from twotower.core.errors import RunError
from twotower.core.storage import MANIFEST, Store
from twotower.runtime.checkpoint import CheckpointStore, directory_name
from twotower.runtime.snapshot import STATE, Snapshot

FILES = ("model.safetensors", "optimizer.safetensors", STATE, MANIFEST)
ROOT = Path(__file__).parents[3]


def tensors_of(step: int) -> dict[str, dict[str, torch.Tensor]]:
    noise = torch.Generator().manual_seed(step)
    return {
        "model": {"weight": torch.randn(6, generator=noise)},
        "optimizer": {"sum": torch.randn(30, generator=noise)},
    }


def save(store: CheckpointStore, step: int, **document: Any) -> None:
    store.save(step, Snapshot().take(tensors_of(step), {"best": None, **document}))


def step_of(store: CheckpointStore) -> tuple[int, list[str]]:
    """Step of the newest whole checkpoint, its tensors compared, and what was skipped."""
    found, skipped = store.newest()
    assert found is not None
    for part, named in tensors_of(found.step).items():
        for name, value in named.items():
            assert torch.equal(found.tensors[part][name], value)
    return found.step, skipped


@pytest.mark.parametrize("file", FILES)
def test_every_flipped_byte_falls_back_one_and_says_so(tmp_path: Path, file: str) -> None:
    """0 silent: what loads is bitwise the older state, or the newer one (a blank in the manifest)."""
    store = CheckpointStore(Store(tmp_path), keep=2)
    save(store, 10)
    save(store, 20)
    path = tmp_path / directory_name(20) / file
    data = path.read_bytes()
    tried = harmless = 0
    for place in range(len(data)):
        for mask in (1 << place % 8, 0xFF):
            changed = bytes([data[place] ^ mask])
            path.write_bytes(data[:place] + changed + data[place + 1 :])
            step, skipped = step_of(store)
            tried += 1
            if step == 20:
                harmless += 1
                assert file == MANIFEST
                assert data[place : place + 1].isspace()
                assert changed.isspace()
            else:
                assert len(skipped) == 1
                assert directory_name(20) in skipped[0]
                assert "falling back" in skipped[0]
    assert tried == 2 * len(data)
    assert harmless < tried / 20


@pytest.mark.parametrize("file", FILES)
def test_every_cut_falls_back_one_and_says_so(tmp_path: Path, file: str) -> None:
    store = CheckpointStore(Store(tmp_path), keep=2)
    save(store, 10)
    save(store, 20)
    path = tmp_path / directory_name(20) / file
    data = path.read_bytes()
    for size in range(len(data) - 1):  # the manifest ends in a newline that means nothing
        path.write_bytes(data[:size])
        step, skipped = step_of(store)
        assert (step, len(skipped)) == (10, 1)


def test_two_damaged_ones_fall_back_two_and_both_are_named(tmp_path: Path) -> None:
    store = CheckpointStore(Store(tmp_path), keep=3)
    for step in (10, 20, 30):
        save(store, step)
    (tmp_path / directory_name(20) / STATE).unlink()
    (tmp_path / directory_name(30) / MANIFEST).write_bytes(b"[]")
    step, skipped = step_of(store)
    assert step == 10
    assert [directory_name(30) in skipped[0], directory_name(20) in skipped[1]] == [True, True]


def test_a_checkpoint_deleted_by_hand_is_fallen_back_from(tmp_path: Path) -> None:
    store = CheckpointStore(Store(tmp_path), keep=2)
    save(store, 10)
    save(store, 20)
    shutil.rmtree(tmp_path / directory_name(20))
    assert step_of(store) == (10, [])
    save(store, 20)
    assert step_of(store) == (20, [])


def test_an_older_checkpoint_is_never_pushed_out_by_a_newer_damaged_one(tmp_path: Path) -> None:
    store = CheckpointStore(Store(tmp_path), keep=1)
    save(store, 10)
    save(store, 20)
    (tmp_path / directory_name(20) / "model.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match="no checkpoint is whole"):
        store.newest()
    save(store, 15)  # a stop before the damaged one
    assert store.steps() == [15]


def test_one_valid_checkpoint_stands_whenever_the_old_one_goes(tmp_path: Path) -> None:
    """Keep one; the deletion fails after the commit, as if the process were killed there."""

    class Stubborn(Store):
        def delete(self, name: str = "") -> None:
            raise KeyboardInterrupt

    save(CheckpointStore(Store(tmp_path), keep=1), 10)
    with pytest.raises(KeyboardInterrupt):
        save(CheckpointStore(Stubborn(tmp_path), keep=1), 20)
    store = CheckpointStore(Store(tmp_path), keep=1)
    assert step_of(store) == (20, [])
    assert store.steps() == [10, 20]
    save(store, 30)
    assert store.steps() == [30]


def test_files_in_the_making_are_swept_by_the_next_writer(tmp_path: Path) -> None:
    store = CheckpointStore(Store(tmp_path), keep=2)
    assert store.take_over() == ()
    save(store, 10)
    (tmp_path / ".tmp-1").write_bytes(b"x")
    (tmp_path / directory_name(10) / ".tmp-2").write_bytes(b"x")
    assert sorted(store.take_over()) == [".tmp-1", f"{directory_name(10)}/.tmp-2"]
    assert step_of(store) == (10, [])


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process grows beyond so many bytes; Python ignores the signal."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("pad", [0, 600])
def test_a_disk_that_is_full_at_any_byte_costs_no_checkpoint(tmp_path: Path, pad: int) -> None:
    """Each file in turn is the one that doesn't fit: with the pad the document is the longest."""
    store = CheckpointStore(Store(tmp_path), keep=2)
    save(store, 10, pad="x" * pad)
    sizes = [(tmp_path / directory_name(10) / file).stat().st_size for file in FILES]
    failed: set[str] = set()
    for size in range(max(sizes)):
        with (
            file_size_limit(size),
            pytest.raises(RunError, match=r"can't be written: File too large; make room") as caught,
        ):
            save(store, 20, pad="x" * pad)
        told = str(caught.value)
        assert str(tmp_path / directory_name(20)) in told
        failed.add(told.partition(directory_name(20) + "/")[2].partition(":")[0])
        step, skipped = step_of(store)
        assert step == 10
        assert all("was never committed" in line for line in skipped)
        if size % 50 == 0:
            save(store, 20, pad="x" * pad)
            assert step_of(store) == (20, [])
            assert not list(tmp_path.rglob(".tmp-*"))
            shutil.rmtree(tmp_path / directory_name(20))
    assert failed == ({*FILES[:2], MANIFEST} if pad == 0 else set(FILES[:3]))
    assert max(sizes) > 400


FULL = """
import os, sys
from pathlib import Path
sys.path[:0] = [{source!r}, {tests!r}]
from test_checkpoint_damage import CheckpointStore, RunError, Store, save, step_of, directory_name
place = Path({place!r})
store = CheckpointStore(Store(place / "run"), keep=2)
save(store, 10)
page, refused = os.sysconf("SC_PAGE_SIZE"), 0
for free in range(12):
    room = os.statvfs(place).f_bavail - free
    (place / "ballast").write_bytes(bytes(max(room, 0) * page))
    try:
        save(store, 20)
    except RunError as error:
        refused += 1
        assert "No space left on device" in str(error), error
        assert directory_name(20) in str(error)
        assert step_of(store)[0] == 10
    (place / "ballast").unlink()
    save(store, 20)
    assert step_of(store)[0] == 20
    assert not list((place / "run").rglob(".tmp-*"))
    store._store.delete(directory_name(20))
print(refused)
"""


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    code = FULL.format(
        source=str(ROOT / "platform"), tests=str(Path(__file__).parent), place=str(place)
    )
    mount = f'mount -t tmpfs -o size=128k none {place} && exec {sys.executable} -c "$CODE"'
    probe = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if (
        not shutil.which("unshare")
        or subprocess.run(
            [*probe, f"mount -t tmpfs none {place}"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("this machine lets nobody mount")
    done = subprocess.run(
        [*probe, mount],
        env={**os.environ, "CODE": code}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(FILES), "a page each"
