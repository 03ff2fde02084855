"""Marks of runs, and of what rests on them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twotower.study import marks

KNOWN = ("undertrained", "first_look")


def line(*values: float, undertrained: bool = False) -> dict[str, Any]:
    """A run with these validations, an epoch each."""
    best = max(range(len(values)), key=values.__getitem__)
    return {
        "value": values[best],
        "best": {"step": 10 * best + 10, "epoch": best + 1, "value": values[best]},
        "curve": [[float(epoch), value] for epoch, value in enumerate(values, start=1)],
        "undertrained": undertrained,
    }


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_a_run_is_best_at_its_first_look_where_no_later_one_is_higher(values: list[float]) -> None:
    assert marks.of_run(line(*values))["first_look"] == all(v <= values[0] for v in values[1:])


@pytest.mark.parametrize(
    "old",
    [
        {"value": None, "status": "diverged"},
        {"value": 0.3, "undertrained": False},
        {"value": None, "references": {}},
        line(0.3),  # of a single validation nobody can tell
    ],
)
def test_a_line_that_does_not_say_has_no_mark(old: dict[str, Any]) -> None:
    assert marks.of_run(old) == dict.fromkeys(KNOWN, False)


def test_findings_count_the_runs_of_both_sides() -> None:
    good, first, late = line(0.1, 0.3, 0.2), line(0.3, 0.1), line(0.1, 0.3, undertrained=True)
    assert marks.counts([good, first, late, late]) == {"undertrained": 2, "first_look": 1}
    pair = marks.of_pair([good, late], [first, first])
    assert pair == {
        "undertrained": {"method": 1, "against": 0, "runs": 2},
        "first_look": {"method": 0, "against": 2, "runs": 2},
    }
    both = marks.added([pair, marks.of_pair([late, late, late], [good, good, first])])
    assert both == {
        "undertrained": {"method": 4, "against": 0, "runs": 5},
        "first_look": {"method": 0, "against": 3, "runs": 5},
    }
    told = marks.shown_of_pair(both, ("CFM", "Baseline"))
    assert [(mark.word, runs) for mark, runs in told] == [
        ("undertrained", "CFM 4 of 5"),
        ("best at first validation", "Baseline 3 of 5"),
    ]
    assert marks.shown_of_pair({}, ("CFM", "Baseline")) == []
