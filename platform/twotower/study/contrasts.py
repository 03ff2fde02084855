"""What methods differ by, and what two relative gains differ by.

Shape letters:
    S seeds    Q queries of one place    U queries of two places together
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from twotower.core.types import Float64
from twotower.evaluation.significance import Comparison
from twotower.evaluation.two_way import Effect, effect


class Name(NamedTuple):
    """Of a contrast."""

    place: tuple[str, float]
    """Dataset and fraction."""

    method: str
    against: str
    metric: str


@dataclass(slots=True)
class Contrast:
    """One method less another."""

    effect: Effect
    firsts: Float64
    """``(S,)``: mean of the metric of the one that is taken off, by seed."""

    p_holm: float | None = None
    """Of the primary family: methods against the baseline in the primary metrics."""

    differences: Float64 | None = None
    """``(S, Q)``, kept where a claim compares gains."""

    seeds: tuple[int, ...] = ()
    """Of the rows."""

    @property
    def first(self) -> float:
        """What the gain is relative to: the mean over seeds."""
        return float(np.mean(self.firsts))

    def of_seeds(self, seeds: Collection[int]) -> tuple[Float64, float]:
        """Differences ``(s, Q)`` of these seeds alone, and the mean that they are relative to."""
        assert self.differences is not None, "kept where a claim compares gains"
        rows = [row for row, seed in enumerate(self.seeds) if seed in seeds]
        return self.differences[rows], float(np.mean(self.firsts[rows]))

    def relative(self) -> Effect:
        """The gain: the difference over the other's mean, which is taken as known."""
        found, first = self.effect, self.first
        return replace(
            found,
            mean=found.mean / first,
            error=found.error / first,
            low=None if found.low is None else found.low / first,
            high=None if found.high is None else found.high / first,
            seed_variance=found.seed_variance / first**2,
            query_variance=found.query_variance / first**2,
            rest_variance=found.rest_variance / first**2,
        )


@dataclass(slots=True)
class Contrasts:
    """All of a study."""

    found: dict[Name, Contrast] = field(default_factory=dict[Name, Contrast])
    queries: dict[tuple[str, float], NDArray[Any]] = field(
        default_factory=dict[tuple[str, float], NDArray[Any]]
    )
    """Ids ``(Q,)`` of each place's queries."""

    groups: dict[tuple[str, float], NDArray[Any] | None] = field(
        default_factory=dict[tuple[str, float], "NDArray[Any] | None"]
    )
    """Labels ``(Q,)`` where the split is by group."""

    table_bytes: dict[tuple[tuple[str, float], str], int] = field(
        default_factory=dict[tuple[tuple[str, float], str], int]
    )
    """Of each method's served tables, by place."""

    def less(self, one: Name, other: Name, confidence: float) -> Effect | None:
        """One relative gain less another, as a mean over the queries of both.

        A query's part in a gain is its difference's distance from the mean, blown up by how few
        queries the metric was measured on; where it was not measured it has none. So a query that
        moves both gains counts as one, and the means over parts are the gains themselves. Seeds
        that only one of the two was measured with are left out of both.

        Returns:
            None where one of the two was not measured, or is no gain over 0.
        """
        both = [self.found.get(name) for name in (one, other)]
        found = [contrast for contrast in both if contrast is not None]
        seeds = set[int]() if len(found) < 2 else {*found[0].seeds} & {*found[1].seeds}
        if not seeds:
            return None
        gains = [contrast.of_seeds(seeds) for contrast in found]
        if not all(first for _, first in gains):
            return None
        ids = [self.queries[name.place] for name in (one, other)]
        union = np.unique(np.concatenate(ids))
        parts = [
            _parts(*gain, np.searchsorted(union, own), len(union))
            for gain, own in zip(gains, ids, strict=True)
        ]
        options = Comparison(confidence=confidence, groups=self._groups([one, other], ids, union))
        return effect(parts[0] - parts[1], options=options)

    def _groups(
        self, names: Sequence[Name], ids: Sequence[NDArray[Any]], union: NDArray[Any]
    ) -> NDArray[Any] | None:
        """Labels ``(U,)``; a query has one group wherever it is asked."""
        labels: NDArray[Any] = np.empty(len(union), dtype=object)
        for name, own in zip(names, ids, strict=True):
            groups = self.groups[name.place]
            if groups is None:
                return None
            labels[np.searchsorted(union, own)] = groups
        return labels


def _parts(measured_SQ: Float64, first: float, places_Q: NDArray[np.int64], num: int) -> Float64:
    """``(S, U)``: each query's part in a relative gain."""
    mean = float(np.nanmean(measured_SQ))
    share = num / np.count_nonzero(~np.isnan(measured_SQ[0]))
    parts_SU = np.full((len(measured_SQ), num), mean)
    moved_SQ = mean + share * (measured_SQ - mean)
    parts_SU[:, places_Q] = np.where(np.isnan(measured_SQ), mean, moved_SQ)
    return parts_SU / first
