"""The process that watches the workers is killed: the command says so, and goes on when repeated.

Real: `jobs/train.py` as a process, its Ray, SIGKILL to Ray Train's controller, which is found below
that very process.
"""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from faults.commands import Command, check_resumed, descendants, run_to_end
from faults.rig import LOST_AT_MOST, Whole, broken, measure, outside
from twotower.core.config import ExperimentConfig

pytestmark = pytest.mark.timeout(900)


def test_a_killed_controller_ends_the_command_and_the_next_one_goes_on(
    long_config: ExperimentConfig, long_whole: Whole, tmp_path: Path
) -> None:
    step = random.Random(4).randrange(20, 60)
    config = broken(long_config, tmp_path / "runs", [])
    command = Command(config, tmp_path)
    try:
        command.wait_for_step(step)
        (controller,) = (
            pid
            for pid, title in descendants(command.process.pid).items()
            if title.startswith("ray::TrainController")
        )
        struck = time.time()
        os.kill(controller, signal.SIGKILL)
        code, said = command.end()
    finally:
        command.stop_hard()
    assert code == 3
    assert (
        said.strip()
        .splitlines()[-1]
        .endswith(
            "Ray Train's controller died (its process was killed, or its node is gone); "
            "the same command goes on from the last checkpoint"
        )
    )
    assert "Traceback" not in said
    record = json.loads((command.run / "record.json").read_text())
    assert record["status"] == "failed"
    left = command.left_alive()
    run_to_end(config, tmp_path)
    cost = outside(command.run, "controller", "kill", struck, command.ended_at)
    assert 0 <= cost["lost_steps"] <= LOST_AT_MOST
    row = measure("A4", command.run, long_whole, seed=4, faults=[cost], exit_code=code)
    check_resumed(row, left)
