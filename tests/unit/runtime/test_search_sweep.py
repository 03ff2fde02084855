"""The driver's side of a search, without Ray: every trial ends in its class, none is lost."""

from pathlib import Path

import pytest

from tiny_config import tiny_config
from twotower.core.errors import ResourceError
from twotower.core.space import Dimension, SearchSpace
from twotower.core.storage import Store
from twotower.runtime.admission import TrialNeed, concurrent_trials, trial_need
from twotower.runtime.journal import Journal
from twotower.runtime.proposals import Proposer
from twotower.runtime.sweep import MAX_ATTEMPTS, SearchProgress, Sweep

SPACE = SearchSpace((Dimension("ssl.weight", "float", 0.03, 3.0, log=True),))


def sweep_of(folder: Path, total: int, seen: list[SearchProgress] | None = None) -> Sweep:
    journal = Journal(Store(folder))
    source = Proposer(SPACE, seed=0, num_trials=total, first=None, known=journal.trials())
    hear = None if seen is None else seen.append
    return Sweep(journal, source, total=total, metric="recall@50", on_progress=hear)


def numbers_of(sweep: Sweep, count: int) -> list[int]:
    trials = [sweep.next_trial() for _ in range(count)]
    return [trial.number for trial in trials if trial is not None]


def test_each_end_is_counted_in_its_class(tmp_path: Path) -> None:
    seen: list[SearchProgress] = []
    sweep = sweep_of(tmp_path, 4, seen)
    assert numbers_of(sweep, 4) == [0, 1, 2, 3]
    assert sweep.next_trial() is None
    assert not sweep.finished
    sweep.report(0, {"epoch": 1, "value": 0.25, "best": 0.25, "start_s": 0.5, "cpu_s": 2.0})
    sweep.report(0, {"epoch": 2, "value": 0.125, "best": 0.25})
    sweep.report(0, {"epoch": 2, "value": 0.125, "best": 0.25})  # the end repeats the last one
    sweep.end(0, "complete")
    sweep.end(1, "pruned")
    sweep.report(2, {"error": "step 7: not finite"})
    sweep.end(2, "diverged")
    sweep.end(3, "failed")
    assert sweep.finished
    assert seen[-1].counts == {"complete": 1, "pruned": 1, "failed": 1, "diverged": 1}
    first, _, third, _ = Journal(Store(tmp_path)).trials()
    assert first.curve == ((1, 0.25), (2, 0.125))
    assert (first.value, first.epochs) == (0.25, 2)
    assert third.error == "step 7: not finite"
    assert (seen[0].running, seen[0].finished) == (1, 0)


def test_a_process_that_dies_is_replaced_to_a_limit(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, 1)
    params = []
    for attempt in range(1, MAX_ATTEMPTS + 1):
        trial = sweep.next_trial()
        assert trial is not None
        params.append(trial.params)
        assert trial.attempts == attempt
        sweep.report(0, {"epoch": 1, "value": 0.5, "best": 0.5})
        sweep.died(0, "killed")
    assert sweep.finished
    assert params[0] == params[1] == params[2]
    (trial,) = Journal(Store(tmp_path)).trials()
    assert (trial.state, trial.error, trial.attempts) == ("failed", "killed", MAX_ATTEMPTS)


def test_a_killed_search_runs_its_lost_trials_first_and_ended_ones_never(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, 5)
    numbers_of(sweep, 3)
    sweep.end(1, "complete")
    before = {t.number: t.params for t in Journal(Store(tmp_path)).trials()}
    resumed = sweep_of(tmp_path, 5)
    trials = [resumed.next_trial() for _ in range(4)]
    assert [t.number for t in trials if t] == [0, 2, 3, 4]
    assert [t.params for t in trials[:2] if t] == [before[0], before[2]]
    assert [t.attempts for t in trials if t] == [2, 2, 1, 1]
    assert resumed.next_trial() is None


def test_a_stop_is_no_fault_of_the_trials_that_ran(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, 3)
    numbers_of(sweep, 2)
    sweep.interrupt()
    assert not sweep.finished
    again = [sweep_of(tmp_path, 3).next_trial() for _ in range(1)]
    assert [t.attempts for t in again if t] == [1]


def test_a_search_can_be_made_longer(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, 2)
    numbers_of(sweep, 2)
    sweep.end(0, "complete")
    sweep.end(1, "complete")
    assert sweep.finished
    longer = sweep_of(tmp_path, 4)
    assert not longer.finished
    assert numbers_of(longer, 4) == [2, 3]
    assert sweep_of(tmp_path, 1).next_trial() is not None  # those two were running


NODES = {
    "laptop": [{"CPU": 2.0}],
    "two": [{"CPU": 4.0}, {"CPU": 3.0}],
    "gpu": [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 16.0}],
    "none": [],
}


@pytest.mark.parametrize(
    ("need", "nodes", "fit"),
    [
        (TrialNeed(1, 1, 0), "laptop", 2),
        (TrialNeed(1, 2, 0), "two", 3),
        (TrialNeed(1, 4, 0), "two", 1),
        (TrialNeed(1, 4, 1), "gpu", 2),
        (TrialNeed(2, 1, 0), "two", 3),
        (TrialNeed(2, 2, 1), "gpu", 1),
    ],
)
def test_as_many_trials_as_fit_run_at_once(need: TrialNeed, nodes: str, fit: int) -> None:
    assert concurrent_trials(need, NODES[nodes]) == fit
    assert concurrent_trials(need, NODES[nodes], wanted=1) == 1


@pytest.mark.parametrize(
    ("need", "nodes", "key"),
    [
        (TrialNeed(1, 3, 0), "laptop", "train.threads"),
        (TrialNeed(1, 5, 0), "two", "train.threads"),
        (TrialNeed(1, 1, 1), "laptop", "train.device"),
        (TrialNeed(8, 1, 0), "two", "train.num_workers"),
        (TrialNeed(1, 1, 0), "none", "train.threads"),
    ],
)
def test_a_trial_that_never_fits_is_refused_with_what_is_missing(
    need: TrialNeed, nodes: str, key: str
) -> None:
    with pytest.raises(ResourceError, match=f"^{key}: .*the cluster has") as error:
        concurrent_trials(need, NODES[nodes])
    assert f"{need.cpus:g} CPUs" in str(error.value)


def test_open_threads_mean_one_thread_a_trial() -> None:
    assert trial_need(tiny_config(), 0.0) == TrialNeed(1, 1.0, 0.0)
    two = tiny_config(train__threads=2, train__num_workers=2)
    assert trial_need(two, 1.0) == TrialNeed(2, 2.0, 0.0)
    assert trial_need(tiny_config(), 1.0) == TrialNeed(1, 1.0, 1.0)
    assert trial_need(tiny_config(train__device="cpu"), 8.0).gpus == 0
