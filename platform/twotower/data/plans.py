"""What each stage of a preparation is given, from the config and the counts of the stages before.

Sizes of the work depend on the number of rows only, never on the machine: so do the files.
"""

import math
from collections.abc import Sequence

import numpy as np

from twotower.core.data_config import Data
from twotower.core.hashing import UInt64
from twotower.core.storage import Store
from twotower.data import features, positive, stages, vocabulary
from twotower.data.catalogue import Catalogue, build_catalogue, group_hashes
from twotower.data.columns import Int32
from twotower.data.counts import MergeCounts, ReadCounts, SplitCounts
from twotower.data.dedupe import DedupePlan
from twotower.data.divide import DividePlan
from twotower.data.exchange import Fragment, LogPlan
from twotower.data.schema import SourceName
from twotower.data.shards import Shard
from twotower.data.sources import Inspected, read_column
from twotower.data.splits import LEFT_OUT, TRAIN, SplitPlan
from twotower.data.tables import (
    FittedTable,
    ItemCounts,
    TablePlan,
    stored_vocabulary,
    vocabulary_file,
)
from twotower.data.write import WritePlan, write_table

TASK_ROWS = 1 << 20
"""Rows of one task, about: a second of work. Chosen, not tuned; no result depends on it."""

PART_ROWS = 1 << 18
"""Rows of a part of the queries, and of a bucket of the order, on average. Files depend on it."""

_TASK_BYTES = 1 << 26
_TASK_SHARDS = 64
"""Most bytes and files that one task inspects."""

_MOST_PARTS = 1 << 12
_LANE_ROWS = 1 << 9
"""Least rows of a bucket for each lane."""

_MOST_REVERSES = 1 << 20
"""Most test pairs whose reverse is looked for in train; of more a sample is taken."""

Sources = dict[SourceName, list[Inspected]]


def plan_tables(data: Data, found: Sources) -> tuple[TablePlan, UInt64 | None]:
    """The catalogue, and the hash of each item's group where the split is by group.

    Raises:
        DataError: an id is null or stands twice.
    """
    items, queries = found["items"], found.get("queries", [])
    catalogue = build_catalogue(read_column(items, data.items.id), "data.items")
    query_ids: Catalogue | None = None
    if not isinstance(data.queries, str) and data.queries is not None:
        query_ids = build_catalogue(read_column(queries, data.queries.id), "data.queries")
    names, hashes = None, None
    if data.split.column is not None:
        hashes, names = group_hashes(catalogue, read_column(items, data.split.column))
    return TablePlan(data, catalogue, tuple(items), tuple(queries), query_ids, names), hashes


def plan_log(data: Data, log: Sequence[Inspected]) -> LogPlan:
    """How the log is read."""
    rows = sum(shard.rows for shard in log) * (2 if data.undirected else 1)
    columns = positive.columns_of(data.positive)
    return LogPlan(
        query=data.interactions.query,
        item=data.interactions.item,
        time=data.interactions.time,
        context={name: f.column or name for name, f in data.features.context.items()},
        positive=data.positive,
        positive_columns=columns,
        queries_are_items=data.queries == "items",
        undirected=data.undirected,
        seed=data.seed,
        num_parts=min(max(1, round(rows / PART_ROWS)), _MOST_PARTS),
    )


def cut_shards(
    shards: dict[SourceName, list[Shard]],
) -> list[tuple[tuple[SourceName, Shard], ...]]:
    """Shards for each task of the inspection: many small ones, or one large one."""
    units: list[tuple[tuple[SourceName, Shard], ...]] = []
    waiting: list[tuple[SourceName, Shard]] = []
    for name, own in shards.items():
        for shard in own:
            size = sum(other.size for _, other in waiting)
            if waiting and (size + shard.size > _TASK_BYTES or len(waiting) == _TASK_SHARDS):
                units.append(tuple(waiting))
                waiting = []
            waiting.append((name, shard))
    return [*units, tuple(waiting)]


def cut_log(log: Sequence[Inspected]) -> list[Fragment]:
    """Fragments of the shards: neighbouring row groups up to the rows of a task, at least one."""
    fragments: list[Fragment] = []
    for shard in log:
        start, rows = 0, 0
        for group, count in enumerate(shard.groups):
            if rows and rows + count > TASK_ROWS:
                fragments.append(Fragment(len(fragments), shard, range(start, group)))
                start, rows = group, 0
            rows += count
        fragments.append(Fragment(len(fragments), shard, range(start, len(shard.groups))))
    return fragments


