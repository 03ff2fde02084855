"""Which trials are not worth more epochs: ASHA, with a memory and with manners."""

from collections.abc import Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from typing_extensions import override

from twotower.core.storage import Store
from twotower.runtime.journal import Trial

TIME, METRIC = "epoch", "best"
"""Keys of a trial's reports: where it is, and its best validation so far."""

_REDUCTION = 3
"""Share of trials that ASHA lets pass a rung is 1 in this. The usual choice (arXiv 1810.05934)."""


@dataclass(frozen=True, slots=True)
class Pruning:
    """How weak trials are stopped."""

    max_epochs: int
    grace_epochs: int
    """Epochs before a trial may be stopped."""

    stops: Store | None
    """Where trials are asked to end, a file named by the number; None lets Tune kill them."""


def grace_epochs(max_epochs: int, validate_every: int) -> int:
    """Epochs that every trial gets: a quarter of all, and at least one validation. Chosen."""
    return min(max(max_epochs // 4, validate_every), max_epochs)


def scheduler(pruning: Pruning | None, known: Iterable[Trial]) -> TrialScheduler:
    """ASHA that remembers: without their curves a resumed search would judge by new trials only."""
    if pruning is None:
        return FIFOScheduler()
    asha = Asha(pruning)
    for trial in known:
        if trial.ended and trial.curve:
            asha.remember(trial)
    return asha


class Asha(ASHAScheduler):
    """Asynchronous successive halving that asks groups to end instead of having them killed."""

    def __init__(self, pruning: Pruning) -> None:
        """Start with no trial known."""
        super().__init__(
            time_attr=TIME,
            metric=METRIC,
            mode="max",
            max_t=pruning.max_epochs + 1,  # at its last epoch a trial ends by itself
            grace_period=pruning.grace_epochs,
            reduction_factor=_REDUCTION,
        )
        self._stops = pruning.stops

    def remember(self, trial: Trial) -> None:
        """Take the curve of a trial of an earlier call."""
        known = cast(TuneTrial, SimpleNamespace(trial_id=f"known-{trial.number}"))
        self.on_trial_add(cast(Any, None), known)
        best = float("-inf")
        for epoch, value in trial.curve:
            best = max(best, value)
            super().on_trial_result(cast(Any, None), known, {TIME: epoch, METRIC: best})

    @override
    def on_trial_result(
        self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]
    ) -> str:
        decision = super().on_trial_result(tune_controller, trial, result)
        if decision != TrialScheduler.STOP or self._stops is None:
            return decision
        self._stops.write_bytes(str(trial.config["number"]), b"")
        return TrialScheduler.CONTINUE
