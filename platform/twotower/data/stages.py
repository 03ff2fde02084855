"""What the tasks of each stage do: plain functions of a unit of work and what all units share.

The stages are inspect, read, merge, split and write. Rows never pass through the driver or an
object store: tasks leave them in scratch files and answer with counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from twotower.core.storage import Store
from twotower.core.types import Int64
from twotower.data import sources, tables
from twotower.data.dedupe import Deduped, DedupePlan, dedupe
from twotower.data.divide import Divided, DividePlan, divide
from twotower.data.exchange import Exchanged, Fragment, LogPlan, exchange
from twotower.data.schema import SourceName
from twotower.data.shards import Shard
from twotower.data.sources import Inspected
from twotower.data.tables import FittedTable, ItemCounts, TablePlan
from twotower.data.write import WritePlan, Written, WrittenPairs, write_bucket, write_pairs


@dataclass(frozen=True, slots=True)
class Base:
    """What all stages after the first share."""

    scratch: Store
    target: Store
    tables: TablePlan


@dataclass(frozen=True, slots=True)
class ItemFeature:
    """Unit: fit and encode one item feature."""

    name: str


@dataclass(frozen=True, slots=True)
class Information:
    """Unit: mutual information of the item features."""


@dataclass(frozen=True, slots=True)
class QueryParts:
    """Unit: some parts of the queries."""

    task: int
    parts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Buckets:
    """Unit: some buckets of train rows."""

    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ItemTable:
    """Unit: the table of items."""

    counts: ItemCounts


@dataclass(frozen=True, slots=True)
class QueryTable:
    """Unit: the table of queries."""

    train_counts: Int64
    num_parts: int


def inspect_shards(
    unit: Sequence[tuple[SourceName, Shard]], _base: None, _plan: None
) -> list[tuple[SourceName, Inspected]]:
    """Stage inspect: what shards hold."""
    return [(name, sources.inspect(shard)) for name, shard in unit]


def read_log(unit: Fragment | ItemFeature, base: Base, plan: LogPlan) -> Exchanged | FittedTable:
    """Stage read: the log becomes integers, item features are fitted."""
    if isinstance(unit, ItemFeature):
        return tables.fit_item_feature(unit.name, base.tables, base.scratch, base.target)
    return exchange(unit, plan, base.tables.catalogue, base.scratch)


def merge_rows(
    unit: QueryParts | Information, base: Base, plan: DedupePlan
) -> list[Deduped] | FittedTable:
    """Stage merge: repeats become weights."""
    if isinstance(unit, Information):
        return tables.write_information(base.tables, base.scratch, base.target)
    return dedupe(unit.parts, plan, base.scratch)


def split_pairs(unit: QueryParts, base: Base, plan: DividePlan) -> Divided:
    """Stage split: pairs get their part and are counted."""
    return divide(unit.task, unit.parts, plan, base.scratch)


def write_files(
    unit: Buckets | QueryParts | ItemTable | QueryTable, base: Base, plan: WritePlan
) -> list[Written] | list[WrittenPairs] | FittedTable:
    """Stage write: train rows, pairs and tables."""
    if isinstance(unit, Buckets):
        return [write_bucket(bucket, plan, base.scratch, base.target) for bucket in unit.numbers]
    if isinstance(unit, ItemTable):
        return tables.write_items(unit.counts, base.tables, base.scratch, base.target)
    if isinstance(unit, QueryTable):
        return tables.write_queries(
            unit.train_counts, unit.num_parts, base.tables, base.scratch, base.target
        )
    return [write_pairs(part, plan, base.scratch, base.target) for part in unit.parts]
