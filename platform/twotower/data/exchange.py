"""First pass over the log: text to integers, bad rows counted, rows sent to their query's part.

Shape letters:
    R rows of a slice    V distinct query ids of a slice    P parts
"""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from twotower.core.hashing import UInt64, bucket_of
from twotower.core.seeding import derive
from twotower.core.storage import Store
from twotower.core.types import Int64
from twotower.data import positive
from twotower.data.catalogue import Catalogue
from twotower.data.columns import Coded, Int32, Values, factorize, integers
from twotower.data.hashing import Bools, hash_strings, keyed
from twotower.data.rows import Rows
from twotower.data.sources import Inspected, read_batches
from twotower.data.spill import SpillWriter, row_columns

SLICE_ROWS = 1 << 17
"""Most rows of the log in memory at a time. Chosen, not tuned; no result depends on it."""

BAD = ("null_query", "null_item", "null_time", "unknown_query", "unknown_item")
"""Reasons that count against `data.max_dropped_share`."""

NOT_POSITIVE, SELF_LINK = "not_positive", "self_link"
_MIRRORED = np.uint64(0xD1B54A32D192ED03)


@dataclass(frozen=True, slots=True)
class LogPlan:
    """What to read of the log and what to do with it."""

    query: str
    item: str
    time: str | None
    context: dict[str, str]
    """Column by feature."""
    positive: str | None
    positive_columns: tuple[str, ...]
    queries_are_items: bool
    undirected: bool
    seed: int
    num_parts: int

    @property
    def columns(self) -> list[str]:
        """Columns read."""
        wanted = [self.query, self.item, self.time, *self.context.values(), *self.positive_columns]
        return list(dict.fromkeys(name for name in wanted if name is not None))


@dataclass(frozen=True, slots=True)
class Fragment:
    """Row groups of one shard: the work of one task."""

    number: int
    shard: Inspected
    groups: range

    @property
    def spill(self) -> str:
        """Scratch file of the fragment."""
        return f"exchange/{self.number:06}.arrow"


@dataclass
class Exchanged:
    """What became of a fragment."""

    fragment: int
    rows: int = 0
    slices: int = 0
    """Slices written; slice s has the parts ``s * P .. (s + 1) * P - 1`` of the scratch file."""
    dropped: Counter[str] = field(default_factory=Counter)
    first_bad: str = ""
    """The first bad row in words, for `data.on_bad_row: error`."""
    values: dict[str, pa.Array] = field(default_factory=dict)
    """Distinct values of each context column, by the codes used in the scratch file."""


@dataclass(frozen=True, slots=True)
class _Slice:
    """Rows of the log with their ids looked up."""

    number: Int64
    """int64 ``(R,)``: row of the shard."""
    query: Coded
    query_hash: UInt64
    """uint64 ``(V,)``."""
    query_item: Int32
    """int32 ``(V,)``: catalogue row of the query id, -1 = none."""
    item: Int32
    """int32 ``(R,)``: catalogue row, -1 = null or unknown."""
    batch: pa.RecordBatch


def exchange(fragment: Fragment, plan: LogPlan, catalogue: Catalogue, scratch: Store) -> Exchanged:
    """Read a fragment slice by slice and write its rows, parts one after the other, to scratch.

    Raises:
        DataError: the shard is damaged.
    """
    done = Exchanged(fragment.number)
    values = {name: Values() for name in plan.context}
    seed = derive(plan.seed, "rows", fragment.shard.digest)
    with SpillWriter(scratch, fragment.spill) as writer:
        batches = read_batches(fragment.shard, plan.columns, SLICE_ROWS, fragment.groups)
        for first, batch in batches:
            number = np.arange(first, first + batch.num_rows, dtype=np.int64)
            found = _look_up(*_keep_positive(number, batch, plan, done), plan, catalogue)
            del batch  # one slice in memory, not two
            found = _drop_bad(found, plan, done, fragment)
            _write(writer, found, _rows(found, plan, values, seed), plan, catalogue)
            del found
            done.rows += len(number)
            done.slices += 1
    done.values = {name: known.known for name, known in values.items()}
    return done


def _keep_positive(
    number: Int64, batch: pa.RecordBatch, plan: LogPlan, done: Exchanged
) -> tuple[Int64, pa.RecordBatch]:
    if plan.positive is None:
        return number, batch
    keep = positive.evaluate(plan.positive, batch, plan.positive_columns)
    done.dropped[NOT_POSITIVE] += int((~keep).sum())
    return number[keep], batch.filter(pa.array(keep))


