"""Which rows a broken run trains on: those of the unbroken one, in its order, each once.

Real: Ray, SIGKILL, the workers' own note of each row. There is no shuffle buffer whose size could
matter (case C4): the order is a function of seed, epoch and step.
"""

import json
import random
from pathlib import Path

import pytest

from broken_runs import events_of, lines_of, missed_and_repeated, trained_rows
from faults.rig import LOST_AT_MOST, STEPS, STEPS_PER_EPOCH, Plan, Whole, broken, measure
from prepared_fixture import Shape, write_prepared
from tiny_run import tiny_run
from twotower.core.config import ExperimentConfig
from twotower.core.errors import RunError
from twotower.core.loading import with_overrides
from twotower.runtime.cluster import connect
from twotower.runtime.launch import train
from twotower.runtime.ray_train import Need, Work, ray_train

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("prepared")]


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2, 3))])
def test_a_run_killed_five_times_inside_its_epochs_sees_each_row_once_in_order(
    config: ExperimentConfig, whole: Whole, tmp_path: Path, seed: int
) -> None:
    draws = random.Random(seed)
    inside = [step for step in range(1, STEPS) if step % STEPS_PER_EPOCH]
    steps = sorted(draws.sample(inside, 5))
    plan: Plan = [
        {"action": "kill", "rank": draws.randrange(2), "step": step, "attempt": attempt}
        for attempt, step in enumerate(steps, 1)
    ]
    result = train(broken(config, tmp_path, plan))
    run = Path(result.path)
    row = measure("C1", run, whole, seed=seed, order_equal=trained_rows(run) == whole.rows)
    assert [fault["step"] for fault in row["faults"]] == steps
    assert all(0 <= fault["lost_steps"] <= LOST_AT_MOST for fault in row["faults"])
    assert (row["rows_missed"], row["rows_repeated"], row["order_equal"]) == (0, 0, True)
    assert (row["bitwise"], row["leftovers"]) == (True, [])


def test_two_workers_then_one_then_two_see_each_row_once(
    config: ExperimentConfig, whole: Whole, tmp_path: Path
) -> None:
    first: Plan = [{"action": "kill", "rank": 1, "step": 9}]
    second: Plan = [{"action": "kill", "step": 26, "attempt": 2}]
    config = broken(config, tmp_path, first, train__max_failures=0)
    with pytest.raises(RunError, match=r"worker 1 .*died"):
        train(config)
    with pytest.raises(RunError, match=r"worker 0 .*died"):
        train(with_overrides(config, {"fault.plan": second, "train.num_workers": 1}))
    result = train(with_overrides(config, {"fault.plan": []}))
    run = Path(result.path)
    starts = events_of(run, "start")
    assert [len(start["pids"]) for start in starts] == [2, 1, 2]
    row = measure("C2", run, whole, order_equal=trained_rows(run) == whole.rows)
    assert (row["rows_missed"], row["rows_repeated"], row["order_equal"]) == (0, 0, True)
    assert row["leftovers"] == []
    for part, metrics in result.summaries.items():
        for name, found in metrics.items():
            kept = json.loads((whole.run / "evaluation" / f"{part}.json").read_text())
            expected = kept["summary"][name]
            assert found["n"] == expected["n"]
            assert found["value"] == pytest.approx(expected["value"], abs=0.02)


@pytest.mark.parametrize("num_train", [2 * 16 * 3 + 1, 1])
def test_uneven_rows_give_all_ranks_the_same_steps(
    config: ExperimentConfig, tmp_path: Path, num_train: int
) -> None:
    """One row more than full batches; fewer rows than workers."""
    tiny, prepared = tiny_run(
        tmp_path, train__num_workers=2, train__batch_size=32, fault__trace=True
    )
    rows = write_prepared(tmp_path / "uneven", Shape(num_train=num_train))
    digests = prepared.manifest["digests"]
    manifest = tmp_path / "uneven" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"digests": digests}))
    run = tmp_path / "run"
    with connect(config.cluster) as info:
        work = Work(str(tmp_path / "uneven"), str(run), "attempt-1", Need.of(tiny, info))
        with ray_train(tiny, work) as fit:
            while fit.is_running(0.2):
                pass
            assert fit.returned()["status"] == "done"
    per_epoch = -(-num_train // 32)
    for rank in (0, 1):
        steps = [line["step"] for line in lines_of(run, f"trace-{rank}.jsonl")]
        assert steps == list(range(2 * per_epoch))
    expected = sorted((row.query, row.item) for row in rows)
    trained = trained_rows(run)
    for epoch in (0, 1):
        steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        assert sorted(row for step in steps for row in trained[step]) == expected
    assert missed_and_repeated(run, trained) == (0, 0)
