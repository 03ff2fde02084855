"""An export of a run that still trains: its best checkpoint may be replaced and deleted meanwhile.

Real: the run, its checkpoints, and what `CheckpointStore` deletes. Made by the test: the moment.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exported_run import run_document, trained
from twotower.core.errors import DataError
from twotower.core.storage import Store, dump_json, load_commit
from twotower.export import write
from twotower.export.names import item_names
from twotower.runtime.best import Run, open_best
from twotower.runtime.checkpoint import CheckpointStore, directory_name
from twotower.runtime.recorder import BEST, CHECKPOINTS
from twotower.runtime.snapshot import STATE
from twotower.serving.reader import Export


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, to be copied and trained on."""
    document = run_document(tmp_path_factory.mktemp("whole"))
    document["train"]["num_epochs"] = 1
    return trained(document)[1]


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    copied = tmp_path / "run"
    shutil.copytree(whole, copied)
    return copied


def commit_better(run: Path) -> int:
    """One step on, a better checkpoint, and those before it deleted, as with `keep_checkpoints` 1."""
    folder = Store(run).child(CHECKPOINTS)
    checkpoints = CheckpointStore(folder, keep=1)
    last = checkpoints.steps()[-1]
    _, files = load_commit(folder.child(directory_name(last)))
    document = json.loads(files[STATE]) | {"best": {"step": last + 1}, "step": last + 1}
    checkpoints.save(last + 1, {**files, STATE: dump_json(document)})
    assert checkpoints.steps() == [last + 1]
    return last + 1


def train_on(run: Path) -> int:
    """`commit_better`, and name it as the best."""
    step = commit_better(run)
    Store(run).write_json(BEST, {"step": step})
    return step


def meanwhile(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Have it happen after the run is opened and before its model is read."""

    def late(*given: Any) -> list[str]:
        happens()
        return item_names(*given)

    monkeypatch.setattr(write, "item_names", late)


def test_the_better_checkpoint_is_exported(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_best(run).step
    meanwhile(monkeypatch, lambda: [train_on(run), train_on(run)])
    write.export(run, tmp_path / "out", names="category")
    assert Export.open(tmp_path / "out").document["step"] == before + 2


def test_a_better_one_that_is_not_named_yet_is_waited_for_by_the_user(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_best(run).step
    meanwhile(monkeypatch, lambda: commit_better(run))
    with pytest.raises(DataError, match="run the same command again") as caught:
        write.export(run, tmp_path / "out", names="category")
    assert f"{directory_name(before)}: the best checkpoint is gone" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "manifest.json").exists()
    Store(run).write_json(BEST, {"step": before + 1})
    monkeypatch.undo()
    write.export(run, tmp_path / "out", names="category")
    assert Export.open(tmp_path / "out").document["step"] == before + 1


def test_a_run_that_is_always_faster_is_given_up(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, tried = Run.load_model, list[int]()

    def late(opened: Run, device: str = "cpu") -> Any:
        tried.append(opened.step)
        train_on(run)
        return load(opened, device)

    monkeypatch.setattr(Run, "load_model", late)
    opened = open_best(run)
    with pytest.raises(DataError, match="run the same command again"):
        opened.load_best()
    assert tried == [opened.step + n for n in range(len(tried))]
    assert 1 < len(tried) < 10


def test_a_damaged_checkpoint_is_called_damaged(run: Path) -> None:
    opened = open_best(run)
    path = run / CHECKPOINTS / directory_name(opened.step) / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        opened.load_best()
