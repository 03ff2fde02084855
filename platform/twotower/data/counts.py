"""Answers of a stage's tasks put together: sums and sorted lists, whatever order they come in.

Shape letters:
    N items    Q queries    P parts of the queries    B buckets
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from twotower.core.data_config import Data
from twotower.core.errors import DataError
from twotower.core.hashing import UInt64
from twotower.core.types import Int64
from twotower.data.columns import Int32
from twotower.data.dedupe import Deduped, Spilled
from twotower.data.divide import Divided, train_file
from twotower.data.exchange import BAD, Exchanged, Fragment
from twotower.data.statistics import TimeHistogram
from twotower.data.tables import FittedTable
from twotower.data.write import Written, WrittenPairs


@dataclass(frozen=True, slots=True)
class ReadCounts:
    """What became of the log's rows."""

    rows: int
    dropped: dict[str, int]
    """Rows by reason; all reasons but `not_positive`, `self_link` and `few_pairs` are bad rows."""
    first_bad: str
    values: dict[str, pa.Array]
    """Distinct values of each context column, rising."""
    spilled: tuple[Spilled, ...]

    @property
    def bad(self) -> int:
        """Rows that count against `data.max_dropped_share`."""
        return sum(self.dropped.get(reason, 0) for reason in BAD)


@dataclass(frozen=True, slots=True)
class MergeCounts:
    """Sizes of the parts of the queries."""

    rows: int
    pairs: int
    first_query: Int64
    """int64 ``(P + 1,)``: row in the query table of each part's first query, and Q."""
    times: TimeHistogram | None
    few_rows: int
    """Rows of the log whose query has fewer pairs than `data.min_query_pairs`."""


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """Pairs by code of their part (`splits`)."""

    pairs: Int64
    """int64 ``(4,)``."""
    rows: Int64
    """int64 ``(4,)``: rows of the log."""
    items: Int64
    """int64 ``(4, N)``."""
    queries: Int64
    """int64 ``(4, Q)``."""
    context: dict[str, Int64]
    """Train pairs by value of each context column; the last entry counts nulls."""
    bucket_rows: Int64
    """int64 ``(B,)``."""
    digests: UInt64
    """uint64 ``(4, 4)``."""
    reverses: Int64
    """Rising, distinct: reverses of test pairs that are looked for in train."""
    spilled: tuple[tuple[str, int], ...]
    """Scratch files of train rows, and how many parts of the queries each has."""


@dataclass
class Files:
    """Files of the dataset and what its features turned out to be."""

    written: dict[str, Written] = field(default_factory=dict)
    features: dict[str, dict[str, dict[str, Any]]] = field(
        default_factory=lambda: {"item": {}, "query": {}, "context": {}}
    )
    """Summary by side and name."""
    missing_rows: dict[str, int] = field(default_factory=dict)
    """Rows of each side without any feature."""
    reverses_found: int = 0

    def add(self, result: FittedTable | WrittenPairs | Written) -> list[Written]:
        """Take in what a task wrote; returns the files that are new."""
        if isinstance(result, FittedTable):
            self.features[result.side].update(result.features)
            if result.missing_rows is not None:
                self.missing_rows[result.side] = result.missing_rows
            new = result.files
        elif isinstance(result, WrittenPairs):
            self.reverses_found += result.reverses_found
            new = result.files
        else:
            new = [result]
        self.written.update({file.name: file for file in new})
        return new


def collect_read(results: Iterable[Exchanged], fragments: list[Fragment]) -> ReadCounts:
    """Counts of the log and one numbering of every context column's values."""
    done = sorted(results, key=lambda result: result.fragment)
    dropped: Counter[str] = Counter()
    for result in done:
        dropped.update(result.dropped)
    names = done[0].values if done else {}
    values = {name: _union([result.values[name] for result in done]) for name in names}
    spilled = [
        Spilled(
            fragments[result.fragment].spill,
            result.slices,
            {name: _places(result.values[name], values[name]) for name in names},
        )
        for result in done
    ]
    return ReadCounts(
        sum(result.rows for result in done),
        {reason: count for reason, count in sorted(dropped.items()) if count},
        next((result.first_bad for result in done if result.first_bad), ""),
        values,
        tuple(spilled),
    )


