"""Pruning knows the trials of earlier calls, and asks groups to end where Tune would kill them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.tune.schedulers import TrialScheduler

from twotower.core.storage import Store
from twotower.runtime.journal import Trial
from twotower.runtime.pruning import Asha, Pruning, grace_epochs

KNOWN = [Trial(n, {}, "complete", 0.5, 4, ((1, 0.1), (2, 0.4 + n / 100))) for n in range(4)]


def asha(folder: Path | None) -> Asha:
    stops = None if folder is None else Store(folder)
    return Asha(Pruning(max_epochs=8, grace_epochs=2, stops=stops))


def decide(scheduler: Asha, number: int, epoch: int, value: float) -> str:
    trial = cast(Any, SimpleNamespace(trial_id=f"t{number}", config={"number": number}))
    if epoch == 1:
        scheduler.on_trial_add(cast(Any, None), trial)
    return scheduler.on_trial_result(cast(Any, None), trial, {"epoch": epoch, "best": value})


def test_a_resumed_search_judges_new_trials_by_the_old_ones() -> None:
    fresh, resumed = asha(None), asha(None)
    for trial in KNOWN:
        resumed.remember(trial)
    for scheduler in (fresh, resumed):
        assert decide(scheduler, 9, 1, 0.05) == TrialScheduler.CONTINUE
    assert decide(fresh, 9, 2, 0.3) == TrialScheduler.CONTINUE
    assert decide(resumed, 9, 2, 0.3) == TrialScheduler.STOP


def test_a_group_is_asked_to_end_and_not_killed(tmp_path: Path) -> None:
    scheduler = asha(tmp_path)
    for trial in KNOWN:
        scheduler.remember(trial)
    decide(scheduler, 9, 1, 0.05)
    assert decide(scheduler, 9, 2, 0.3) == TrialScheduler.CONTINUE
    assert [path.name for path in tmp_path.iterdir()] == ["9"]


def test_the_last_epoch_is_no_reason_to_stop() -> None:
    scheduler = asha(None)
    assert all(decide(scheduler, 1, epoch, 0.5) == TrialScheduler.CONTINUE for epoch in range(1, 9))


@pytest.mark.parametrize(
    ("epochs", "every", "grace"), [(20, 1, 5), (3, 1, 1), (8, 4, 4), (2, 5, 2), (1, 1, 1)]
)
def test_every_trial_gets_a_quarter_and_a_validation(epochs: int, every: int, grace: int) -> None:
    assert grace_epochs(epochs, every) == grace
