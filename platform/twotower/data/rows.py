"""Interactions as integer columns: put in order, and repeats made one pair with a weight.

Nothing here depends on the order in which rows come, so no cut of the work shows in the result.

Shape letters:
    R rows    G runs of equal values
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twotower.core.hashing import UInt64
from twotower.core.types import Int64
from twotower.data.columns import Int32

_LAST = np.uint64(2**64 - 1)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of the log, or distinct pairs."""

    query: Int32
    """int32 ``(R,)``: number of the query, what it counts in is the holder's matter."""

    item: Int32
    """int32 ``(R,)``: row of the catalogue."""

    weight: Int32
    """int32 ``(R,)``: rows of the log that this one stands for."""

    key: UInt64
    """uint64 ``(R,)``: place in the keyed permutation."""

    time: Int64 | None
    """int64 ``(R,)`` in the log's unit."""

    context: dict[str, Int32]
    """int32 ``(R,)`` codes of the log's own columns; -1 = null."""

    @property
    def num_rows(self) -> int:
        """R."""
        return len(self.query)

    def take(self, index: NDArray[Any]) -> "Rows":
        """Rows at an index, or where a mask is true."""
        return Rows(
            self.query[index],
            self.item[index],
            self.weight[index],
            self.key[index],
            None if self.time is None else self.time[index],
            {name: codes[index] for name, codes in self.context.items()},
        )


def concatenate(parts: Sequence[Rows]) -> Rows:
    """Rows of at least one part, in order."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return Rows(
        np.concatenate([part.query for part in parts]),
        np.concatenate([part.item for part in parts]),
        np.concatenate([part.weight for part in parts]),
        np.concatenate([part.key for part in parts]),
        None if first.time is None else np.concatenate([_time(part) for part in parts]),
        {n: np.concatenate([part.context[n] for part in parts]) for n in first.context},
    )


def merge_repeats(rows: Rows) -> Rows:
    """One row a (query, item), by query and item.

    Its weight is the sum; time, key and context are those of the earliest row, the smallest key
    where several are.
    """
    pair = (rows.query.astype(np.uint64) << np.uint64(32)) | rows.item.astype(np.uint64)
    order = np.argsort(pair)
    starts = run_starts(pair[order])
    if len(starts) == len(order):
        return rows.take(order)
    weight = np.add.reduceat(rows.weight[order], starts, dtype=np.int32)
    kept = rows.take(order[_first_of_run(rows, order, starts)])
    return Rows(kept.query, kept.item, weight, kept.key, kept.time, kept.context)


def _first_of_run(rows: Rows, order: Int64, starts: Int64) -> Int64:
    """Place in the order of each run's earliest row, the smallest key where several are."""
    lengths = np.diff(starts, append=len(order))
    several = np.flatnonzero(lengths > 1)
    chosen = starts.copy()
    # Most pairs stand once: only the rows of the others are compared.
    inner = lengths[several]
    ends = np.cumsum(inner)
    run = np.repeat(np.arange(len(several)), inner)
    place = np.arange(ends[-1]) + np.repeat(starts[several] - (ends - inner), inner)
    first, key = ends - inner, rows.key[order[place]]
    early = np.ones(len(key), dtype=np.bool_)
    if rows.time is not None:
        time = rows.time[order[place]]
        early = time == np.minimum.reduceat(time, first)[run]
        key = np.where(early, key, _LAST)
    best = np.flatnonzero(early & (key == np.minimum.reduceat(key, first)[run]))
    chosen[several] = place[best[run_starts(run[best])]]
    return chosen


def newest_first(rows: Rows) -> Int64:
    """Order by query, within a query newest first, then by key."""
    if rows.time is None:
        return lexical_order(rows.query, rows.key)
    latest = rows.time.max(initial=np.iinfo(np.int64).min)
    return lexical_order(rows.query, (latest - rows.time).astype(np.uint64), rows.key)


def lexical_order(*columns: NDArray[Any]) -> Int64:
    """Order of rows by several columns of non-negative integers, the first one decides first.

    Equals ``np.lexsort(columns[::-1])``. All that fits is packed into one 64-bit word, whose
    vectorised sort is several times faster; what doesn't fit only matters where words are equal.
    """
    if not len(columns[0]):
        return np.empty(0, dtype=np.int64)
    packed = np.zeros(len(columns[0]), dtype=np.uint64)
    left = 64
    for column in columns:
        values = column.astype(np.uint64)
        bits = int(values.max()).bit_length()
        if bits > left:
            packed = (
                (packed << np.uint64(left)) | (values >> np.uint64(bits - left)) if left else packed
            )
            break
        packed = (packed << np.uint64(bits)) | values if bits < 64 else values
        left -= bits
    else:
        return np.argsort(packed)
    order = np.argsort(packed)
    tied = np.flatnonzero(packed[order[1:]] == packed[order[:-1]])
    if not len(tied):
        return order
    # Sort again the rows that share their word with a neighbour; each run keeps its places.
    places = np.union1d(tied, tied + 1)
    rows = order[places]
    order[places] = rows[np.lexsort([*(c[rows] for c in columns[::-1]), packed[rows]])]
    return order


def run_starts(*columns: NDArray[Any]) -> Int64:
    """Where each run of rows that are equal in all columns begins: int64 ``(G,)``."""
    if not len(columns[0]):
        return np.empty(0, dtype=np.int64)
    changes = np.zeros(len(columns[0]), dtype=np.bool_)
    changes[0] = True
    for values in columns:
        changes[1:] |= values[1:] != values[:-1]
    return np.flatnonzero(changes)


def _time(rows: Rows) -> Int64:
    if rows.time is None:
        raise ValueError("rows with and without a time can't be put together")
    return rows.time
