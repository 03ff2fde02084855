"""What a search has tried, durable: one line a trial, rewritten whole at every change.

Ray Tune's own snapshot is a pickle and is written in place; this file is the truth and
Tune's is thrown away.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from twotower.core.errors import DataError
from twotower.core.storage import Store

FILE = "trials.jsonl"
State = Literal["running", "complete", "pruned", "failed", "diverged"]
ENDED: tuple[State, ...] = ("complete", "pruned", "failed", "diverged")
"""States that are never run again."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One point of a search and how far it came."""

    number: int
    params: dict[str, Any]
    """Values by dotted config path."""

    state: State = "running"
    value: float | None = None
    """Best validation metric seen; None before the first validation."""

    epochs: int = 0
    """Passes over the train part when the value was last reported."""

    curve: tuple[tuple[int, float], ...] = ()
    """(epoch, validation metric) of every validation."""

    seconds: float = 0.0
    """Wall-clock time from the start of its attempt."""

    cpu_s: float = 0.0
    """CPU time of its process, in seconds."""

    start_s: float | None = None
    """Seconds from the start of the attempt to the end of its first step; None before that."""

    error: str | None = None
    """Why it failed or diverged, one line."""

    attempts: int = 1
    """Times it was started."""

    @property
    def ended(self) -> bool:
        """Whether it needs no more work."""
        return self.state in ENDED


class Journal:
    """The trials of one search directory, by number; one writer (the directory's lease)."""

    def __init__(self, store: Store) -> None:
        """Read what is there. A torn last line is left out: its trial runs again.

        Raises:
            DataError: a line before the last one is damaged; it is named.
        """
        self._store = store
        text = store.read_bytes(FILE).decode(errors="replace") if store.exists(FILE) else ""
        self._trials = {t.number: t for t in _parse(text, f"{store.uri}/{FILE}")}

    def trials(self) -> tuple[Trial, ...]:
        """All trials, by number."""
        return tuple(self._trials[number] for number in sorted(self._trials))

    def get(self, number: int) -> Trial:
        """One trial."""
        return self._trials[number]

    def next_number(self) -> int:
        """The smallest number that no trial has."""
        return next(n for n in range(len(self._trials) + 1) if n not in self._trials)

    def put(self, *trials: Trial) -> None:
        """Write trials, replacing those of the same numbers; durable when it returns."""
        self._trials |= {trial.number: trial for trial in trials}
        lines = [json.dumps(asdict(t), allow_nan=False, sort_keys=True) for t in self.trials()]
        self._store.write_bytes(FILE, "".join(f"{line}\n" for line in lines).encode())

    def note(self, trial: Trial) -> None:
        """Remember a running trial's progress without writing it: only its end must survive."""
        self._trials[trial.number] = trial


def counts(trials: Iterable[Trial]) -> dict[str, int]:
    """Number of trials in each end state, zeros included."""
    counted = Counter(trial.state for trial in trials)
    return {state: counted[state] for state in ENDED}


def best_of(trials: Iterable[Trial]) -> Trial | None:
    """The trial with the best value, the earlier one on a tie; pruned ones count too."""
    usable = [t for t in trials if t.value is not None and t.state in ("complete", "pruned")]
    return max(usable, key=lambda t: (t.value, -t.number), default=None)


def reap(trials: Iterable[Trial], max_attempts: int) -> list[Trial]:
    """What becomes of trials that were running when a search died: run again, or given up."""
    reaped: list[Trial] = []
    for trial in trials:
        if trial.state != "running":
            continue
        if trial.attempts < max_attempts:
            reaped.append(Trial(trial.number, trial.params, attempts=trial.attempts + 1))
        else:
            told = f"its process or the whole search died {trial.attempts} times while it ran"
            reaped.append(replace(trial, state="failed", error=told))
    return reaped


def _parse(text: str, source: str) -> list[Trial]:
    lines = text.split("\n")
    trials: list[Trial] = []
    for place, line in enumerate(lines):
        if not line and place == len(lines) - 1:
            continue
        try:
            trials.append(_trial(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            if place == len(lines) - 1:
                break
            raise DataError(
                f"{source}: line {place + 1} is damaged ({error}); delete the line to run "
                "its trial again"
            ) from error
    return trials


def _trial(document: Any) -> Trial:
    if not isinstance(document, dict):
        raise ValueError("no object")
    known = {field.name for field in fields(Trial)}
    if unknown := document.keys() - known:
        raise ValueError(f"unknown keys {sorted(unknown)}")
    curve = tuple((int(epoch), float(value)) for epoch, value in document.pop("curve"))
    trial = Trial(**document, curve=curve)
    if trial.state not in (*ENDED, "running"):
        raise ValueError(f"unknown state {trial.state!r}")
    return trial
