"""Second pass: one part of the queries at a time, its rows gathered and repeats merged.

A part is a range of the 64-bit hashes of query ids, so parts in order give the order of the query
table. Memory holds the part's distinct pairs and one chunk of its rows.

Shape letters:
    R rows    Q queries of a part    V query ids with repeats
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from twotower.core.hashing import UInt64
from twotower.core.storage import Store
from twotower.core.types import Int64
from twotower.data.columns import Int32
from twotower.data.rows import Rows, concatenate, merge_repeats, newest_first, run_starts
from twotower.data.spill import open_spill, read_one, read_part, row_columns, to_rows, write_one
from twotower.data.statistics import TimeHistogram

_CHUNK_ROWS = 1 << 19
"""Rows gathered before repeats are merged: a query of any size is merged as it comes."""


@dataclass(frozen=True, slots=True)
class Spilled:
    """A scratch file of the exchange."""

    name: str
    slices: int
    context: dict[str, Int32]
    """Code among all values of each context column, by the file's own code; last one = -1."""


@dataclass(frozen=True, slots=True)
class DedupePlan:
    """What all parts have in common."""

    spilled: tuple[Spilled, ...]
    num_parts: int
    context: tuple[str, ...]
    with_histogram: bool
    """Whether the instants of the split have to be found."""
    min_pairs: int
    """Least distinct pairs of a query; those with fewer are left out."""


@dataclass(frozen=True, slots=True)
class Deduped:
    """Sizes of a part."""

    part: int
    rows: int
    pairs: int
    queries: int
    times: TimeHistogram | None
    few_rows: int
    """Rows of the log whose query has too few pairs."""


@dataclass(frozen=True, slots=True)
class Queries:
    """Query ids of a part, by hash, then by id."""

    ids: pa.Array
    """string ``(Q,)``."""
    hashes: UInt64
    """uint64 ``(Q,)``."""
    items: Int32
    """int32 ``(Q,)``: catalogue row, -1 = none."""

    def take(self, index: Int64) -> "Queries":
        """Queries at an index."""
        return Queries(self.ids.take(pa.array(index)), self.hashes[index], self.items[index])


def join_queries(parts: Sequence[Queries]) -> Queries:
    """Queries of at least one part, one after the other."""
    return Queries(
        pa.concat_arrays([part.ids for part in parts]),
        np.concatenate([part.hashes for part in parts]),
        np.concatenate([part.items for part in parts]),
    )


def pairs_file(part: int) -> str:
    """Scratch file of a part's distinct pairs, by query and newest first."""
    return f"pairs/{part:06}.arrow"


def queries_file(part: int) -> str:
    """Scratch file of a part's queries."""
    return f"queries/{part:06}.arrow"


def dedupe(parts: Sequence[int], plan: DedupePlan, scratch: Store) -> list[Deduped]:
    """Gather, merge and write some parts."""
    return [_dedupe_part(part, plan, scratch) for part in parts]


def read_pairs(scratch: Store, part: int, context: Sequence[str]) -> Rows:
    """Distinct pairs of a part; the query is its place among the part's queries."""
    return to_rows(read_one(scratch, pairs_file(part)), context)


def read_queries(scratch: Store, part: int) -> Queries:
    """Queries of a part."""
    columns = read_one(scratch, queries_file(part))
    return Queries(columns["id"], columns["hash"].to_numpy(), columns["item"].to_numpy())


def _dedupe_part(part: int, plan: DedupePlan, scratch: Store) -> Deduped:
    merger = _Merger(plan.context)
    for spilled in plan.spilled:
        for queries, rows in _slices(spilled, part, plan, scratch):
            merger.add(queries, rows)
    queries, pairs, few_rows = merger.finish(plan.min_pairs)
    pairs = pairs.take(newest_first(pairs))
    write_one(scratch, pairs_file(part), row_columns(pairs))
    own = {"id": queries.ids, "hash": queries.hashes, "item": queries.items}
    write_one(scratch, queries_file(part), own)
    times = None
    if plan.with_histogram and pairs.time is not None and pairs.num_rows:
        times = TimeHistogram.of(pairs.time)
    num_rows = int(pairs.weight.sum(dtype=np.int64))
    return Deduped(part, num_rows, pairs.num_rows, len(queries.hashes), times, few_rows)


