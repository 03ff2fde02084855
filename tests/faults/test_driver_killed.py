"""A driver that is killed: the same command goes on from the last checkpoint, nothing is left over.

Real: `jobs/train.py` as a process, its Ray, SIGKILL. Small: data and model.
"""

import json
import random
import signal
import time
from pathlib import Path

import pytest

from broken_runs import events_of
from faults.commands import Command, check_resumed, run_to_end
from faults.rig import LOST_AT_MOST, Whole, broken, measure, outside
from twotower.core.config import ExperimentConfig

pytestmark = pytest.mark.timeout(900)


def test_a_killed_driver_loses_at_most_the_steps_since_the_checkpoint(
    long_config: ExperimentConfig, long_whole: Whole, tmp_path: Path
) -> None:
    config = broken(long_config, tmp_path / "runs", [])
    command = Command(config, tmp_path)
    try:
        command.wait_for_step(random.Random(5).randrange(20, 60))
        struck = time.time()
        command.process.send_signal(signal.SIGKILL)
        code, _ = command.end()
    finally:
        command.stop_hard()
    assert code == -signal.SIGKILL
    record = json.loads((command.run / "record.json").read_text())
    assert record["status"] == "running", "nobody was left to write another"
    # Two agents of Ray's look for its dead server for a minute before they give up.
    soon = [title for title in command.left_alive() if "Agent" not in title]
    left = soon + command.left_alive(120)
    gone = time.time()
    run_to_end(config, tmp_path)
    assert len(json.loads((command.run / "record.json").read_text())["attempts"]) == 2
    assert len(events_of(command.run, "start")) == 2
    cost = outside(command.run, "driver", "kill", struck, gone)
    assert 0 <= cost["lost_steps"] <= LOST_AT_MOST
    row = measure("A5", command.run, long_whole, seed=5, faults=[cost], exit_code=code)
    check_resumed(row, left)
