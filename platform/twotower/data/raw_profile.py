"""A profile of raw data before it is prepared: sizes, bad rows, leaks, popularity."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from twotower.core.errors import DataError
from twotower.data.raw_columns import ColumnProfile, profile_columns
from twotower.data.raw_links import (
    Degrees,
    Links,
    SiblingLeak,
    degrees_of,
    pair_keys,
    sibling_leaks,
)
from twotower.data.raw_roles import Roles, guess_roles
from twotower.data.raw_tables import RawTable, exact, open_table, reading


@dataclass(frozen=True, slots=True)
class TableProfile:
    """One raw table."""

    path: str
    format: str
    rows: int
    columns: tuple[ColumnProfile, ...]


@dataclass(frozen=True, slots=True)
class Rating:
    """A column that says how much an item was liked."""

    column: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows and pairs of the log. Usable rows have a known item and query."""

    rows: int
    usable_rows: int
    null_queries: int
    """Rows with a null query id."""
    null_items: int
    missing_item_rows: int
    """Rows whose item id the catalogue lacks."""
    missing_items: int
    """Distinct item ids that the catalogue lacks."""
    missing_query_rows: int
    """Rows whose query id the catalogue lacks, where queries are items."""
    null_times: int
    pairs: int
    """Distinct pairs of usable rows."""
    queries: int
    items: int
    """Items of the catalogue that are interacted with."""
    catalogue_items: int
    one_row_queries: int
    """Queries with one distinct pair."""
    queries_without_features: int
    """Queries of the log that the query table lacks."""
    self_links: int
    """Pairs of a thing with itself, where queries are items."""
    reverse_pairs: int
    """Pairs whose reverse stands in the log too, where queries are items."""

    @property
    def repeated_rows(self) -> int:
        """Usable rows beyond the first of their pair."""
        return self.usable_rows - self.pairs

    @property
    def dropped_rows(self) -> int:
        """Rows that prepare can't use."""
        return self.rows - self.usable_rows


@dataclass(frozen=True, slots=True)
class DataProfile:
    """Everything `init` knows of the data."""

    log: TableProfile
    catalogue: TableProfile
    queries: TableProfile | None
    roles: Roles
    counts: Counts
    degrees: Degrees
    siblings: tuple[SiblingLeak, ...]
    rating: Rating | None

    def to_json(self) -> dict[str, Any]:
        """The profile as plain JSON values."""
        return asdict(self)


def profile(log: str, catalogue: str, queries: str | None = None) -> DataProfile:
    """Profile a log and its catalogue.

    Args:
        log: file, folder or glob of interactions.
        catalogue: the same of the items, one row each.
        queries: the same of query features; None where there are none, or queries are items.

    Raises:
        DataError: a table can't be read or is empty, or the columns of ids can't be found.
    """
    tables = [open_table(log), open_table(catalogue)]
    if queries is not None and queries != catalogue:
        tables.append(open_table(queries))
    interactions, items = tables[:2]
    query_table = tables[2] if len(tables) == 3 else None
    roles = guess_roles(interactions, items, query_table)
    with reading(log):
        links = Links(interactions, items, roles)
        rating = _rating(interactions, roles)
        counts = _counts(links, interactions, query_table, roles)
    if counts.pairs == 0:
        raise DataError(f"{log}: no row has a known {roles.query!r} and {roles.item!r}")
    profiles = [
        TableProfile(t.path, t.format, t.rows, profile_columns(t, estimate=t is interactions))
        for t in tables
    ]
    siblings: tuple[SiblingLeak, ...] = ()
    if roles.queries_are_items:
        siblings = sibling_leaks(links, items, profiles[1].columns, roles)
    return DataProfile(
        log=profiles[0],
        catalogue=profiles[1],
        queries=profiles[2] if query_table else None,
        roles=roles,
        counts=counts,
        degrees=degrees_of(links.item),
        siblings=siblings,
        rating=rating,
    )


def _counts(links: Links, log: RawTable, query_table: RawTable | None, roles: Roles) -> Counts:
    null_times = 0
    if roles.time is not None:
        null_times = log.frame.select(exact(roles.time).is_null().sum()).collect().item()
    without = 0
    if query_table is not None and roles.query_id is not None:
        lacking = links.query_ids.join(query_table.distinct(roles.query_id), on="id", how="anti")
        without = len(lacking)
    is_self = links.query == links.item
    reverse = 0
    if roles.queries_are_items:
        keys, reverse_keys = pair_keys(links.query, links.item), pair_keys(links.item, links.query)
        reverse = int((np.isin(keys, reverse_keys) & ~is_self).sum())
    degrees = np.unique(links.query, return_counts=True)[1]
    return Counts(
        rows=log.rows,
        usable_rows=links.facts["usable"],
        null_queries=links.facts["null_queries"],
        null_items=links.facts["null_items"],
        missing_item_rows=links.facts["missing_item_rows"],
        missing_items=links.num_missing_items,
        missing_query_rows=links.facts["missing_query_rows"],
        null_times=int(null_times),
        pairs=len(links.query),
        queries=len(degrees),
        items=len(np.unique(links.item)),
        catalogue_items=len(links.item_ids),
        one_row_queries=int((degrees == 1).sum()),
        queries_without_features=without,
        self_links=int(is_self.sum()) if roles.queries_are_items else 0,
        reverse_pairs=reverse,
    )


def _rating(log: RawTable, roles: Roles) -> Rating | None:
    if roles.rating is None:
        return None
    column = exact(roles.rating).cast(pl.Float64)
    low, high = log.frame.select(column.min().alias("low"), column.max().alias("high")).collect()
    if low[0] is None or low[0] == high[0]:
        return None
    return Rating(roles.rating, low[0], high[0])
