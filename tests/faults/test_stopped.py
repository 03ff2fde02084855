"""Being asked to stop: SIGTERM wherever the run stands, Ctrl-C once, twice and three times.

Real: `jobs/train.py` as a process, its Ray, the signals, a terminal of its own for Ctrl-C.
"""

import json
import os
import pty
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from broken_runs import events_of
from faults.commands import Command, check_resumed, descendants, run_to_end
from faults.rig import Whole, append, broken, leftovers, measure, outside
from twotower.core.config import ExperimentConfig
from twotower.core.errors import StoppedError

pytestmark = pytest.mark.timeout(1200)


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2, 3))])
def test_a_run_stopped_five_times_comes_to_the_same_end(
    long_config: ExperimentConfig, long_whole: Whole, tmp_path: Path, seed: int
) -> None:
    config = broken(long_config, tmp_path / "runs", [])
    draws, costs, left, reached = random.Random(seed), [], [], 0
    run = tmp_path
    for stop in range(5):
        command = Command(config, tmp_path)
        run = command.run
        try:
            if stop == 0:
                command.wait_for((run / "record.json").exists)  # no worker is there yet
            else:
                command.wait_for_step(reached + draws.randrange(1, 20))
            struck = time.time()
            command.process.send_signal(signal.SIGTERM)
            code, said = command.end()
        finally:
            command.stop_hard()
        assert code == StoppedError.exit_code, said
        assert "the same command goes on from there" in said
        assert "Traceback" not in said
        assert json.loads((run / "record.json").read_text())["status"] == "stopped"
        saved = [path.name for path in sorted((run / "checkpoints").glob("step-*"))]
        reached = int(saved[-1].removeprefix("step-"))
        left += command.left_alive() + leftovers(run)
        costs.append((struck, command.ended_at))
    run_to_end(config, tmp_path)
    found = [outside(run, "driver", "SIGTERM", struck, ended) for struck, ended in costs]
    assert [cost["lost_steps"] for cost in found] == [0] * 5, "a checkpoint of the very step"
    row = measure("H1", run, long_whole, seed=seed, faults=found, exit_code=StoppedError.exit_code)
    check_resumed(row, left)


def test_a_stop_before_training_is_no_failure(
    long_config: ExperimentConfig, tmp_path: Path
) -> None:
    config = broken(long_config, tmp_path / "runs", [])
    command = Command(config, tmp_path)
    try:
        command.wait_for(lambda: len(descendants(command.process.pid)) > 2)  # its Ray starts
        command.process.send_signal(signal.SIGTERM)
        code, said = command.end()
    finally:
        command.stop_hard()
    assert code == StoppedError.exit_code, said
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert command.left_alive() == []
    append({"case": "H1", "phase": "cluster start", "outcome": "stopped", "exit_code": code})


@pytest.mark.parametrize("times", [1, 2, 3])
def test_ctrl_c_is_graceful_then_forced_and_never_a_success(
    long_config: ExperimentConfig, long_whole: Whole, tmp_path: Path, times: int
) -> None:
    config = broken(long_config, tmp_path / "runs", [])
    with terminal() as (ours, streams):
        command = Command(config, tmp_path, **streams)
        try:
            command.wait_for_step(random.Random(times).randrange(20, 60))
            struck = time.time()
            for _ in range(times):
                os.write(ours, b"\x03")
                time.sleep(0.3)
            code, _ = command.end()
        finally:
            command.stop_hard()
    assert code == (StoppedError.exit_code if times == 1 else 128 + signal.SIGINT)
    record = json.loads((command.run / "record.json").read_text())
    assert record["status"] == "stopped"
    assert record["attempts"][-1]["exit_reason"]
    left = command.left_alive()
    run_to_end(config, tmp_path)
    assert len(events_of(command.run, "start")) == 2
    cost = outside(command.run, "terminal", f"Ctrl-C x{times}", struck, command.ended_at)
    row = measure("H2", command.run, long_whole, faults=[cost], exit_code=code)
    check_resumed(row, left)


@contextmanager
def terminal() -> Iterator[tuple[int, dict[str, Any]]]:
    """Our end of a terminal, and the streams of a process that it controls."""
    ours, theirs = pty.openpty()
    stop = threading.Event()

    def drain() -> None:
        while not stop.is_set():
            try:
                os.read(ours, 1 << 16)
            except OSError:
                return

    threading.Thread(target=drain, daemon=True).start()
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    try:
        # A session of its own, whose terminal is this one: Ctrl-C reaches all of its processes.
        yield ours, {"before": ("setsid", "--ctty"), **streams}
    finally:
        stop.set()
        os.close(theirs)
        os.close(ours)
