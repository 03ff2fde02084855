"""A part of a real study run first, what its ledger says of the machine, and one writer a ledger."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from small_study import small_study
from twotower.cli import app
from twotower.core import records
from twotower.core.errors import InputError, ResourceError
from twotower.core.storage import Store
from twotower.study.complete import complete
from twotower.study.ledger import FILE, Ledger

METHODS: dict[str, Any] = {
    "baseline": {},
    "cfm": {"set": {"ssl.weight": 0.3, "ssl.masking": "cfm"}},
    "warm": {"set": {"train.num_epochs": 3}, "settings_from": "cfm"},
}
SMALL: dict[str, Any] = {"methods": METHODS, "sweeps": {}, "claims": [], "references": False}
HOLD = """
import sys
from twotower.core.lease import Lease
from twotower.core.storage import Store
with Lease(Store(sys.argv[1]), sweep=False):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(folder: Path) -> Iterator[int]:
    """Another process has a folder; its pid."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        env={"PYTHONPATH": "platform"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process.pid
    finally:
        process.stdin.close()
        process.wait(timeout=30)


def test_a_part_comes_first_and_the_rest_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = small_study(tmp_path, **SMALL)
    monkeypatch.setattr(records, "_cpu_model", lambda: "the driver's")  # of this process alone
    heard: list[Any] = []
    found = complete(file, heard.append, only=["small/warm"], most=2)
    runs = Ledger(Store(tmp_path / "out")).runs()
    made = sorted((run["method"], run["kind"], run["fraction"]) for run in runs)
    lent = [("cfm", "trial", fraction) for fraction in (0.5, 0.5, 1.0, 1.0)]
    assert made == [*lent, *(("warm", "seed", fraction) for fraction in (0.5, 0.5, 1.0, 1.0))]
    assert (heard[-1].done, heard[-1].total) == (8, 8)
    assert heard[0].left_s is None
    assert heard[-1].left_s == 0
    # What is written is of the whole plan.
    assert not found["complete"]
    assert (found["runs_done"], found["runs_total"]) == (8, 4 * 2 + 6 * 2)
    assert [row["method"] for row in found["rows"]] == ["baseline", "cfm", "warm"] * 2
    assert json.loads((tmp_path / "out" / "tables.json").read_text())["runs_total"] == 20
    _is_of_the_worker(tmp_path / "out", runs)
    again: list[Any] = []
    complete(file, again.append, only=["small/warm"])
    assert not again
    whole = complete(file, lambda _: None, most=2)
    assert whole["complete"]
    assert whole["not_compared"] == []
    later = Ledger(Store(tmp_path / "out")).runs()
    assert later[: len(runs)] == runs
    assert len({run["id"] for run in later}) == len(later) == 20


def _is_of_the_worker(folder: Path, runs: list[dict[str, Any]]) -> None:
    notes = {run["environment"] for run in runs}
    assert len(notes) == 1  # however many workers there were
    value = Ledger(Store(folder)).noted(notes.pop())
    assert value["cpu"] != "the driver's"
    assert value["command"] == records.command()
    written = [json.loads(text) for text in (folder / FILE).read_text().splitlines()]
    assert sum("versions" in line.get("value", {}) for line in written if "note" in line) == 1


def test_names_that_the_study_lacks_end_the_command_at_once(tmp_path: Path) -> None:
    file = small_study(tmp_path, **SMALL)
    done = CliRunner().invoke(app, ["study", str(file), "--only", "cfm", "--only", "wram"])
    assert isinstance(done.exception, InputError)
    assert re.search(r"--only: .*runs nothing named 'wram'; did you mean", str(done.exception))
    assert not (tmp_path / "out").exists()
    assert "--only" in CliRunner().invoke(app, ["study", "--help"]).output


def test_a_folder_that_another_process_writes_to_is_refused(tmp_path: Path) -> None:
    file = small_study(tmp_path, **SMALL, name="another")
    out = tmp_path / "out"
    with held_elsewhere(out) as pid:
        told = rf"out: the study's folder is in use by .*{pid}.*; wait for it or stop it"
        with pytest.raises(InputError, match=told):
            complete(file, lambda _: None)
        assert not (out / FILE).exists()
        found = complete(file, lambda _: None, run=False)  # reading needs no lease
        assert found["runs_done"] == 0
        assert (out / "index.html").exists()


def test_a_study_may_lie_where_its_runs_do(tmp_path: Path) -> None:
    folder = str(tmp_path / "runs" / "study-tiny")
    nowhere = {"cluster.address": "127.0.0.1:1"}
    file = small_study(tmp_path, **SMALL, folder=folder, set=nowhere)
    with pytest.raises(ResourceError, match=r"cluster\.address"):  # it had what it needs of folders
        complete(file, lambda _: None)
