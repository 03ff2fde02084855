"""Kills at every step of a short run, without Ray: cheap enough to try them all.

Real: processes of their own, gloo, SIGKILL, the files. Small: 26 steps on 200 rows.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from broken_runs import Rows, events_of, lines_of, missed_and_repeated, result_of, trained_rows
from forked_workers import Ended, run_workers
from prepared_fixture import Shape, write_prepared
from tiny_run import tiny_run
from twotower.core.config import ExperimentConfig
from twotower.core.loading import with_overrides
from twotower.core.storage import MANIFEST, Store
from twotower.data.prepared import Prepared
from twotower.runtime.checkpoint import CheckpointStore

STEPS = 26
KILLED = -9
pytestmark = pytest.mark.timeout(600)


@dataclass
class Rig:
    """A config, and what its unbroken run with one and with two workers leaves."""

    config: ExperimentConfig
    prepared: Prepared
    folder: Path
    result: dict[int, dict[str, Any]]
    rows: dict[int, Rows]

    def run(self, store: Store, plan: list[dict[str, Any]], **changes: Any) -> Ended:
        return run_workers(self.planned(plan, **changes), self.prepared, store)

    def planned(self, plan: list[dict[str, Any]], **changes: Any) -> ExperimentConfig:
        named = {key.replace("__", "."): value for key, value in changes.items()}
        return with_overrides(self.config, {**named, "fault.plan": plan})


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    folder = tmp_path_factory.mktemp("forked")
    config, prepared = tiny_run(folder, fault__trace=True)
    rig = Rig(config, prepared, folder, {}, {})
    for workers in (1, 2):
        run = folder / f"whole-{workers}"
        ended = rig.run(Store(run), [], train__num_workers=workers)
        assert ended.codes == [0] * workers, ended.said
        rig.result[workers], rig.rows = result_of(run), trained_rows(run)
    assert list(rig.rows) == list(range(STEPS))
    return rig


def broken_then_resumed(rig: Rig, store: Store, fault: dict[str, Any], workers: int) -> Ended:
    """Run into a fault, run again to the end, compare with the unbroken run; the first start."""
    changes = {"train__num_workers": workers}
    first = rig.run(store, [fault], **changes)
    assert first.codes[fault.get("rank", 0)] == KILLED, first
    (fired,) = events_of(store.local_path(), "fault")
    assert fired["attempt"] == 1
    again = rig.run(store, [fault], **changes)
    assert again.codes == [0] * workers, again.said
    assert len(events_of(store.local_path(), "fault")) == 1, "once"
    assert result_of(store.local_path()) == rig.result[workers], "bitwise"
    assert trained_rows(store.local_path()) == rig.rows, "the same rows in the same order"
    return first


def test_a_kill_before_every_step_changes_nothing(rig: Rig, tmp_path: Path) -> None:
    every = rig.config.train.checkpoint_every
    for step in range(STEPS):
        store = Store(tmp_path / str(step))
        broken_then_resumed(rig, store, {"action": "kill", "step": step}, 1)
        resumed = events_of(store.local_path(), "start")[-1]["step"]
        # A checkpoint is written while training goes on: one that is not done yet is lost too.
        assert 0 <= step - resumed < 2 * every


@pytest.mark.parametrize("step", [5, 10, 13, 26])
def test_a_kill_inside_a_checkpoint_leaves_the_one_before(
    rig: Rig, tmp_path: Path, step: int
) -> None:
    store = Store(tmp_path)
    fault = {"action": "kill", "phase": "checkpoint", "step": step}
    assert rig.run(store, [fault]).codes == [KILLED]
    checkpoints = CheckpointStore(store.child("checkpoints"), 2)
    newest, skipped = checkpoints.newest()
    assert (newest.step if newest else 0) < step
    (line,) = skipped
    assert f"{step:08}: was never committed" in line
    partial = [
        path
        for path in (tmp_path / "checkpoints").iterdir()
        if path.is_dir() and any(path.iterdir()) and not (path / MANIFEST).exists()
    ]
    assert len(partial) == 1, "the kill came between the first file and the manifest"
    assert rig.run(store, [fault]).codes == [0]
    assert result_of(tmp_path) == rig.result[1], "bitwise"
    folders = list((tmp_path / "checkpoints").iterdir())
    assert all((path / MANIFEST).exists() for path in folders), "swept"
    assert not list(tmp_path.rglob(".tmp-*"))


@pytest.mark.parametrize("phase", ["start", "evaluate"])
def test_a_kill_outside_the_steps_changes_nothing(rig: Rig, tmp_path: Path, phase: str) -> None:
    fault = {"action": "kill", "phase": phase}
    if phase == "evaluate":
        fault |= {"step": STEPS}  # the last validation comes after the last step
    broken_then_resumed(rig, Store(tmp_path), fault, 1)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_survivor_of_an_all_reduce_ends_at_once(rig: Rig, tmp_path: Path, rank: int) -> None:
    for step in (0, 8, 25):
        store = Store(tmp_path / str(step))
        fault = {"action": "kill", "rank": rank, "phase": "all_reduce", "step": step}
        first = broken_then_resumed(rig, store, fault, 2)
        assert first.codes[1 - rank] not in (0, KILLED, None)
        assert f"{step} steps were done" in first.said[1 - rank]
        (struck,) = events_of(store.local_path(), "fault")
        assert first.ended_at - struck["time"] < 20, "long before the timeout of 60 s"


def test_rows_are_seen_once_when_two_workers_become_one_and_two_again(
    rig: Rig, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    first = {"action": "kill", "rank": 1, "step": 8}
    second = {"action": "kill", "step": 17, "attempt": 2}
    assert rig.run(store, [first], train__num_workers=2).codes[1] == KILLED
    assert rig.run(store, [second]).codes == [KILLED]
    assert rig.run(store, [], train__num_workers=2).codes == [0, 0]
    starts = events_of(tmp_path, "start")
    assert [len(start["pids"]) for start in starts] == [2, 1, 2]
    assert missed_and_repeated(tmp_path, rig.rows) == (0, 0)
    assert trained_rows(tmp_path) == rig.rows, "and in the same order"
    found, whole = (
        [
            line["recall@5"]
            for line in lines_of(run, "metrics.jsonl")
            if line["kind"] == "validation"
        ]
        for run in (tmp_path, rig.folder / "whole-1")
    )
    assert found == pytest.approx(whole, abs=0.1)  # ten queries: one more hit is 0.1


@pytest.mark.parametrize("num_train", [2 * 16 * 3 + 1, 1])
def test_uneven_rows_give_all_ranks_the_same_steps(
    rig: Rig, tmp_path: Path, num_train: int
) -> None:
    data = tmp_path / "data"
    rows = write_prepared(data, Shape(num_train=num_train))
    digests = {"validation_pairs": "v", "test_pairs": "t", "candidates": "c"}
    manifest = json.loads((data / "manifest.json").read_text()) | {"digests": digests}
    (data / "manifest.json").write_text(json.dumps(manifest))
    config = with_overrides(rig.config, {"train.num_workers": 2, "train.batch_size": 32})
    ended = run_workers(config, Prepared.open(data), Store(tmp_path / "run"))
    assert ended.codes == [0, 0], ended.said
    steps = [
        {line["step"] for line in lines_of(tmp_path / "run", f"trace-{rank}.jsonl")}
        for rank in (0, 1)
    ]
    per_epoch = -(-num_train // 32)
    assert steps == [set(range(2 * per_epoch))] * 2
    trained = trained_rows(tmp_path / "run")
    for epoch in (0, 1):
        seen = [row for step in range(per_epoch) for row in trained[epoch * per_epoch + step]]
        assert sorted(seen) == sorted((row.query, row.item) for row in rows), "each row once"


def test_all_ranks_stop_at_a_loss_that_is_not_finite(rig: Rig, tmp_path: Path) -> None:
    fault = {"action": "nan", "rank": 1, "phase": "all_reduce", "step": 7}
    ended = rig.run(Store(tmp_path), [fault], train__num_workers=2)
    assert ended.codes == [3, 3]
    assert ended.said[0] == ended.said[1]
    assert ended.said[0].startswith("DivergedError: step 7: the loss is not finite")
    newest, broken = CheckpointStore(Store(tmp_path / "checkpoints"), 2).newest()
    assert newest
    assert (newest.step, broken) == (5, [])
    tensors = [tensor for part in newest.tensors.values() for tensor in part.values()]
    assert all(tensor.isfinite().all() for tensor in tensors)
    assert not (tmp_path / "best.json").exists()


def test_a_fault_that_never_fired_fails_the_run(rig: Rig, tmp_path: Path) -> None:
    ended = rig.run(Store(tmp_path), [{"action": "kill", "step": STEPS}])
    assert ended.codes == [3]
    assert ended.said == [
        'UnfiredError: fault: {"action":"kill","step":26} never fired in 1 attempts and 26 steps'
    ]
