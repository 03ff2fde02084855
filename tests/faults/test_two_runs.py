"""The same experiment started twice at the same moment: one trains, the other names it and ends.

Real: `jobs/train.py` as processes, each with its Ray, the lock. Small: data and model. Without Ray,
200 pairs race in `tests/unit/core/test_lease.py`.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from small_experiment import small_document, write_yaml
from twotower.core.errors import InputError, StoppedError
from twotower.core.loading import load_config
from twotower.core.storage import Store
from twotower.runtime.json_lines import JsonLines
from twotower.runtime.recorder import EVENTS
from twotower.runtime.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
PAIRS = 5
pytestmark = pytest.mark.timeout(600)


def start(file: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "jobs/train.py", str(file)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": "platform"},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def starts_of(store: Store) -> int:
    """How often workers began in a run directory."""
    return sum(line["event"] == "start" for line in JsonLines(store, EVENTS).lines())


def wait_for_one(pair: "list[subprocess.Popen[str]]", seconds: float) -> int:
    """Index of the first of two processes to end."""
    until = time.monotonic() + seconds
    while True:
        for place, process in enumerate(pair):
            if process.poll() is not None:
                return place
        assert time.monotonic() < until, "both go on"
        time.sleep(0.05)


def race(file: Path, store: Store) -> None:
    """Start a pair, check that one ends and names the other, then stop the other."""
    before = starts_of(store)
    pair = [start(file), start(file)]
    try:
        lost = wait_for_one(pair, 120)
        loser, winner = pair[lost], pair[1 - lost]
        told = loser.communicate()[1]
        assert loser.returncode == InputError.exit_code, told
        assert "the run directory is in use by" in told
        assert f'"pid": {winner.pid}' in told
        until = time.monotonic() + 120
        while starts_of(store) == before:
            assert winner.poll() is None, winner.communicate()[1]
            assert time.monotonic() < until
            time.sleep(0.1)
        winner.send_signal(signal.SIGTERM)
        told = winner.communicate(timeout=60)[1]
        assert winner.returncode == StoppedError.exit_code, told
        assert starts_of(store) == before + 1, "one alone trained"
    finally:
        for process in pair:
            process.kill()
            process.wait()


def test_of_two_runs_of_one_directory_one_trains_and_is_named(tmp_path: Path) -> None:
    document = small_document(tmp_path)
    document["train"] |= {"num_epochs": 100_000, "threads": 1, "checkpoint_every": 50}
    file = write_yaml(tmp_path / "small.yaml", document)
    subprocess.run(
        [sys.executable, "jobs/prepare.py", str(file)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": "platform"}, check=True, capture_output=True,
    )  # fmt: skip
    store = RunFolder(load_config(file).config).store
    for pair in range(PAIRS):
        race(file, store)
        assert len(RunFolder(load_config(file).config).record["attempts"]) == pair + 1
