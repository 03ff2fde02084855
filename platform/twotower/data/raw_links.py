"""The links of a raw log as numbers: how popularity spreads, and what siblings give away.

Ids become numbers first, so that ten million rows are two integer columns in memory.

Shape letters:
    P distinct pairs    Q queries    N items
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl

from twotower.core.types import Int64
from twotower.data.raw_columns import ColumnProfile
from twotower.data.raw_roles import Roles
from twotower.data.raw_tables import RawTable, exact

MAX_GROUP_MEAN = 20
"""Columns with more rows a value than this are topics rather than siblings. Chosen, not tuned."""

EXPONENT_FROM = 6
"""Smallest degree in the power-law fit; its approximation holds from about 6 (arXiv:0706.1062)."""


@dataclass(frozen=True, slots=True)
class Degrees:
    """How interactions spread over the items that have any (distinct pairs)."""

    median: float
    mean: float
    largest: int
    top_1pct_share: float
    """Share of pairs that the most popular 1 % of these items have."""
    top_10pct_share: float
    exponent: float | None
    """Power-law exponent of the degrees from `EXPONENT_FROM` on (arXiv:0706.1062 eq. 3.7)."""


@dataclass(frozen=True, slots=True)
class SiblingLeak:
    """Pairs whose query has a sibling (same value of a column) that links the same item."""

    column: str
    groups: int
    share: float
    """Of the distinct pairs."""
    expected: float
    """The same share if the siblings picked items by popularity alone."""

    @property
    def excess(self) -> float:
        """The share that popularity doesn't explain."""
        return self.share - self.expected


class Links:
    """The log as numbers: distinct pairs of usable rows, and what was left out."""

    def __init__(self, log: RawTable, catalogue: RawTable, roles: Roles) -> None:
        ids = catalogue.frame.select(exact(roles.item_id).cast(pl.String).alias("id"))
        self.item_ids = ids.collect().with_row_index("row")
        known = self.item_ids
        if not roles.queries_are_items:
            known = log.distinct(roles.query).with_row_index("row")
        self.query_ids = known
        query, item = exact(roles.query).cast(pl.String), exact(roles.item).cast(pl.String)
        rows = (
            log.frame.select(query.alias("query"), item.alias("item"))
            .join(known.lazy().rename({"id": "query", "row": "q"}), on="query", how="left")
            .join(self.item_ids.lazy().rename({"id": "item", "row": "i"}), on="item", how="left")
        )
        is_lost = pl.col("item").is_not_null() & pl.col("i").is_null()
        is_usable = pl.col("q").is_not_null() & pl.col("i").is_not_null()
        facts, lost, pairs = pl.collect_all(
            [
                rows.select(
                    usable=is_usable.sum(),
                    null_queries=pl.col("query").is_null().sum(),
                    null_items=pl.col("item").is_null().sum(),
                    missing_item_rows=is_lost.sum(),
                    missing_query_rows=(
                        pl.col("query").is_not_null() & pl.col("q").is_null()
                    ).sum(),
                ),
                rows.filter(is_lost).select(pl.col("item").n_unique()),
                rows.filter(is_usable).select("q", "i").unique(),
            ],
            engine="streaming",
        )
        self.facts: dict[str, int] = facts.row(0, named=True)
        self.num_missing_items = int(lost.item())
        self.query: Int64 = pairs["q"].to_numpy().astype(np.int64)
        self.item: Int64 = pairs["i"].to_numpy().astype(np.int64)


def degrees_of(item: Int64) -> Degrees:
    """Spread of the items of distinct pairs, int64 ``(P,)``, P > 0."""
    degrees = np.sort(np.unique(item, return_counts=True)[1])[::-1]
    total, count = int(degrees.sum()), len(degrees)
    tail = degrees[degrees >= EXPONENT_FROM]
    exponent = None
    if len(tail) >= 10:
        exponent = float(1 + len(tail) / np.log(tail / (EXPONENT_FROM - 0.5)).sum())
    return Degrees(
        median=float(np.median(degrees)),
        mean=total / count,
        largest=int(degrees[0]),
        top_1pct_share=float(degrees[: -(-count // 100)].sum() / total),
        top_10pct_share=float(degrees[: -(-count // 10)].sum() / total),
        exponent=exponent,
    )


def sibling_leaks(
    links: Links, catalogue: RawTable, columns: Iterable[ColumnProfile], roles: Roles
) -> tuple[SiblingLeak, ...]:
    """Leak through each column of the catalogue that could name siblings, worst first."""
    found: list[SiblingLeak] = []
    for column in columns:
        present = catalogue.rows - column.missing
        is_group = column.kind == "categorical" and column.name != roles.item_id
        if is_group and column.distinct < present <= MAX_GROUP_MEAN * column.distinct:
            ranks = exact(column.name).cast(pl.String).rank("dense")
            values = catalogue.frame.select(ranks).collect()
            groups = values.to_series().fill_null(0).to_numpy().astype(np.int64)
            share, expected = sibling_shares(links.query, links.item, groups)
            found.append(SiblingLeak(column.name, column.distinct, share, expected))
    return tuple(sorted(found, key=lambda leak: -leak.excess))


def sibling_shares(query: Int64, item: Int64, groups: Int64) -> tuple[float, float]:
    """Share of pairs whose query has a sibling that links the same item, and the share by chance.

    Args:
        query: int64 ``(P,)``, the catalogue row of each distinct pair's query.
        item: int64 ``(P,)``.
        groups: int64 ``(N,)``, group of each catalogue row; 0 = none, which has no siblings.

    Returns:
        The share, and the share expected where each sibling links an item with the probability
        that a query of the log does.
    """
    group = groups[query]
    _, place, linked = np.unique(pair_keys(group, item), return_inverse=True, return_counts=True)
    has_sibling = (group > 0) & (linked[place] > 1)
    active = np.unique(query)
    sizes = np.bincount(groups[active], minlength=int(groups.max()) + 1)
    degree = np.bincount(item)[item]
    chance = (degree - 1) / max(len(active) - 1, 1)
    by_chance = 1 - (1 - chance) ** (sizes[group] - 1)
    return float(has_sibling.mean()), float(by_chance[group > 0].sum() / len(query))


def pair_keys(high: Int64, low: Int64) -> Int64:
    """One int64 for each pair of row numbers below 2**31."""
    return (high << 31) | low
