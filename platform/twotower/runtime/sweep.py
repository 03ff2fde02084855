"""The driver's side of a search: hands out points, takes results, keeps the journal. Knows no Ray.

Life of a trial: asked of the proposer, journalled as running, reported at each validation, ended as
complete, pruned, failed or diverged. A process that dies hands its point out again, to a limit.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from twotower.runtime.journal import Journal, State, Trial, best_of, counts, reap
from twotower.runtime.proposals import Proposer

MAX_ATTEMPTS = 3
"""Starts of one trial before it counts as failed. Chosen, not tuned."""


@dataclass(frozen=True, slots=True)
class SearchProgress:
    """Where a search stands."""

    trials: tuple[Trial, ...]
    total: int
    """Trials the search will have."""

    metric: str

    @property
    def finished(self) -> int:
        """Trials that need no more work."""
        return sum(trial.ended for trial in self.trials)

    @property
    def running(self) -> int:
        """Trials at work."""
        return sum(not trial.ended for trial in self.trials)

    @property
    def best(self) -> Trial | None:
        """The best trial so far."""
        return best_of(self.trials)

    @property
    def counts(self) -> dict[str, int]:
        """Trials by end state."""
        return counts(self.trials)


OnProgress = Callable[[SearchProgress], None]


class Sweep:
    """Trials of one search from first to last."""

    def __init__(
        self,
        journal: Journal,
        proposer: Proposer,
        *,
        total: int,
        metric: str,
        on_progress: OnProgress | None,
    ) -> None:
        """Continue what the journal holds: trials that were running are handed out again first."""
        self._journal, self._proposer = journal, proposer
        self._total, self._metric, self._on_progress = total, metric, on_progress
        reaped = reap(journal.trials(), MAX_ATTEMPTS)
        if reaped:
            journal.put(*reaped)
        self._again = [trial for trial in reaped if not trial.ended]
        self._started: dict[int, float] = {}
        self.last_event = time.monotonic()
        """When a trial last started, reported or ended."""

    def progress(self) -> SearchProgress:
        """Where it stands."""
        return SearchProgress(self._journal.trials(), self._total, self._metric)

    @property
    def finished(self) -> bool:
        """Whether every trial has ended."""
        return not self._again and not self._started and not self._more()

    def next_trial(self) -> Trial | None:
        """Hand out the next point, or None where nothing is to do now (see `finished`)."""
        if self._again:
            trial = self._again.pop(0)
            self._proposer.start(trial.number, trial.params, None)
        else:
            proposal = self._proposer.propose() if self._more() else None
            if proposal is None:
                self._total = min(self._total, len(self._journal.trials()))
                return None
            trial = Trial(self._journal.next_number(), proposal[0])
            self._proposer.start(trial.number, *proposal)
        self._started[trial.number] = time.monotonic()
        self._write(trial)
        return trial

    def report(self, number: int, result: Mapping[str, Any]) -> None:
        """Take a trial's validation (keys of `trial.report`)."""
        trial = self._journal.get(number)
        curve = trial.curve
        if result.get("value") is not None and result["epoch"] > trial.epochs:
            curve = (*curve, (int(result["epoch"]), float(result["value"])))
        self._journal.note(
            replace(
                trial,
                value=result.get("best"),
                epochs=int(result.get("epoch") or trial.epochs),
                curve=curve,
                seconds=time.monotonic() - self._started[number],
                cpu_s=float(result.get("cpu_s", 0.0)),
                start_s=result.get("start_s"),
                error=result.get("error"),
            )
        )
        self._tell()

    def end(self, number: int, state: State) -> None:
        """Take a trial's end."""
        seconds = time.monotonic() - self._started.pop(number)
        trial = replace(self._journal.get(number), state=state, seconds=seconds)
        self._proposer.finish(trial)
        self._write(trial)

    def died(self, number: int, reason: str) -> None:
        """Take the death of a trial's process: its point is handed out again, to a limit."""
        self._started.pop(number)
        trial = self._journal.get(number)
        gave_up = replace(trial, state="failed", error=reason)
        self._proposer.finish(gave_up)
        (after,) = reap([trial], MAX_ATTEMPTS)
        if after.ended:
            self._write(gave_up)
        else:
            self._again.append(after)

    def interrupt(self) -> None:
        """Take the end of the search by its user: what runs now was not at fault."""
        running = [self._journal.get(number) for number in self._started]
        for trial in running:
            self._write(Trial(trial.number, trial.params, attempts=trial.attempts - 1))
        self._started.clear()

    def _more(self) -> bool:
        return len(self._journal.trials()) < self._total

    def _write(self, trial: Trial) -> None:
        self._journal.put(trial)
        self._tell()

    def _tell(self) -> None:
        self.last_event = time.monotonic()
        if self._on_progress is not None:
            self._on_progress(self.progress())
