"""Ranking metrics of one query each, over binary truth and the whole catalogue.

Shape letters:
    Q queries    K items reported    T true pairs in all
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twotower.core.types import Float64, Int64, Ragged
from twotower.evaluation.slices import Mask

Int32 = NDArray[np.int32]

NOTHING = -1
"""Pads the lists of queries with fewer than K candidates."""

DEFINITIONS = {
    "recall": "true items among the first K / all true items",
    "map": "sum over hits of precision at the hit's rank / min(K, true items)",
    "ndcg": "sum over hits of 1 / log2(rank + 1) / that sum of a list of min(K, true items) hits",
    "mrr": "1 / rank of the first hit, 0 without one among the first K",
}
"""Means over queries with at least one true item, as the certificate has them."""


@dataclass(frozen=True, slots=True)
class Truth:
    """True items that can be found, and those that can't."""

    items: Ragged
    """Q rows of distinct item rows, ascending."""

    own: int
    """Pairs left out because the item is the query itself."""

    filtered: int
    """Further pairs left out because the filter removes the item from the query's candidates."""


def findable_truth(truth: Ragged, exclude: Ragged, own_item: Int64, num_items: int) -> Truth:
    """Drop the pairs no list can hold; repeated pairs count once.

    Args:
        truth: Q rows of true items.
        exclude: Q rows of items the filter removes.
        own_item: int64 ``(Q,)``, -1 where the query is no item.
        num_items: N.
    """
    codes = np.unique(_codes(truth, num_items))
    rows, items = np.divmod(codes, num_items)
    is_own = own_item[rows] == items
    is_filtered = np.isin(codes, _codes(exclude, num_items)) & ~is_own
    kept = ~(is_own | is_filtered)
    lengths = np.bincount(rows[kept], minlength=truth.num_rows)
    return Truth(
        Ragged.from_lengths(lengths, items[kept]), int(is_own.sum()), int(is_filtered.sum())
    )


def true_ranks(top: Int32, truth: Ragged, num_items: int) -> Int32:
    """Where each true item stands in its query's list, which all ranking metrics follow from.

    Args:
        top: int32 ``(Q, K)``: items, best first, `NOTHING` after the last candidate.
        truth: Q rows of P distinct items, rows ascending.
        num_items: N.

    Returns:
        int32 ``(P,)``: rank from 1, 0 = not in the list.
    """
    listed = top + np.arange(len(top), dtype=np.int64)[:, None] * num_items
    codes = _codes(truth, num_items)
    ranks_P = np.zeros(len(codes), dtype=np.int32)
    if not len(codes):
        return ranks_P
    place = np.minimum(np.searchsorted(codes, listed), len(codes) - 1)
    query, column = np.nonzero((codes[place] == listed) & (top != NOTHING))
    ranks_P[place[query, column]] = column + 1
    return ranks_P


def hits(ranks_P: Int32, truth: Ragged, k: int) -> Mask:
    """Whether each of the first k of every list is true, bool ``(Q, k)``; from `true_ranks`."""
    hits_QK = np.zeros((truth.num_rows, k), dtype=np.bool_)
    found = (ranks_P > 0) & (ranks_P <= k)
    hits_QK[truth.row_ids()[found], ranks_P[found] - 1] = True
    return hits_QK


def ranking_metrics(hits_QK: Mask, num_true_Q: Int64, k: int) -> dict[str, Float64]:
    """The metrics of `DEFINITIONS` at one cut-off.

    Args:
        hits_QK: bool ``(Q, K)``, best rank first, K >= k.
        num_true_Q: int64 ``(Q,)``: true items of each query.
        k: the cut-off.

    Returns:
        name -> float64 ``(Q,)``, NaN where the query has no true item.
    """
    found_QK = hits_QK[:, :k].astype(np.float64)
    ranks_K: Int64 = np.arange(1, found_QK.shape[1] + 1, dtype=np.int64)
    gains_K = 1 / np.log2(ranks_K + 1)
    ideal_K = np.concatenate([[np.nan], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
    true_Q = np.where(num_true_Q > 0, num_true_Q, np.nan)
    reachable_Q = np.minimum(num_true_Q, k)
    precision_QK = found_QK.cumsum(axis=1) / ranks_K
    return {
        "recall": found_QK.sum(axis=1) / true_Q,
        "map": (precision_QK * found_QK).sum(axis=1) / np.minimum(true_Q, k),
        "ndcg": (found_QK * gains_K).sum(axis=1) / ideal_K[reachable_Q],
        "mrr": np.where(num_true_Q > 0, (found_QK / ranks_K).max(axis=1, initial=0), np.nan),
    }


def mean_popularity(top: Int32, full_counts: Int64, k: int) -> Float64:
    """Mean full-train count of the first k recommended items, float64 ``(Q,)``; NaN if none.

    Average recommendation popularity (Yin et al., VLDB 2012), in train pairs an item. The plain
    mean, not of logarithms: it is in pairs, and comparable with published figures.
    """
    listed_QK = top[:, :k] != NOTHING
    counts_QK = np.where(listed_QK, full_counts[top[:, :k]], 0)
    num_listed_Q = listed_QK.sum(axis=1)
    return counts_QK.sum(axis=1) / np.where(num_listed_Q > 0, num_listed_Q, np.nan)


def coverage(top: Int32, num_items: int, k: int) -> float:
    """Share of the catalogue that stands in the first k of at least one query's list."""
    listed = top[:, :k]
    return len(np.unique(listed[listed != NOTHING])) / num_items


def _codes(rows: Ragged, num_items: int) -> NDArray[np.int64]:
    """One number for every (query, item) pair."""
    return rows.row_ids() * num_items + rows.values.astype(np.int64)
