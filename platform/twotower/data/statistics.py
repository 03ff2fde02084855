"""Counts that merge exactly, whatever the cut of the work, and what the data profile says of them.

Shape letters:
    R rows    B buckets    D degrees
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twotower.core.errors import DataError
from twotower.core.types import Int64
from twotower.data.rows import run_starts

_MOST_BUCKETS = 1 << 13
"""Buckets of a histogram of times: instants come within about 0.01 % of the share asked for."""


@dataclass(frozen=True, slots=True)
class TimeHistogram:
    """Counts of times in buckets of a power-of-two width, the smallest that needs few buckets.

    Merging histograms of parts gives the histogram of the whole: the width of a part is never
    above that of the whole.
    """

    shift: int
    """Bucket of a time is ``time >> shift``."""

    buckets: Int64
    """int64 ``(B,)``, rising, at most 8,192 of them."""

    counts: Int64
    """int64 ``(B,)``."""

    @classmethod
    def of(cls, times: Int64) -> "TimeHistogram":
        """Histogram of int64 times ``(R,)``, at least one."""
        return cls._narrow(0, times, np.ones(len(times), dtype=np.int64))

    @classmethod
    def merge(cls, parts: Sequence["TimeHistogram"]) -> "TimeHistogram":
        """Histogram of all parts together."""
        shift = max(part.shift for part in parts)
        buckets = np.concatenate([part.buckets >> (shift - part.shift) for part in parts])
        return cls._narrow(shift, buckets, np.concatenate([part.counts for part in parts]))

    @classmethod
    def _narrow(cls, shift: int, buckets: Int64, counts: Int64) -> "TimeHistogram":
        order = np.argsort(buckets)
        buckets, counts = buckets[order], counts[order]
        # Neighbours stay apart after k shifts as long as their highest different bit does.
        apart = np.sort((buckets[1:] ^ buckets[:-1]).view(np.uint64))
        powers = np.uint64(1) << np.arange(64, dtype=np.uint64)
        distinct = 1 + len(apart) - np.searchsorted(apart, powers)
        more = int(np.argmax(distinct <= _MOST_BUCKETS))
        buckets = buckets >> more
        starts = run_starts(buckets)
        return cls(shift + more, buckets[starts], np.add.reduceat(counts, starts))

    def instants(self, validation: float, test: float) -> tuple[int, int]:
        """First instants of validation and test: bucket edges that come nearest to the shares.

        Raises:
            DataError: the times are too few to make three parts of them.
        """
        if len(self.buckets) < 3:
            raise DataError(
                "data.split.kind: time needs at least three distinct times, the log has "
                f"{len(self.buckets)}"
            )
        later = self.counts[::-1].cumsum()[::-1] / self.counts.sum()  # share from each bucket on
        last = 2 + int(np.abs(later[2:] - test).argmin())
        first = 1 + int(np.abs(later[1:last] - validation - test).argmin())
        return self._edge(first), self._edge(last)

    def _edge(self, index: int) -> int:
        return int(self.buckets[index]) << self.shift


def degree_histogram(degrees: Int64) -> list[dict[str, int]]:
    """Numbers of degrees in bins that double: [1, 2), [2, 4), ...; zero has a bin of its own."""
    bins = np.zeros(len(degrees), dtype=np.int64)
    positive = degrees > 0
    bins[positive] = np.frexp(degrees[positive].astype(np.float64))[1]
    counts = np.bincount(bins)
    return [
        {"low": 0 if b == 0 else 1 << (b - 1), "high": 1 << b, "count": int(count)}
        for b, count in enumerate(counts)
        if count
    ]


def top_share(degrees: Int64, share: float) -> float:
    """Share of all pairs that the most frequent ``share`` of entries has; 0 without pairs."""
    total = int(degrees.sum())
    most = np.sort(degrees)[::-1][: max(1, round(len(degrees) * share))]
    return float(most.sum() / total) if total else 0.0


def describe_degrees(degrees: Int64) -> dict[str, Any]:
    """Summary of the pairs an item (or query) has: int64 ``(D,)``."""
    used = degrees[degrees > 0]
    return {
        "histogram": degree_histogram(degrees),
        "mean": float(used.mean()) if len(used) else 0.0,
        "median": float(np.median(used)) if len(used) else 0.0,
        "max": int(degrees.max(initial=0)),
        "with_pairs": len(used),
        "top_1_percent": top_share(degrees, 0.01),
        "top_10_percent": top_share(degrees, 0.1),
    }


def ratio(part: float, whole: float) -> float:
    """One number over another, 0 where the other is 0."""
    return float(part / whole) if whole else 0.0


def sparse(counts: NDArray[Any]) -> tuple[NDArray[np.int32], Int64]:
    """Places and values of what isn't zero."""
    places = np.flatnonzero(counts)
    return places.astype(np.int32), counts[places]
