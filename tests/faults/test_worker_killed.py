"""Workers that die or hang: the run goes on from its last checkpoint to the same result.

Real: Ray, the workers' processes, SIGKILL and SIGSTOP at the planned step. Small: data and model.
"""

import random
import time
from pathlib import Path

import pytest

from broken_runs import events_of, result_of
from faults.rig import (
    LOST_AT_MOST,
    STEPS,
    Plan,
    Whole,
    append,
    broken,
    is_alive,
    measure,
    run_folder,
)
from twotower.core.config import ExperimentConfig
from twotower.core.errors import ResourceError, RunError
from twotower.core.loading import with_overrides
from twotower.runtime.launch import train

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("rank", [1, 0])
def test_a_killed_worker_costs_few_steps_and_no_more(
    config: ExperimentConfig, whole: Whole, tmp_path: Path, rank: int
) -> None:
    seed = 10 + rank
    step = random.Random(seed).randrange(1, STEPS)
    config = broken(config, tmp_path, [{"action": "kill", "rank": rank, "step": step}])
    result = train(config)
    assert result.restarts == 1
    row = measure("A1", Path(result.path), whole, seed=seed)
    check_recovered(row["faults"], row)
    first, second = events_of(result.path, "start")
    assert not set(first["pids"]) & set(second["pids"])


def test_a_worker_killed_inside_an_all_reduce(
    config: ExperimentConfig, whole: Whole, tmp_path: Path
) -> None:
    step = random.Random(2).randrange(1, STEPS)
    plan: Plan = [{"action": "kill", "rank": 1, "phase": "all_reduce", "step": step}]
    result = train(broken(config, tmp_path, plan))
    row = measure("A2", Path(result.path), whole, seed=2)
    check_recovered(row["faults"], row)
    assert row["faults"][0]["detect_s"] <= 5, "the peer's closed connection tells"


@pytest.mark.parametrize("timeout_s", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_a_hung_worker_is_given_up_after_the_timeout(
    config: ExperimentConfig, whole: Whole, tmp_path: Path, timeout_s: int
) -> None:
    step = random.Random(3).randrange(1, STEPS)
    plan: Plan = [{"action": "stop", "rank": 1, "step": step}]
    result = train(broken(config, tmp_path, plan, train__collective_timeout_s=timeout_s))
    run = Path(result.path)
    # The timeout is part of what the evaluation says of its run; the rest must be equal.
    ours = result_of(run) | {"test": whole.result["test"]}
    row = measure("A3", run, whole, seed=3, timeout_s=timeout_s, bitwise=ours == whole.result)
    check_recovered(row["faults"], row)
    assert row["faults"][0]["detect_s"] <= timeout_s * 1.1 + 1
    assert not is_alive(events_of(run, "start")[0]["pids"][1]), "nobody is left stopped"


def test_a_crash_loop_ends_after_the_budget(
    config: ExperimentConfig, whole: Whole, tmp_path: Path
) -> None:
    plan: Plan = [{"action": "kill", "rank": 1, "step": 10, "every": True}]
    config = broken(config, tmp_path, plan, train__max_failures=1)
    with pytest.raises(RunError, match=r"worker 1 .* train\.max_failures .* 10 steps were done"):
        train(config)
    run = run_folder(config)
    assert len(events_of(run, "fault")) == len(events_of(run, "start")) == 2, "budget + 1"
    row = measure("A9", run, whole, attempts=2)
    assert (row["outcome"], row["leftovers"]) == ("failed", [])
    result = train(with_overrides(config, {"fault.plan": []}))
    assert result.step == STEPS, "without the cause the same command goes on"


@pytest.mark.usefixtures("prepared")
def test_more_cpus_than_there_are_is_a_clean_error(
    config: ExperimentConfig, tmp_path: Path
) -> None:
    config = broken(config, tmp_path, [], train__num_workers=8)
    began = time.monotonic()
    with pytest.raises(ResourceError, match=r"8 workers need 8 CPUs, the cluster has 2") as caught:
        train(config)
    seconds = time.monotonic() - began
    assert seconds <= 66
    assert not run_folder(config).exists()
    append({"case": "A11", "outcome": str(caught.value), "seconds": round(seconds, 2)})


def check_recovered(faults: list[dict[str, object]], row: dict[str, object]) -> None:
    assert len(faults) == 1, "fired exactly once"
    lost = faults[0]["lost_steps"]
    assert isinstance(lost, int)
    assert 0 <= lost <= LOST_AT_MOST
    assert (row["outcome"], row["bitwise"], row["leftovers"]) == ("done", True, [])
    assert (row["rows_missed"], row["rows_repeated"]) == (0, 0)
