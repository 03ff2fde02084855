"""What methods differ by, and what two relative gains differ by.

Shape letters:
    S seeds    Q queries of one place    U queries of two places together
"""

from collections.abc import Sequence
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
    first: float
    """Mean of the metric of the one that is taken off."""

    p_holm: float | None = None
    """Of the primary family: methods against the baseline in the primary metrics."""

    differences: Float64 | None = None
    """``(S, Q)``, kept where a claim compares gains."""

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
        moves both gains counts as one, and the means over parts are the gains themselves.

        Returns:
            None where one of the two was not measured.
        """
        both = [self.found.get(name) for name in (one, other)]
        gains = [found for found in both if found is not None and found.first]
        if len(gains) < 2:
            return None
        ids = [self.queries[name.place] for name in (one, other)]
        union = np.unique(np.concatenate(ids))
        parts = [
            _parts(found, np.searchsorted(union, own), len(union))
            for found, own in zip(gains, ids, strict=True)
        ]
        seeds = min(map(len, parts))
        options = Comparison(confidence=confidence, groups=self._groups([one, other], ids, union))
        return effect(parts[0][:seeds] - parts[1][:seeds], options=options)

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


def _parts(contrast: Contrast, places_Q: NDArray[np.int64], num: int) -> Float64:
    """``(S, U)``: each query's part in a relative gain."""
    assert contrast.differences is not None, "kept where a claim compares gains"
    measured = contrast.differences
    mean = float(np.nanmean(measured))
    share = num / np.count_nonzero(~np.isnan(measured[0]))
    parts = np.full((len(measured), num), mean)
    parts[:, places_Q] = np.where(np.isnan(measured), mean, mean + share * (measured - mean))
    return parts / contrast.first
