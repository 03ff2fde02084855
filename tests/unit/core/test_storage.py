"""Commits appear whole or not at all; names stay inside; one writer a directory."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twotower.core.errors import DataError, InputError, RunError
from twotower.core.storage import MANIFEST, Store, commit, load_commit

FILES = {"model.safetensors": b"weights" * 50, "state.json": b"{}"}


def test_a_commit_reads_back_with_its_extra_values(tmp_path: Path) -> None:
    store = Store(tmp_path / "step-1")
    commit(store, FILES, step=1)
    manifest, files = load_commit(store)
    assert files == FILES
    assert manifest["step"] == 1


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_byte_and_every_cut_is_refused(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path)
    commit(store, FILES)
    data = bytearray(FILES[name])
    for place in range(0, len(data), 37):
        changed = bytes(data[:place]) + bytes([data[place] ^ 1]) + bytes(data[place + 1 :])
        for damaged in (changed, bytes(data[:place])):
            (tmp_path / name).write_bytes(damaged)
            with pytest.raises(DataError, match=name):
                load_commit(store)


def test_a_directory_without_manifest_does_not_exist(tmp_path: Path) -> None:
    commit(Store(tmp_path), FILES)
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(DataError, match="never committed"):
        load_commit(Store(tmp_path))


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.write_bytes("a", b"old")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(RunError, match=r"a: can.t be written: No space left.*make room"):
        store.write_bytes("a", b"new")
    assert store.read_bytes("a") == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_not_a_number_is_refused_in_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Store(tmp_path).write_json("x.json", {"loss": float("nan")})


@given(st.text(max_size=20))
def test_no_name_leaves_the_folder(name: str) -> None:
    store = Store("/srv/store")
    try:
        path = store.full_path(name)
    except InputError:
        return
    assert os.path.normpath(path) == "/srv/store" or os.path.normpath(path).startswith(
        "/srv/store/"
    )


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../b", "a\0b"])
def test_names_that_would_leave_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="stays inside"):
        Store(tmp_path).write_bytes(name, b"")


def test_children_lists_and_deletion(tmp_path: Path) -> None:
    store = Store(tmp_path)
    commit(store.child("b"), FILES)
    store.write_bytes("a", b"")
    assert store.list() == ["a", "b"]
    store.delete("b")
    store.delete("b")
    assert store.list() == ["a"]
    assert store.list("nowhere") == []


def test_an_object_store_works_the_same(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}/bucket")
    commit(store, FILES)
    assert load_commit(store)[1] == FILES
