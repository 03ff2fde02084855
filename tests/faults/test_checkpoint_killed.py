"""Failures that could spoil a checkpoint: a death while it is written, a loss that is not finite.

Real: Ray, SIGKILL between the first file and the manifest, NaN in one rank's part of a sum.
"""

from pathlib import Path

import pytest

from broken_runs import events_of, lines_of
from faults.rig import (
    CHECKPOINT_EVERY,
    STEPS,
    Plan,
    Whole,
    append,
    broken,
    leftovers,
    measure,
    run_folder,
)
from twotower.core.config import ExperimentConfig
from twotower.core.errors import DivergedError
from twotower.core.storage import Store
from twotower.runtime.checkpoint import CheckpointStore
from twotower.runtime.launch import train

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("prepared")]


def test_a_death_inside_a_checkpoint_goes_back_to_the_one_before(
    config: ExperimentConfig, whole: Whole, tmp_path: Path
) -> None:
    step = 2 * CHECKPOINT_EVERY
    plan: Plan = [{"action": "kill", "phase": "checkpoint", "step": step}]
    result = train(broken(config, tmp_path, plan))
    run = Path(result.path)
    row = measure("B3", run, whole)
    (fault,) = row["faults"]
    assert fault["step"] == step
    assert events_of(run, "start")[1]["step"] == step - CHECKPOINT_EVERY
    assert fault["lost_steps"] >= CHECKPOINT_EVERY, "the one that was being written is lost too"
    assert (row["outcome"], row["bitwise"]) == ("done", True)
    assert (row["rows_missed"], row["rows_repeated"]) == (0, 0)
    assert row["leftovers"] == [], "the partial directory is swept"


def test_a_loss_that_is_not_finite_stops_all_ranks_and_is_never_saved(
    config: ExperimentConfig, whole: Whole, tmp_path: Path
) -> None:
    plan: Plan = [{"action": "nan", "rank": 1, "phase": "all_reduce", "step": 25}]
    config = broken(config, tmp_path, plan)
    with pytest.raises(DivergedError, match="step 25: the loss is not finite") as caught:
        train(config)
    run = run_folder(config)
    assert len(events_of(run, "fault")) == 1
    assert len(events_of(run, "start")) == 1, "it is not tried again"
    checkpoints = CheckpointStore(Store(run / "checkpoints"), 2)
    saved = [checkpoints.load(step) for step in checkpoints.steps()]
    assert saved
    tensors = [t for one in saved for part in one.tensors.values() for t in part.values()]
    assert all(tensor.isfinite().all() for tensor in tensors)
    best = Store(run).read_json("best.json")
    assert best == next(
        {"step": line["step"], "epoch": 1, "metric": "recall@10", "value": line["recall@10"]}
        for line in lines_of(whole.run, "metrics.jsonl")
        if line["kind"] == "validation"
    )
    steps = [max(line["step"] for line in lines_of(run, f"trace-{rank}.jsonl")) for rank in (0, 1)]
    assert steps == [25, 25], "both end at the step's own line of metrics"
    assert max(steps) < STEPS - 1
    append(
        {
            "case": "E1",
            "faults": [{"action": "nan", "victim": "rank 1", "phase": "all_reduce", "step": 25}],
            "outcome": "failed",
            "exit_code": caught.value.exit_code,
            "detect_steps": max(steps) - 25,
            "nan_checkpoints": 0,
            "leftovers": leftovers(run),
        }
    )
