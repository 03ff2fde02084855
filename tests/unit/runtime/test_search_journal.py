"""The journal of a search survives any cut, and dead trials are handed out again to a limit."""

import json
from pathlib import Path

import pytest

from twotower.core.errors import DataError
from twotower.core.storage import Store
from twotower.runtime.journal import FILE, Journal, Trial, best_of, counts, reap

TRIALS = (
    Trial(0, {"ssl.weight": 0.5}, "complete", 0.25, 3, ((1, 0.125), (3, 0.25)), 4.0, 3.5, 0.1),
    Trial(1, {"ssl.weight": 1.0}, "failed", error="boom"),
    Trial(2, {"ssl.weight": 2.0}, "running"),
)


def test_trials_read_back_equal(tmp_path: Path) -> None:
    Journal(Store(tmp_path)).put(*TRIALS)
    journal = Journal(Store(tmp_path))
    assert journal.trials() == TRIALS
    assert journal.next_number() == 3
    journal.note(Trial(2, {}, "running", 0.5))
    assert Journal(Store(tmp_path)).get(2).value is None


def test_numbers_that_were_lost_are_used_again(tmp_path: Path) -> None:
    journal = Journal(Store(tmp_path))
    journal.put(TRIALS[0], TRIALS[2])
    assert journal.next_number() == 1


def test_a_file_cut_at_any_byte_loses_the_cut_line_only(tmp_path: Path) -> None:
    journal = Journal(Store(tmp_path))
    journal.put(*TRIALS)
    path = tmp_path / FILE
    whole = path.read_bytes()
    # A line that lost nothing but its newline is whole.
    ends = [place for place, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        left = Journal(Store(tmp_path)).trials()
        assert left == TRIALS[: sum(end <= cut for end in ends)], cut
        if cut % 50:
            continue
        continued = Journal(Store(tmp_path))
        continued.put(Trial(9, {}, "complete", 1.0))
        assert [t.number for t in Journal(Store(tmp_path)).trials()] == [
            *(t.number for t in left),
            9,
        ]


@pytest.mark.parametrize("line", ["[]", '{"number": 1}', '{"numbre": 1, "curve": []}', "{", "\0"])
def test_damage_before_the_last_line_is_named(tmp_path: Path, line: str) -> None:
    good = json.dumps({"number": 3, "params": {}, "state": "failed", "curve": []})
    (tmp_path / FILE).write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(DataError, match="line 2 is damaged"):
        Journal(Store(tmp_path))


def test_best_counts_pruned_trials_and_prefers_the_earlier_one() -> None:
    trials = [
        Trial(0, {}, "complete", 0.5),
        Trial(1, {}, "pruned", 0.5),
        Trial(2, {}, "diverged", 0.9),
        Trial(3, {}, "running", 0.8),
        Trial(4, {}, "failed"),
    ]
    best = best_of(trials)
    assert best is not None
    assert best.number == 0
    assert best_of(trials[2:]) is None
    assert counts(trials) == {"complete": 1, "pruned": 1, "failed": 1, "diverged": 1}


def test_running_trials_are_reaped_to_a_limit() -> None:
    trials = [*TRIALS[:2], Trial(5, {"a": 1}, attempts=1), Trial(6, {"a": 2}, attempts=3)]
    again, gone = reap(trials, max_attempts=3)
    assert (again.number, again.state, again.attempts) == (5, "running", 2)
    assert (gone.number, gone.state) == (6, "failed")
    assert "died 3 times" in str(gone.error)
