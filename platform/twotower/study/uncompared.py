"""Comparisons that a plan asks for and that no number answers, although all their runs ended."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from twotower.study.book import Book
from twotower.study.cells import Key
from twotower.study.load import Study
from twotower.study.rows import done, seeds_of


class _Pair(NamedTuple):
    """Two methods on one dataset at one fraction."""

    dataset: str
    fraction: float
    method: str
    against: str
    grows_from: float | None
    """Fraction whose gain is taken off."""

    @property
    def cells(self) -> list[Key]:
        """Whose runs it is made of."""
        fractions = [f for f in (self.fraction, self.grows_from) if f is not None]
        names = self.method, self.against
        return [Key(self.dataset, fraction, name) for fraction in fractions for name in names]


def not_compared(study: Study, book: Book) -> list[dict[str, Any]]:
    """Pairs without a seed that ended well in all of their cells.

    Methods are compared seed by seed; where runs diverged there may be nothing to compare.

    Returns:
        For each `dataset`, `fraction`, `method` and `against`; `grows_from` is a fraction where a
        claim is about the difference of two gains.
    """
    waiting = {one.key for one in book.left_by_cell() if one.count}
    ended = {
        cell.key: {*seeds_of(done(book.seed_lines(cell)))}
        for cell in study.rows()
        if cell.key not in waiting
    }
    return [
        pair._asdict()
        for pair in dict.fromkeys(_asked(study))
        if all(key in ended for key in pair.cells)
        and not set.intersection(*(ended[key] for key in pair.cells))
    ]


def _asked(study: Study) -> Iterator[_Pair]:
    """All methods against the baseline, and what claims are about, where they are run."""
    plan = study.plan
    if not plan.seeds:
        return
    for dataset, fraction in study.places():
        for name in plan.methods_on(dataset):
            if name != plan.baseline:
                yield _Pair(dataset, fraction, name, plan.baseline, None)
        for claim in plan.claims:
            if (dataset, fraction) in plan.places_of(claim):
                yield _Pair(dataset, fraction, claim.method, claim.against, claim.grows_from)
