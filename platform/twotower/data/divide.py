"""Third pass: pairs get their part, train pairs are counted and sent to their bucket of the order.

Shape letters:
    P pairs of a part of the queries    N items    B buckets    F digest lanes
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from twotower.core.hashing import UInt64, bucket_of, mix
from twotower.core.storage import Store
from twotower.core.types import Int64
from twotower.data.catalogue import group_alone
from twotower.data.columns import Int32
from twotower.data.dedupe import Queries, read_pairs, read_queries
from twotower.data.hashing import below, keyed
from twotower.data.rows import Rows, run_starts
from twotower.data.spill import SpillWriter, row_columns, write_one
from twotower.data.splits import TEST, TRAIN, VALIDATION, PairIds, Parts, SplitPlan, assign
from twotower.data.statistics import sparse

_FOLDS = 4
"""64-bit sums that make a digest of pairs."""


@dataclass(frozen=True, slots=True)
class DividePlan:
    """What all parts of the queries have in common."""

    split: SplitPlan
    context_sizes: dict[str, int]
    """Distinct values by context column."""
    item_hash: UInt64
    """uint64 ``(N,)``."""
    item_group: UInt64 | None
    """uint64 ``(N,)`` where the split is by group."""
    queries_are_items: bool
    first_query: Int64
    """int64: row in the query table of each part's first query."""
    num_buckets: int
    with_history: bool
    reverse_share: float
    """Share of the test pairs whose reverse is looked for in train."""


@dataclass(frozen=True, slots=True)
class Divided:
    """Counts of some parts of the queries, by part of the split."""

    task: int
    parts: tuple[int, ...]
    pairs: Int64
    """int64 ``(4,)``: pairs by code of the part."""
    weight: Int64
    """int64 ``(4,)``: rows of the log they stand for."""
    items: list[tuple[Int32, Int64]]
    """Rows and pair counts of items, by code of the part."""
    queries: Int64
    """int64 ``(4, queries of these parts)``: pairs of each query by code of the part."""
    context: dict[str, Int64]
    """Train pairs of each value of a context column; the last entry counts nulls."""
    bucket_rows: Int64
    """int64 ``(B,)``: train rows by bucket."""
    digests: UInt64
    """uint64 ``(4, F)``: sums over pairs, by code of the part."""
    reverses: Int64
    """Reverse of test pairs, as ``query's item << 32 | item``."""

    def without_tables(self) -> "Divided":
        """The counts less those by item and query, once they are added to the whole."""
        return replace(self, items=[], queries=self.queries[:, :0])


def train_file(task: int) -> str:
    """Scratch file of a task's train rows: part ``k * B + b`` is bucket b of its k-th part."""
    return f"train/{task:06}.arrow"


def split_file(part: int) -> str:
    """Scratch file of the parts of a part's pairs."""
    return f"split/{part:06}.arrow"


def divide(task: int, parts: Sequence[int], plan: DividePlan, scratch: Store) -> Divided:
    """Split, count and spill some parts of the queries."""
    tally = _Tally(plan)
    with SpillWriter(scratch, train_file(task)) as writer:
        for part in parts:
            queries = read_queries(scratch, part)
            pairs = read_pairs(scratch, part, list(plan.context_sizes))
            codes = assign(_pair_ids(pairs, queries, plan), plan.split)
            write_one(scratch, split_file(part), {"part": codes})
            tally.add(pairs, queries, codes)
            train = pairs.take(codes == TRAIN)
            tally.bucket_rows += _spill(writer, train, plan, int(plan.first_query[part]))
    return tally.result(task, tuple(parts))


