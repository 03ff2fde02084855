"""What methods differ by, and what two relative gains differ by.

Shape letters:
    S seeds    Q queries of one place    U queries of two places together
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from twotower.core.types import Float64
from twotower.evaluation.significance import Comparison
from twotower.evaluation.two_way import Effect, effect, effects


class Name(NamedTuple):
    """Of a contrast."""

    place: tuple[str, float]
    """Dataset and fraction."""

    method: str
    against: str
    metric: str


class Values(NamedTuple):
    """What a contrast is made of, NaN where a query was not measured."""

    differences: Float64
    """``(S, Q)``."""

    firsts: Float64
    """``(S, Q)``: the metric of the one that is taken off."""

    def of(self, rows: Sequence[int]) -> "Values":
        """Of some seeds."""
        return Values(self.differences[rows], self.firsts[rows])

    def gains(self) -> Float64:
        """Values ``(S, Q)`` whose mean is the relative gain, and whose spread is the gain's.

        The gain is a ratio of two means over the same seeds and queries. Both vary, and together,
        so each value is the ratio moved by what it moves the ratio: ``r + (d - r f) / mean f``.
        That is a straight line through the ratio: good where the other's mean is well above 0.
        """
        first = float(np.nanmean(self.firsts))
        ratio = float(np.nanmean(self.differences)) / first
        return ratio + (self.differences - ratio * self.firsts) / first


@dataclass(slots=True)
class Contrast:
    """One method less another."""

    effect: Effect
    first: float
    """Mean of the metric of the one that is taken off: what the gain is relative to."""

    gain: Effect | None
    """The relative gain. Its interval is that of the ratio; its p-value that of the difference.
    None where the interval of ``first`` itself reaches 0: what it is relative to is not known."""

    p_holm: float | None = None
    """Of the primary family: methods against the baseline in the primary metrics."""

    values: Values | None = None
    """Kept where a claim compares gains."""

    seeds: tuple[int, ...] = ()
    """Of the rows."""


def contrasted(found: Mapping[Name, Values], options: Comparison) -> dict[Name, Contrast]:
    """Differences and gains with their intervals, of tables measured on the same queries."""
    effects_of = effects({name: values.differences for name, values in found.items()}, options)
    plain = replace(options, resamples=0)
    firsts = effects({name: values.firsts for name, values in found.items()}, plain)
    known = {name: values for name, values in found.items() if _is_above_zero(firsts[name])}
    gains = effects({name: values.gains() for name, values in known.items()}, plain)
    return {
        name: Contrast(
            one,
            firsts[name].mean,
            replace(gains[name], p=one.p) if name in gains else None,
        )
        for name, one in effects_of.items()
    }


def _is_above_zero(one: Effect) -> bool:
    return one.mean > 0 and (one.low is None or one.low > 0)


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

        A query's part in a gain is its value's distance from the mean (`Values.gains`), blown up by
        how few queries the metric was measured on; where it was not measured it has none. So a
        query that moves both gains counts as one, and the means over parts are the gains
        themselves. Seeds that only one of the two was measured with are left out of both.

        Returns:
            None where one of the two was not measured, or has no relative gain.
        """
        found = [self.found.get(name) for name in (one, other)]
        both = [c for c in found if c is not None and c.gain is not None and c.values is not None]
        seeds = {*both[0].seeds} & {*both[1].seeds} if len(both) == 2 else set[int]()
        if not seeds:
            return None
        gains = [
            contrast.values.of(
                [n for n, seed in enumerate(contrast.seeds) if seed in seeds]
            ).gains()
            for contrast in both
            if contrast.values is not None
        ]
        ids = [self.queries[name.place] for name in (one, other)]
        union = np.unique(np.concatenate(ids))
        parts = [
            _parts(gains_SQ, np.searchsorted(union, own), len(union))
            for gains_SQ, own in zip(gains, ids, strict=True)
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


def _parts(gains_SQ: Float64, places_Q: NDArray[np.int64], num: int) -> Float64:
    """``(S, U)``: each query's part in a relative gain."""
    mean = float(np.nanmean(gains_SQ))
    share = num / np.count_nonzero(~np.isnan(gains_SQ[0]))
    parts_SU = np.full((len(gains_SQ), num), mean)
    parts_SU[:, places_Q] = np.where(np.isnan(gains_SQ), mean, mean + share * (gains_SQ - mean))
    return parts_SU
