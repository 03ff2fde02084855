"""Being asked to stop, of `prepare`, `search` and `study`; `train` is in `test_stopped`.

Real: the commands as processes, their Ray, the signals. Small: data and models.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults.commands import ROOT, descendants
from faults.rig import is_alive, wait_until
from small_experiment import SPACE, small_document, write_yaml
from small_study import small_study
from twotower.core.errors import StoppedError
from twotower.core.storage import Store
from twotower.study.ledger import Ledger

INTERRUPTED = 128 + signal.SIGINT
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(autouse=True)
def python_s_own_handler() -> Iterator[None]:
    """A shell starts what runs in its background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def words_of(command: str, folder: Path) -> list[str]:
    """A command that has data to prepare below a folder, and work to do with it."""
    if command == "study":
        return ["jobs/study.py", str(small_study(folder))]
    file = str(write_yaml(folder / "small.yaml", small_document(folder)))
    if command == "search":
        space = write_yaml(folder / "space.yaml", SPACE)
        return ["tune/search.py", file, "--space", str(space), "--trials", "2"]
    return ["-m", "twotower.cli", command, file]


def stop(words: list[str], number: signal.Signals, when: Callable[[], object]) -> tuple[int, str]:
    """Run a command, send it a signal when something holds; its exit code and its last line."""
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": "platform"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wait_until(lambda: process.poll() is not None or when(), 240)
        below = descendants(process.pid)
        process.send_signal(number)
        out, told = process.communicate(timeout=90)
    finally:
        process.kill()
        process.wait()
    *phases, last = told.splitlines()
    assert all(line.startswith(("preparing ", "studying")) for line in phases), told
    assert out == ""
    gone_by = time.monotonic() + 30
    while (left := [pid for pid in below if is_alive(pid)]) and time.monotonic() < gone_by:
        time.sleep(0.2)
    assert left == []
    return process.returncode, last


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGTERM, StoppedError.exit_code, "stopped; the same command goes on"),
        pytest.param(signal.SIGINT, INTERRUPTED, "interrupted", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("command", ["prepare", "search", "study"])
def test_a_stop_during_preparation_is_heard_at_once(
    command: str, number: signal.Signals, code: int, line: str, tmp_path: Path
) -> None:
    prepared = tmp_path / "prepared"
    words = words_of(command, tmp_path)
    ended, told = stop(words, number, when=lambda: list(prepared.glob(".scratch-*")))
    assert ended == code, told
    assert told.endswith(f": {line}")
    assert list(prepared.glob("small-*")) == [], "its end was not waited for"


def test_a_study_that_is_stopped_keeps_the_runs_that_are_done(tmp_path: Path) -> None:
    out = Store(tmp_path / "out")
    words = words_of("study", tmp_path)
    code, line = stop(words, signal.SIGTERM, when=lambda: Ledger(out).runs())
    assert code == StoppedError.exit_code, line
    told = re.search(r": stopped with (\d+) of 20 runs done; the same command goes on$", line)
    assert told, line
    assert len(Ledger(out).runs()) == int(told[1]) > 0
