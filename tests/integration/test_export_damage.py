"""Exports that are cut, changed, forged or in the way: refused in one line, or replaced whole."""

import json
import os
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exported_run import run_document, trained
from twotower.core.errors import DataError, InputError
from twotower.core.storage import describe
from twotower.data.prepared import Prepared
from twotower.export.write import export
from twotower.serving import files
from twotower.serving.reader import Export


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one export, to be copied and broken."""
    _, run = trained(run_document(tmp_path_factory.mktemp("plain")))
    return Path(export(run).path)


def damaged(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        Export.open(path)
    assert "\n" not in str(caught.value)
    assert "twotower export RUN" in str(caught.value)
    return str(caught.value)


def test_an_export_is_replaced_and_nothing_else(plain: Path, tmp_path: Path) -> None:
    run, copy = plain.parent, tmp_path / "export"
    shutil.copytree(plain, copy)
    (copy / "notes.txt").write_text("kept")
    (copy / "old.onnx").write_bytes(b"old")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"]["old.onnx"] = describe(b"old")
    (copy / "manifest.json").write_text(json.dumps(manifest))
    export(run, copy)
    assert {path.name for path in copy.iterdir()} == {
        *files.REQUIRED, "manifest.json", "notes.txt",
    }  # fmt: skip
    assert (copy / files.TABLES).read_bytes() == (plain / files.TABLES).read_bytes()
    (copy / "manifest.json").write_bytes(b"{")
    damaged(copy)
    export(run, copy)
    assert Export.open(copy).document == Export.open(plain).document
    with pytest.raises(InputError, match="holds a run"):
        export(run, run)
    prepared = Prepared.open(json.loads((run / "record.json").read_text())["prepared"])
    with pytest.raises(InputError, match="holds something else"):
        export(run, prepared.store.local_path())
    with pytest.raises(InputError, match=r"no column 'titel' \(--names\)"):
        export(run, copy, names="titel")
    with pytest.raises(InputError, match="holds no run"):
        export(tmp_path / "nothing")


@pytest.mark.parametrize("name", files.REQUIRED)
def test_a_cut_flipped_or_lost_file_is_refused(plain: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "export"
    shutil.copytree(plain, copy)
    whole, rng = (plain / name).read_bytes(), random.Random(name)
    for length in (0, len(whole) // 2, len(whole) - 1):
        (copy / name).write_bytes(whole[:length])
        assert f"{name}: damaged (has {length} bytes, not {len(whole)}" in damaged(copy)
    for at in [0, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(5))]:
        changed = bytearray(whole)
        changed[at] ^= 1 << rng.randrange(8)
        (copy / name).write_bytes(changed)
        assert f"{name}: damaged (has changed" in damaged(copy)
    (copy / name).unlink()
    assert f"{name}: can't be read" in damaged(copy)


def test_no_flip_in_the_manifest_changes_what_is_read(plain: Path, tmp_path: Path) -> None:
    copy = tmp_path / "export"
    shutil.copytree(plain, copy)
    whole = (plain / "manifest.json").read_bytes()
    expected = files.read_files(plain)
    refused = 0
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1 << (at % 7)
        (copy / "manifest.json").write_bytes(changed)
        try:
            assert files.read_files(copy) == expected
        except DataError:
            refused += 1
    assert refused > 0.8 * len(whole), "the rest is space between tokens"
    for length in range(0, len(whole) - 2, 7):
        (copy / "manifest.json").write_bytes(whole[:length])
        damaged(copy)
    (copy / "manifest.json").unlink()
    assert "holds no export" in damaged(copy)
    (copy / "manifest.json").write_text(json.dumps({"layout": 99}))
    assert "layout 99" in damaged(copy)


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", files.REQUIRED)
def test_a_pickle_is_never_loaded(plain: Path, tmp_path: Path, name: str) -> None:
    """Even one that the manifest vouches for."""
    copy, sprung = tmp_path / "export", tmp_path / "sprung"
    shutil.copytree(plain, copy)
    data = pickle.dumps(Trap(sprung))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"] |= {name: describe(data), "model.pkl": describe(data)}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    (copy / name).write_bytes(data)
    (copy / "model.pkl").write_bytes(data)
    damaged(copy)
    assert not sprung.exists()
    pickle.loads(data)
    assert sprung.exists(), "the trap works"


def test_a_file_of_another_export_does_not_fit(plain: Path, tmp_path: Path) -> None:
    copy = tmp_path / "export"
    shutil.copytree(plain, copy)
    data = files.dump_tensors({"vectors": np.zeros((2, 2), np.float32)})
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"][files.ITEMS] = describe(data)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    (copy / files.ITEMS).write_bytes(data)
    assert "don't belong together" in damaged(copy)