def _slices(
    spilled: Spilled, part: int, plan: DedupePlan, scratch: Store
) -> Iterator[tuple[Queries, Rows]]:
    """Query ids and rows of the part in each slice of a scratch file of the exchange."""
    if not spilled.slices:
        return
    with open_spill(scratch, spilled.name) as reader:
        for number in range(spilled.slices):
            columns = read_part(reader, number * plan.num_parts + part)
            if not len(columns["item"]):
                continue
            rows = to_rows(columns, plan.context)
            context = {name: spilled.context[name][rows.context[name]] for name in plan.context}
            yield (
                Queries(
                    columns["value"],
                    columns["value_hash"].to_numpy(),
                    columns["value_item"].to_numpy(),
                ),
                replace(rows, context=context),
            )


class _Merger:
    """Distinct pairs of the rows added so far, and the queries that their codes count in."""

    def __init__(self, context: Sequence[str]) -> None:
        self._queries = [
            Queries(pa.array([], pa.string()), np.empty(0, np.uint64), np.empty(0, np.int32))
        ]
        none = np.empty(0, dtype=np.int32)
        time = np.empty(0, dtype=np.int64)
        self._rows: list[Rows] = []
        self._empty = Rows(
            none, none, none, time.astype(np.uint64), time, dict.fromkeys(context, none)
        )
        self._offset = 0
        self._waiting = 0

    def add(self, queries: Queries, rows: Rows) -> None:
        """Add rows whose query codes count in ``queries``."""
        self._queries.append(queries)
        self._rows.append(replace(rows, query=rows.query + np.int32(self._offset)))
        self._offset += len(queries.hashes)
        self._waiting += rows.num_rows
        if self._waiting >= _CHUNK_ROWS:
            self._merge()

    def finish(self, min_pairs: int) -> tuple[Queries, Rows, int]:
        """Queries that have so many pairs, at least 1, their pairs, and rows of the other ones."""
        self._merge()
        queries, pairs = self._queries[0], self._rows[0]
        used = np.bincount(pairs.query, minlength=len(queries.hashes)) >= min_pairs
        few_rows = 0
        if min_pairs > 1:
            kept = used[pairs.query]
            few_rows = int(pairs.weight[~kept].sum(dtype=np.int64))
            pairs = pairs.take(kept)
        place = (np.cumsum(used) - 1).astype(np.int32)
        found = replace(pairs, query=place[pairs.query])
        return queries.take(np.flatnonzero(used)), found, few_rows

    def _merge(self) -> None:
        queries, place = _unify(self._queries)
        rows = concatenate(self._rows or [self._empty])
        self._rows = [merge_repeats(replace(rows, query=place[rows.query]))]
        self._queries = [queries]
        self._offset, self._waiting = len(queries.hashes), 0


def _unify(parts: Sequence[Queries]) -> tuple[Queries, Int32]:
    """Distinct queries by hash and id, and the place of each given one among them: int32 (V,)."""
    queries = join_queries(parts)
    ids, hashes = queries.ids, queries.hashes
    order = np.argsort(hashes)
    starts = run_starts(hashes[order])
    run = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))
    if not ids.take(pa.array(order)).equals(ids.take(pa.array(order[starts][run]))):
        # Two ids share a hash: ids decide among them.
        table = pa.table({"hash": hashes, "id": ids})
        keys = [("hash", "ascending"), ("id", "ascending")]
        order = pc.call_function("sort_indices", [table], pc.SortOptions(keys)).to_numpy()
        distinct = pc.call_function("dictionary_encode", [ids]).indices.to_numpy()
        starts = run_starts(distinct[order])
        run = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))
    place = np.empty(len(order), dtype=np.int32)
    place[order] = run
    first = order[starts]
    return queries.take(first), place
