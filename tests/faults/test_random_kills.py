"""Kills at random places: any worker, any phase, any step, always the same result.

Real: Ray, SIGKILL. Each case is replayed by its seed.
"""

import random
from pathlib import Path

import pytest

from faults.rig import LOST_AT_MOST, STEPS, Whole, broken, measure
from twotower.core.config import ExperimentConfig
from twotower.runtime.launch import train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("prepared"),
]

PHASES = ("step", "all_reduce", "checkpoint", "evaluate", "start")
WEIGHTS = (30, 20, 20, 10, 20)


@pytest.mark.parametrize("seed", range(100, 120))
def test_a_kill_at_a_random_place_changes_nothing(
    config: ExperimentConfig, whole: Whole, tmp_path: Path, seed: int
) -> None:
    draws = random.Random(seed)
    (phase,) = draws.choices(PHASES, WEIGHTS)
    fault = {"action": "kill", "phase": phase, "rank": draws.randrange(2)}
    if phase == "checkpoint":
        fault["rank"] = 0
    changes = {"fault__seed": seed}  # which draws the step
    result = train(broken(config, tmp_path, [fault], **changes))
    row = measure("random", Path(result.path), whole, seed=seed)
    (cost,) = row["faults"]
    assert cost["phase"] == phase
    assert 0 <= cost["step"] <= STEPS
    assert 0 <= cost["lost_steps"] <= LOST_AT_MOST
    assert (row["outcome"], row["bitwise"], row["leftovers"]) == ("done", True, [])
    assert (row["rows_missed"], row["rows_repeated"]) == (0, 0)