class _Tally:
    """Counts of the parts seen so far."""

    def __init__(self, plan: DividePlan) -> None:
        self._plan = plan
        self._pairs = np.zeros(4, dtype=np.int64)
        self._weight = np.zeros(4, dtype=np.int64)
        self._items = np.zeros((4, len(plan.item_hash)), dtype=np.int64)
        self._queries: list[Int64] = []
        self._context = {
            name: np.zeros(size + 1, dtype=np.int64) for name, size in plan.context_sizes.items()
        }
        self._digests = np.zeros((4, _FOLDS), dtype=np.uint64)
        self._reverses: list[Int64] = []
        self.bucket_rows = np.zeros(plan.num_buckets, dtype=np.int64)

    def add(self, pairs: Rows, queries: Queries, codes: Parts) -> None:
        """Count the pairs of one part of the queries."""
        num_items, num_queries = self._items.shape[1], len(queries.hashes)
        code = codes.astype(np.int64)
        self._pairs += np.bincount(code, minlength=4)
        self._weight += np.bincount(code, pairs.weight, minlength=4).astype(np.int64)
        by_item = np.bincount(code * num_items + pairs.item, minlength=4 * num_items)
        self._items += by_item.reshape(4, num_items)
        by_query = np.bincount(code * num_queries + pairs.query, minlength=4 * num_queries)
        self._queries.append(by_query.reshape(4, num_queries))
        for name in self._context:
            values, size = pairs.context[name][codes == TRAIN], len(self._context[name])
            self._context[name] += np.bincount(values % size, minlength=size)  # -1 is the last
        self._add_digests(pairs, queries, codes)
        if self._plan.queries_are_items:
            self._reverses.append(self._find_reverses(pairs, queries, codes))

    def _add_digests(self, pairs: Rows, queries: Queries, codes: Parts) -> None:
        for code in (VALIDATION, TEST):
            chosen = np.flatnonzero(codes == code)
            words = keyed(code, queries.hashes[pairs.query[chosen]], self._item_hash(pairs, chosen))
            for fold in range(_FOLDS):
                words = mix(words)
                self._digests[code, [fold]] += words.sum(dtype=np.uint64)

    def _find_reverses(self, pairs: Rows, queries: Queries, codes: Parts) -> Int64:
        own = queries.items[pairs.query]
        chosen = np.flatnonzero((codes == TEST) & (own >= 0))
        if self._plan.reverse_share < 1:
            words = keyed(0, queries.hashes[pairs.query[chosen]], self._item_hash(pairs, chosen))
            chosen = chosen[below(words, self._plan.reverse_share)]
        return pack(pairs.item[chosen], own[chosen])

    def _item_hash(self, pairs: Rows, chosen: Int64) -> UInt64:
        return self._plan.item_hash[pairs.item[chosen]]

    def result(self, task: int, parts: tuple[int, ...]) -> Divided:
        """The counts of all parts added."""
        return Divided(
            task,
            parts,
            self._pairs,
            self._weight,
            [sparse(counts) for counts in self._items],
            np.concatenate(self._queries, axis=1),
            self._context,
            self.bucket_rows,
            self._digests,
            np.concatenate([np.empty(0, dtype=np.int64), *self._reverses]),
        )


def pack(left: Int32, right: Int32) -> Int64:
    """Two row numbers in one int64."""
    return (left.astype(np.int64) << 32) | right


def _pair_ids(pairs: Rows, queries: Queries, plan: DividePlan) -> PairIds:
    query_group = item_group = None
    if plan.item_group is not None:
        item_group = plan.item_group[pairs.item]
        if plan.queries_are_items:
            alone = group_alone(queries.hashes)
            query_group = np.where(queries.items < 0, alone, plan.item_group[queries.items])
    return PairIds(
        pairs.query,
        queries.hashes,
        plan.item_hash[pairs.item],
        pairs.time,
        query_group,
        item_group,
    )


def _spill(writer: SpillWriter, train: Rows, plan: DividePlan, first_query: int) -> Int64:
    """Append the train rows of one part of the queries by bucket; returns rows by bucket."""
    bucket = bucket_of(train.key, plan.num_buckets).astype(np.uint16)
    rows = np.bincount(bucket, minlength=plan.num_buckets)
    columns = row_columns(train) | {"query": train.query + np.int32(first_query)}
    columns.pop("time", None)
    if plan.with_history:
        columns["history_from"] = history_from(train)
    order = np.argsort(bucket, kind="stable")  # 16-bit: a radix sort
    writer.write({n: v[order] for n, v in columns.items()}, dict.fromkeys(columns, rows))
    return rows


def history_from(train: Rows) -> Int32:
    """Train positives of the row's query that aren't older than the row: int32 ``(P,)``.

    Args:
        train: train pairs by query, within a query newest first.

    Returns:
        Where the row's history begins in its query's list; 0 without times, where the history is
        the whole list less the row's own item.
    """
    if train.time is None:
        return np.zeros(train.num_rows, dtype=np.int32)
    starts = run_starts(train.query)
    first = np.repeat(starts, np.diff(starts, append=train.num_rows))
    same = run_starts(train.query, train.time)
    ends = np.append(same[1:], train.num_rows)
    end = np.repeat(ends, np.diff(same, append=train.num_rows))
    return (end - first).astype(np.int32)
