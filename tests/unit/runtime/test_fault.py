"""The injector by itself: when it strikes, that it strikes once, what it writes down first.

Real: the wrapped reader, group and store, the events on disk. Instead of a signal, `error` is used.
"""

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from broken_runs import events_of, trained_rows
from tiny_run import tiny_run
from twotower.core.errors import ConfigError
from twotower.core.storage import Store
from twotower.data.reader import BatchReader
from twotower.objectives.group import SINGLE
from twotower.runtime.fault import InjectedError, Injector, UnfiredError, injector
from twotower.runtime.recorder import Watch
from twotower.runtime.reference import train_reference

PER_EPOCH = 13


def armed(folder: Path, *plan: dict[str, Any], **changes: Any) -> tuple[Injector, BatchReader]:
    """An injector that has begun, and the reader that it watches."""
    config, prepared = tiny_run(folder, fault__plan=list(plan), fault__trace=True, **changes)
    made = injector(config, Store(folder / "run"))
    assert made
    made.begin(SINGLE, PER_EPOCH)
    return made, BatchReader(prepared, batch_size=16, history=5)


def test_without_a_plan_there_is_no_injector(tmp_path: Path) -> None:
    config, _ = tiny_run(tmp_path)
    assert injector(config, Store(tmp_path)) is None


def test_a_step_is_met_before_it_and_once_over_all_attempts(tmp_path: Path) -> None:
    fault = {"action": "error", "step": 3}
    made, reader = armed(tmp_path, fault)
    seen: list[int] = []
    with pytest.raises(InjectedError, match="in phase step after 3 steps"):
        seen.extend(batch.step for batch in made.watch(reader, SINGLE).reader.batches(0))
    assert seen == [0, 1, 2]
    (fired,) = events_of(tmp_path / "run", "fault")
    assert (fired["rank"], fired["step"], fired["attempt"]) == (0, 3, 1)
    again, reader = armed(tmp_path, fault)
    assert len(list(again.watch(reader, SINGLE).reader.batches(0))) == PER_EPOCH
    again.finish(SINGLE)
    assert [event["attempt"] for event in events_of(tmp_path / "run", "attempt")] == [1, 2]
    rows = trained_rows(tmp_path / "run")
    assert list(rows) == list(range(PER_EPOCH))
    assert sum(len(found) for found in rows.values()) == 200


def test_a_crash_loop_strikes_at_every_start(tmp_path: Path) -> None:
    for _ in range(3):
        made, reader = armed(tmp_path, {"action": "error", "step": 1, "attempt": 2, "every": True})
        batches = made.watch(reader, SINGLE).reader.batches(0)
        if len(events_of(tmp_path / "run", "attempt")) == 1:
            assert len(list(batches)) == PER_EPOCH
            continue
        with pytest.raises(InjectedError):
            list(batches)
    assert [event["attempt"] for event in events_of(tmp_path / "run", "fault")] == [2, 3]


def test_nan_goes_into_one_sum(tmp_path: Path) -> None:
    made, reader = armed(tmp_path, {"action": "nan", "phase": "all_reduce", "step": 2})
    watched = made.watch(reader, SINGLE)
    poisoned: list[bool] = []
    for _ in watched.reader.batches(0):
        buffer = torch.ones(3)
        watched.training.sum_(buffer)
        poisoned.append(bool(buffer.isnan().all()))
    assert poisoned == [step == 2 for step in range(PER_EPOCH)]


def test_an_evaluation_is_met_at_or_after_its_step(tmp_path: Path) -> None:
    made, reader = armed(tmp_path, {"action": "error", "phase": "evaluate", "step": 4})
    watched = made.watch(reader, SINGLE)
    watched.evaluation.gather(torch.ones(1), [1])
    list(watched.reader.batches(0))
    with pytest.raises(InjectedError, match=f"after {PER_EPOCH} steps"):
        watched.evaluation.gather(torch.ones(1), [1])


def test_a_checkpoint_is_met_between_its_first_file_and_its_manifest(tmp_path: Path) -> None:
    made, _ = armed(tmp_path, {"action": "error", "phase": "checkpoint", "step": 10})
    store = made.watch_store()
    store.write_bytes("record.json", b"{}")
    store.child("checkpoints").child("step-00000005").write_bytes("state.json", b"{}")
    with pytest.raises(InjectedError):
        store.child("checkpoints").child("step-00000010").write_bytes("state.json", b"{}")
    assert (tmp_path / "run" / "checkpoints" / "step-00000010" / "state.json").exists()


def test_an_open_step_is_drawn_from_the_seed(tmp_path: Path) -> None:
    def fired(seed: int) -> int:
        folder = tmp_path / f"{seed}-{len(list(tmp_path.iterdir()))}"
        made, reader = armed(folder, {"action": "error"}, fault__seed=seed)
        epochs = map(made.watch(reader, SINGLE).reader.batches, (0, 1))
        with pytest.raises(InjectedError):
            list(chain.from_iterable(epochs))
        return int(events_of(folder / "run", "fault")[0]["step"])

    drawn = [fired(seed) for seed in range(5)]
    assert drawn == [fired(seed) for seed in range(5)]
    assert len(set(drawn)) > 2
    assert all(0 <= step < 2 * PER_EPOCH for step in drawn)


def test_a_fault_that_never_fired_fails_the_run(tmp_path: Path) -> None:
    config, prepared = tiny_run(tmp_path, fault__plan=[{"action": "kill", "step": 26}])
    with pytest.raises(UnfiredError, match=r'"step":26\} never fired in 1 attempts and 26 steps'):
        train_reference(config, prepared, store=Store(tmp_path / "run"))


def test_faults_need_a_run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, prepared = tiny_run(tmp_path, fault__plan=[{"action": "kill"}])
    with pytest.raises(ConfigError, match=r"fault\.plan: only a run with a directory of its own"):
        train_reference(config, prepared, watch=Watch())
    monkeypatch.setattr(Store, "is_local", property(lambda _: False))
    with pytest.raises(ConfigError, match=r"fault\.plan: storage\.runs must be a local folder"):
        injector(config, Store(tmp_path / "run"))
