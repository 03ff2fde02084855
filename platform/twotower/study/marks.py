"""Marks: what the course of a training says against leaning on it.

A run has a mark or has not; whatever rests on runs (rows, differences, claims, points of figures)
counts those of its runs that have it, so a reader sees it wherever a finding is told.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twotower.report.folder import as_number

Line = Mapping[str, Any]
"""Of the ledger."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One thing to know of a run."""

    name: str
    """Its key in `tables.json` and `claims.json`."""

    word: str
    sign: str
    """Where words don't fit."""

    meaning: str
    shows: Callable[[Line], bool]
    """Whether a run of the ledger has it."""


def _is_undertrained(line: Line) -> bool:
    return bool(line.get("undertrained"))


def _is_best_at_first(line: Line) -> bool:
    """Whether of several validations none was higher than the first."""
    curve = line.get("curve") or ()
    return len(curve) > 1 and curve[0][1] == line.get("value")


MARKS = (
    Mark(
        "undertrained",
        "undertrained",
        "†",
        "the best step lies in the last tenth of its steps, so more steps might have done better",
        _is_undertrained,
    ),
    Mark(
        "first_look",
        "best at first validation",
        "‡",
        "no later validation is higher, so the best may lie before anybody looked",
        _is_best_at_first,
    ),
)


def of_run(line: Line) -> dict[str, bool]:
    """Each mark's name, and whether a run has it."""
    return {mark.name: mark.shows(line) for mark in MARKS}


def counts(lines: Sequence[Line]) -> dict[str, int]:
    """Each mark's name, and how many of these runs have it."""
    return {mark.name: sum(map(mark.shows, lines)) for mark in MARKS}


def of_pair(method: Sequence[Line], against: Sequence[Line]) -> dict[str, dict[str, int]]:
    """Each mark's name, and how many runs of either side of a difference have it.

    ``runs`` are those of one side: a difference has equally many of both.
    """
    mine, theirs = counts(method), counts(against)
    return {
        mark.name: {
            "method": mine[mark.name],
            "against": theirs[mark.name],
            "runs": len(method),
        }
        for mark in MARKS
    }


def added(pairs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """The same of a finding that rests on several differences; their counts are summed."""
    keys = ("method", "against", "runs")
    return {
        mark.name: {key: sum(pair[mark.name][key] for pair in pairs) for key in keys}
        for mark in MARKS
    }


def shown(row: Mapping[str, Any], runs: int) -> list[tuple[Mark, str]]:
    """The marks that a row of `tables.json` has, each with ``2 of 5``."""
    found = [(mark, as_number(row.get(mark.name)) or 0) for mark in MARKS]
    return [(mark, f"{count:g} of {runs}") for mark, count in found if count]


def words(found: Sequence[tuple[Mark, str]]) -> list[str]:
    """Each as ``undertrained: 2 of 5``."""
    return [f"{mark.word}: {runs}" for mark, runs in found]


def shown_of_pair(row: Mapping[str, Any], titles: tuple[str, str]) -> list[tuple[Mark, str]]:
    """The marks of a difference, each with ``CFM 4 of 5, Baseline 1 of 5``.

    Args:
        row: of contrasts or claims.
        titles: of the method and of the one that it is held against.
    """
    found: list[tuple[Mark, str]] = []
    for mark in MARKS:
        sides = row.get(mark.name)
        if not isinstance(sides, Mapping):
            continue
        runs = as_number(sides.get("runs")) or 0
        both = zip(titles, ("method", "against"), strict=True)
        told = [
            f"{title} {count:g} of {runs:g}"
            for title, key in both
            if (count := as_number(sides.get(key)) or 0)
        ]
        if told:
            found.append((mark, ", ".join(told)))
    return found
