"""The tables of items and queries: features fitted, encoded and written.

Shape letters:
    N items    Q queries
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from twotower.core.data_config import Data, Feature
from twotower.core.storage import Store, dump_json
from twotower.core.types import Int64
from twotower.data import features
from twotower.data.catalogue import Catalogue
from twotower.data.dedupe import Queries, join_queries, read_queries
from twotower.data.features import Encoded, Raw
from twotower.data.mutual_information import (
    codes_of_ids,
    codes_of_numbers,
    mutual_information,
)
from twotower.data.prepared import ITEMS, QUERIES
from twotower.data.schema import column_of, reads_query_id
from twotower.data.sources import Inspected
from twotower.data.vocabulary import Vocabulary
from twotower.data.write import Written, write_file, write_table

_DIGITS = 12
"""Decimals of stored information: what is beyond differs between processors."""


@dataclass(frozen=True, slots=True)
class TablePlan:
    """The catalogue and what tables are made of."""

    data: Data
    catalogue: Catalogue
    items: tuple[Inspected, ...]
    queries: tuple[Inspected, ...]
    """Shards of the query table; none unless the config names one."""
    query_ids: Catalogue | None
    """Ids of the query table."""
    groups: pa.Array | None
    """string ``(N,)``: group of each item where the split is by group."""


@dataclass(frozen=True, slots=True)
class FittedTable:
    """Files written and what the features turned out to be."""

    side: Literal["item", "query", "context"]
    files: list[Written]
    features: dict[str, dict[str, Any]]
    missing_rows: int | None = None
    """Items without a value in any feature but the id; queries that their table lacks."""


@dataclass(frozen=True, slots=True)
class ItemCounts:
    """Pairs of each item: int64 ``(N,)`` each."""

    train: Int64
    full: Int64


def vocabulary_file(side: str, name: str) -> str:
    """Stored vocabulary of a feature."""
    return f"vocab/{side}.{name}.parquet"


def fit_item_feature(name: str, plan: TablePlan, scratch: Store, target: Store) -> FittedTable:
    """Fit one item feature on the catalogue, one row an item, and keep its ids in scratch."""
    feature = plan.data.features.item[name]
    column = column_of(name, feature)
    if column == plan.data.items.id:
        raw = features.raw_ids(plan.catalogue.ids, feature)
    else:
        raw = features.read_raw(plan.items, column, feature, plan.catalogue.source_rows)
    weights = np.ones(plan.catalogue.num_rows, dtype=np.int64)
    encoded, files = _fit("item", name, feature, raw, weights, target)
    features.save(encoded, scratch, _item_scratch(name))
    return FittedTable("item", files, {name: encoded.summary})


def write_information(plan: TablePlan, scratch: Store, target: Store) -> FittedTable:
    """Write `mi.json` of the item features."""
    names = list(plan.data.features.item)
    codes = []
    for name, feature in plan.data.features.item.items():
        encoded = features.load(scratch, _item_scratch(name))
        dense = feature.kind == "dense"
        codes.append(codes_of_numbers(encoded.numbers) if dense else codes_of_ids(encoded.ids))
    found = mutual_information(codes)
    document = {
        "features": names,
        "entropy": found.entropy.round(_DIGITS).tolist(),
        "raw": found.raw.round(_DIGITS).tolist(),
        "normalised": found.normalised.round(_DIGITS).tolist(),
    }
    return FittedTable("item", [write_file(target, "mi.json", dump_json(document))], {})


def write_items(counts: ItemCounts, plan: TablePlan, scratch: Store, target: Store) -> FittedTable:
    """Write the item table."""
    stored: dict[str, Any] = {
        "item_id": plan.catalogue.ids,
        "count": counts.train,
        "full_count": counts.full,
    }
    if plan.groups is not None:
        stored["group"] = plan.groups
    bare = np.ones(plan.catalogue.num_rows, dtype=np.bool_)
    for name, feature in plan.data.features.item.items():
        encoded = features.load(scratch, _item_scratch(name))
        stored[f"f.{name}"] = encoded.column(feature.kind)
        if column_of(name, feature) != plan.data.items.id:
            bare &= encoded.missing(feature.kind)
    return FittedTable("item", [write_table(target, ITEMS, pa.table(stored))], {}, int(bare.sum()))


def write_queries(
    train_counts: Int64, num_parts: int, plan: TablePlan, scratch: Store, target: Store
) -> FittedTable:
    """Fit the query features on the train part, a query counts once a pair, and write the table.

    Args:
        train_counts: int64 ``(Q,)``: train pairs of each query.
        num_parts: parts of the queries in scratch.
        plan: the catalogue and the config.
        scratch: where earlier stages left their files.
        target: the dataset's directory.
    """
    queries = join_queries([read_queries(scratch, part) for part in range(num_parts)])
    stored: dict[str, Any] = {"query_id": queries.ids, "item": queries.items}
    rows = _source_rows(queries, plan)
    files: list[Written] = []
    summaries: dict[str, dict[str, Any]] = {}
    for name, feature in plan.data.features.query.items():
        if feature.kind == "history":
            continue
        if reads_query_id(plan.data, name, feature):
            raw = features.raw_ids(queries.ids, feature)
        else:
            shards = plan.queries or plan.items
            raw = features.read_raw(shards, column_of(name, feature), feature, rows)
        if feature.share is None:
            encoded, new = _fit("query", name, feature, raw, train_counts, target)
            files += new
        else:
            encoded = features.encode(raw, stored_vocabulary(plan.data, feature.share, target))
        stored[f"f.{name}"] = encoded.column(feature.kind)
        summaries[name] = encoded.summary
    files.append(write_table(target, QUERIES, pa.table(stored)))
    missing = None if plan.data.queries is None else int((rows < 0).sum())
    return FittedTable("query", files, summaries, missing)


def stored_vocabulary(data: Data, item_feature: str, target: Store) -> Vocabulary:
    """Vocabulary of an item feature, as an earlier stage wrote it."""
    with target.filesystem.open_input_file(
        target.full_path(vocabulary_file("item", item_feature))
    ) as source:
        table = pq.read_table(source, use_threads=False)
    return Vocabulary.from_table(table, data.features.item[item_feature].hash_buckets)


def _fit(
    side: str, name: str, feature: Feature, raw: Raw, weights: Int64, target: Store
) -> tuple[Encoded, list[Written]]:
    if feature.kind == "dense":
        return features.standardise(raw, weights), []
    known = features.fit(raw, feature, weights)
    file = write_table(target, vocabulary_file(side, name), known.to_table())
    return features.encode(raw, known), [file]


def _source_rows(queries: Queries, plan: TablePlan) -> Int64:
    """Row of each query in the table of its features: int64 ``(Q,)``; -1 = none."""
    if plan.query_ids is not None:
        rows = plan.query_ids.lookup(queries.ids, queries.hashes)
        return np.append(plan.query_ids.source_rows, -1)[rows]
    if plan.data.queries == "items":
        return np.append(plan.catalogue.source_rows, -1)[queries.items]
    return np.full(len(queries.ids), -1, dtype=np.int64)


def _item_scratch(name: str) -> str:
    return f"items/{name}.arrow"