def _look_up(number: Int64, batch: pa.RecordBatch, plan: LogPlan, catalogue: Catalogue) -> _Slice:
    query, item = factorize(batch.column(plan.query)), factorize(batch.column(plan.item))
    hashes = hash_strings(query.values)
    if plan.queries_are_items:
        query_item = catalogue.lookup(query.values, hashes)
    else:
        query_item = np.full(len(hashes), -1, dtype=np.int32)
    rows = np.append(catalogue.lookup(item.values, hash_strings(item.values)), np.int32(-1))
    return _Slice(number, query, hashes, query_item, rows[item.codes], batch)


def _drop_bad(found: _Slice, plan: LogPlan, done: Exchanged, fragment: Fragment) -> _Slice:
    """The rows that can be used; each other one is counted under its first reason."""
    left = np.ones(len(found.number), dtype=np.bool_)
    for reason, bad in _bad_rows(found, plan):
        here = np.flatnonzero(bad & left)
        if not len(here):
            continue
        done.dropped[reason] += len(here)
        left[here] = False
        if reason in BAD and not done.first_bad:
            row = int(found.number[here[0]])
            done.first_bad = f"{fragment.shard.shard.path}: row {row}: {reason.replace('_', ' ')}"
    if left.all():
        return found
    return replace(
        found,
        number=found.number[left],
        query=Coded(found.query.codes[left], found.query.values),
        item=found.item[left],
        batch=found.batch.filter(pa.array(left)),
    )


def _bad_rows(found: _Slice, plan: LogPlan) -> list[tuple[str, Bools]]:
    null_item = found.batch.column(plan.item)
    bad = [
        ("null_query", found.query.codes < 0),
        ("null_item", _nulls(null_item)),
        ("unknown_item", found.item < 0),
    ]
    if plan.time is not None:
        bad.append(("null_time", _nulls(found.batch.column(plan.time))))
    if plan.queries_are_items:
        own = np.append(found.query_item, np.int32(-1))[found.query.codes]
        if plan.undirected:
            bad.append(("unknown_query", own < 0))
        bad.append((SELF_LINK, own == found.item))
    return bad


def _nulls(column: pa.Array) -> Bools:
    if not column.null_count and not pa.types.is_dictionary(column.type):
        return np.zeros(len(column), dtype=np.bool_)
    return column.is_null().to_numpy(zero_copy_only=False)


def _rows(found: _Slice, plan: LogPlan, values: dict[str, Values], seed: int) -> Rows:
    """Rows of the slice; the query is its code, a context value its code in the fragment."""
    time = None if plan.time is None else integers(found.batch.column(plan.time))
    context = {
        name: values[name].encode(factorize(found.batch.column(column)))
        for name, column in plan.context.items()
    }
    key = keyed(seed, found.number.astype(np.uint64))
    weight = np.ones(len(key), dtype=np.int32)
    return Rows(found.query.codes, found.item, weight, key, time, context)


def _mirror(found: _Slice, rows: Rows) -> tuple[Rows, Int32]:
    """Both directions of each edge, and the catalogue rows that the query codes stand for."""
    left, right = found.query_item[found.query.codes], found.item
    nodes, codes = np.unique(np.concatenate([left, right]), return_inverse=True)
    twice = np.tile(np.arange(len(left)), 2)
    both = rows.take(twice)
    key = both.key.copy()
    key[len(left) :] ^= _MIRRORED
    return (
        replace(both, query=codes.astype(np.int32), item=np.concatenate([right, left]), key=key),
        nodes.astype(np.int32),
    )


def _write(
    writer: SpillWriter, found: _Slice, rows: Rows, plan: LogPlan, catalogue: Catalogue
) -> None:
    """Append a slice's parts: its rows by part of their query, and each part's query ids."""
    texts, hashes, items = found.query.values, found.query_hash, found.query_item
    if plan.undirected:
        rows, items = _mirror(found, rows)
        texts, hashes = catalogue.ids.take(pa.array(items)), catalogue.hashes[items]
    part = bucket_of(hashes, plan.num_parts).astype(np.uint16)
    in_part = np.bincount(part, minlength=plan.num_parts)
    by_part = np.argsort(part, kind="stable")  # 16-bit: a radix sort
    code = np.empty(len(part), dtype=np.int32)
    starts = np.cumsum(in_part) - in_part
    code[by_part] = np.arange(len(part)) - np.repeat(starts, in_part)
    row_part = part[rows.query]
    rows_in_part = np.bincount(row_part, minlength=plan.num_parts)
    columns = row_columns(
        replace(rows, query=code[rows.query]).take(np.argsort(row_part, kind="stable"))
    )
    del columns["weight"]
    own = {
        "value": texts.take(pa.array(by_part)),
        "value_hash": hashes[by_part],
        "value_item": items[by_part],
    }
    writer.write(columns | own, dict.fromkeys(columns, rows_in_part) | dict.fromkeys(own, in_part))