def cut_parts(num_parts: int) -> list[stages.QueryParts]:
    """Parts of the queries for each task."""
    size = TASK_ROWS // PART_ROWS
    return [
        stages.QueryParts(start // size, tuple(range(start, min(start + size, num_parts))))
        for start in range(0, num_parts, size)
    ]


def cut_tables(counts: SplitCounts, num_parts: int) -> list[stages.ItemTable | stages.QueryTable]:
    """The two tables, the slower one first."""
    full = counts.items[TRAIN] + counts.items[LEFT_OUT]
    return [
        stages.QueryTable(counts.queries[TRAIN], num_parts),
        stages.ItemTable(ItemCounts(counts.items[TRAIN], full)),
    ]


def cut_buckets(counts: SplitCounts) -> list[stages.Buckets]:
    """Buckets of the order for each task."""
    size = TASK_ROWS // PART_ROWS
    number = len(counts.bucket_rows)
    return [
        stages.Buckets(tuple(range(start, min(start + size, number))))
        for start in range(0, number, size)
    ]


def plan_merge(data: Data, log: LogPlan, read: ReadCounts) -> DedupePlan:
    """How repeats are merged."""
    quantiles = data.split.kind == "time" and data.split.instants is None
    return DedupePlan(
        read.spilled, log.num_parts, tuple(log.context), quantiles, data.min_query_pairs
    )


def plan_split(
    data: Data, read: ReadCounts, merged: MergeCounts, tables: TablePlan, groups: UInt64 | None
) -> DividePlan:
    """How pairs are split and train rows sent to their bucket."""
    instants = data.split.instants
    if instants is None and merged.times is not None:
        instants = merged.times.instants(data.split.validation, data.split.test)
    bucket_rows = max(PART_ROWS, data.lanes * _LANE_ROWS)
    return DividePlan(
        split=SplitPlan(data.split, data.seed, data.fraction, data.undirected, instants),
        context_sizes={name: len(values) for name, values in read.values.items()},
        item_hash=tables.catalogue.hashes,
        item_group=groups,
        queries_are_items=data.queries == "items",
        first_query=merged.first_query,
        num_buckets=max(1, math.ceil(merged.pairs * data.fraction / bucket_rows)),
        with_history=any(f.kind == "history" for f in data.features.query.values()),
        reverse_share=min(1.0, _MOST_REVERSES / max(merged.pairs, 1)),
    )


def fit_context(
    data: Data, read: ReadCounts, counts: SplitCounts, target: Store
) -> tuple[dict[str, Int32], FittedTable]:
    """Vocabularies of the log's own columns, fitted on the train part.

    Returns:
        Id by code of each context feature, and the files written.
    """
    ids, fitted = {}, FittedTable("context", [], {})
    for name, feature in data.features.context.items():
        values, seen = read.values[name], counts.context[name]
        if feature.share is None:
            known = vocabulary.fit(values, seen[:-1], feature)
            file = vocabulary_file("context", name)
            fitted.files.append(write_table(target, file, known.to_table()))
        else:
            known = stored_vocabulary(data, feature.share, target)
        ids[name] = features.context_ids(known, values)
        train = max(int(seen.sum()), 1)
        outside = ids[name][:-1] >= known.size - known.hash_buckets
        outside |= ids[name][:-1] == 1
        fitted.features[name] = {
            "vocab_size": known.size,
            "distinct": int((seen[:-1] > 0).sum()),
            "kept": len(known.values),
            "missing_share": int(seen[-1]) / train,
            "outside_share": int(seen[:-1][outside].sum()) / train,
        }
    return ids, fitted


def plan_write(
    data: Data,
    ids: dict[str, Int32],
    merged: MergeCounts,
    counts: SplitCounts,
) -> WritePlan:
    """How files are written."""
    return WritePlan(
        lanes=data.lanes,
        context_ids=ids,
        spilled=counts.spilled,
        num_buckets=len(counts.bucket_rows),
        bucket_first=np.cumsum(counts.bucket_rows) - counts.bucket_rows,
        first_query=merged.first_query,
        reverses=counts.reverses,
    )
