"""The time that a study still takes, against a run of the whole of it by the clock."""

from pathlib import Path
from typing import Any

import pytest

from small_study import small_study
from twotower.core.seeding import derive
from twotower.core.storage import Store
from twotower.study.book import Book, Left
from twotower.study.cells import Key, RunSpec
from twotower.study.ledger import Ledger
from twotower.study.load import load_study
from twotower.study.time_left import time_left

REFERENCE_S, TRAINED_S = 1.0, 4.0
CFM = Key("small", 1.0, "cfm")


def ended(spec: RunSpec, seconds: float) -> dict[str, Any]:
    """A finished run's line."""
    where = {"dataset": spec.key.dataset, "fraction": spec.key.fraction, "method": spec.key.method}
    value = (derive(0, spec.id) % 1000) / 1000
    line = {"id": spec.id, "kind": spec.kind, "status": "done", "value": value, "seed": 1}
    return {**line, **where, "seconds": seconds}


def by_the_clock(folder: Path, slots: int, **plan: Any) -> list[tuple[float, float | None]]:
    """Run a study in made-up time, what is ready first: at each end, when, and what was told."""
    study = load_study(small_study(folder, **plan))
    ledger = Ledger(Store(folder / "ledger"))
    book = Book(study, ledger)
    now, told = 0.0, [(0.0, time_left(book.left_by_cell(), ledger.runs(), slots))]
    running: dict[str, tuple[float, RunSpec]] = {}
    while book.left:
        for spec in book.ready():
            if len(running) < slots and spec.id not in running:
                running[spec.id] = now + _took(spec), spec
        name = min(running, key=lambda name: running[name][0])
        now, spec = running.pop(name)
        ledger.add(ended(spec, _took(spec)))
        told.append((now, time_left(book.left_by_cell(), ledger.runs(), slots)))
    return told


def _took(spec: RunSpec) -> float:
    return REFERENCE_S if spec.kind == "reference" else TRAINED_S


@pytest.mark.parametrize("slots", [1, 2, 3, 8])
def test_what_is_told_is_about_what_it_takes(tmp_path: Path, slots: int) -> None:
    told = by_the_clock(tmp_path, slots, trials=6)
    end = told[-1][0]
    assert [seconds for _, seconds in told[:2]] == [None, None]  # references price no training
    priced = [(now, seconds) for now, seconds in told if seconds is not None]
    assert len(priced) > 0.8 * len(told)
    for now, seconds in priced:
        # Runs under way count as not begun. A schedule without gaps takes at most the chain and
        # the work together.
        assert (end - now) / 2 <= seconds <= end - now + TRAINED_S
    assert priced[-1] == (end, 0.0)


def test_trials_of_one_cell_take_one_slot(tmp_path: Path) -> None:
    plan = {"methods": {"baseline": {}}, "sweeps": {}, "claims": [], "references": False}
    told = by_the_clock(tmp_path, 8, trials=5, datasets={"small": {"config": "small.yaml"}}, **plan)
    assert told[0] == (0.0, None)
    # 5 trials one after the other, then 2 final runs at once: never less for the 8 slots.
    assert told[1:] == [(4, 20), (8, 16), (12, 12), (16, 8), (20, 4), (24, 4), (24, 0)]


def test_a_borrowed_winner_is_waited_for() -> None:
    other = Key("small", 1.0, "borrows")
    left = [Left(CFM, "trial", 3), Left(other, "seed", 2, after=CFM)]
    lines = [line(CFM, "trial", 5.0), line(other, "seed", 7.0)]
    assert time_left(left, lines, 8) == 3 * 5 + 7
    assert time_left(left, lines, 1) == 3 * 5 + 2 * 7


def line(key: Key, kind: str, seconds: float) -> dict[str, Any]:
    return {**key._asdict(), "kind": kind, "seconds": seconds}


def test_a_run_costs_what_the_runs_most_like_it_did() -> None:
    left = [Left(CFM, "seed", 1, after=CFM)]
    lines = [line(Key("other", 1.0, "x"), "trial", 100.0)]
    assert time_left(left, lines, 1) == 100
    lines.append(line(Key("small", 0.1, "x"), "trial", 50.0))
    assert time_left(left, lines, 1) == 50
    lines.append(line(Key("small", 1.0, "x"), "trial", 20.0))
    assert time_left(left, lines, 1) == 20
    lines.append(line(CFM, "trial", 10.0))
    assert time_left(left, lines, 1) == 10
    lines += [line(CFM, "seed", 2.0), line(CFM, "seed", 4.0)]
    assert time_left(left, lines, 1) == 3


def test_nothing_is_said_before_a_run_of_the_kind_has_ended() -> None:
    references = Key("small", 1.0, "references")
    left = [Left(references, "reference", 1), Left(CFM, "trial", 2)]
    assert time_left(left, [], 2) is None
    assert time_left(left, [line(references, "reference", 0.1)], 2) is None
    assert time_left(left, [line(CFM, "trial", 9.0)], 2) is None
    elsewhere = line(Key("other", 1.0, "references"), "reference", 30.0)
    assert time_left(left, [line(CFM, "trial", 9.0), elsewhere], 2) == 30
    assert time_left([Left(CFM, "trial", 0)], [], 2) == 0
    assert time_left([], [], 2) == 0