def check_dropped(counts: ReadCounts, data: Data) -> None:
    """Refuse a log with too many bad rows, or with no other ones.

    Raises:
        DataError: with the counts by reason and the first bad row.
    """
    reasons = ", ".join(f"{reason} {n:,}" for reason, n in counts.dropped.items())
    if counts.bad and data.on_bad_row == "error":
        raise DataError(
            f"{counts.first_bad}; data.on_bad_row is `error`: mend the log or set it to `drop`"
        )
    share = counts.bad / counts.rows if counts.rows else 0.0
    if share > data.max_dropped_share:
        raise DataError(
            f"data.interactions: {counts.bad:,} of {counts.rows:,} rows are bad ({share:.2%}, "
            f"data.max_dropped_share allows {data.max_dropped_share:.2%}): {reasons}; the first: "
            f"{counts.first_bad}"
        )
    if counts.rows - sum(counts.dropped.values()) == 0:
        raise DataError(
            f"data.interactions: none of {counts.rows:,} rows can be used"
            + (f" ({reasons})" if reasons else "")
        )


def collect_merged(results: Iterable[list[Deduped]]) -> MergeCounts:
    """Sizes of all parts of the queries."""
    parts: list[Deduped] = []
    times: TimeHistogram | None = None
    for result in results:
        found = [part.times for part in result if part.times is not None]
        if found:
            times = TimeHistogram.merge([*found, *([times] if times else [])])
        parts += [replace(part, times=None) for part in result]
    parts.sort(key=lambda part: part.part)
    return MergeCounts(
        sum(part.rows for part in parts),
        sum(part.pairs for part in parts),
        np.cumsum([0, *(part.queries for part in parts)], dtype=np.int64),
        times,
        sum(part.few_rows for part in parts),
    )


def leave_out_few(read: ReadCounts, merged: MergeCounts, data: Data) -> ReadCounts:
    """Count the rows of queries with too few pairs among those that were dropped.

    Raises:
        DataError: no query has enough.
    """
    if not merged.few_rows:
        return read
    if not merged.pairs:
        raise DataError(
            f"data.min_query_pairs: no query has {data.min_query_pairs} distinct pairs; lower it"
        )
    return replace(read, dropped={**read.dropped, "few_pairs": merged.few_rows})


def collect_split(results: Iterable[Divided], num_items: int, merged: MergeCounts) -> SplitCounts:
    """Counts of all parts of the queries."""
    items = np.zeros((4, num_items), dtype=np.int64)
    queries = np.zeros((4, int(merged.first_query[-1])), dtype=np.int64)
    done: list[Divided] = []
    for result in results:
        for code, (rows, counts) in enumerate(result.items):
            items[code, rows] += counts
        first = int(merged.first_query[result.parts[0]])
        queries[:, first : first + result.queries.shape[1]] = result.queries
        done.append(result.without_tables())
    done.sort(key=lambda result: result.task)
    return SplitCounts(
        sum((result.pairs for result in done), np.zeros(4, dtype=np.int64)),
        sum((result.weight for result in done), np.zeros(4, dtype=np.int64)),
        items,
        queries,
        {name: np.sum([r.context[name] for r in done], axis=0) for name in done[0].context},
        np.sum([result.bucket_rows for result in done], axis=0),
        np.asarray(np.sum([result.digests for result in done], axis=0), dtype=np.uint64),
        np.unique(np.concatenate([result.reverses for result in done])),
        tuple((train_file(result.task), len(result.parts)) for result in done),
    )


def check_parts(counts: SplitCounts, data: Data) -> None:
    """Refuse a split that leaves a part empty; DataError names it."""
    sizes = dict(zip(("train", "validation", "test"), counts.pairs.tolist(), strict=False))
    for part, size in sizes.items():
        if not size:
            shown = ", ".join(f"{name} {n:,}" for name, n in sizes.items())
            raise DataError(
                f"data.split: no pair falls in the {part} part ({data.split.kind}; {shown}); "
                "change the shares, the instants or the kind"
            )


def _union(parts: list[pa.Array]) -> pa.Array:
    """Distinct values, rising."""
    distinct = pc.call_function("unique", [pa.concat_arrays(parts)])
    return distinct.take(pc.call_function("array_sort_indices", [distinct]))


def _places(values: pa.Array, known: pa.Array) -> Int32:
    """Place of each value among the known ones, and -1 as the last entry, for null."""
    options = pc.SetLookupOptions(value_set=known)
    found = pc.call_function("index_in", [values], options).to_numpy()
    return np.append(found, -1).astype(np.int32)
