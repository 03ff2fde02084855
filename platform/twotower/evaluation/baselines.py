"""Rankings that need no training: what a model must beat before its numbers mean anything.

All three are exact scorers (`error` 0). Weights lie on a binary grid so coarse that float64 sums of
their products have no rounding: scores don't depend on the order of additions, and equal evidence
is an exact tie for the tie rule to order.

Shape letters:
    Q evaluated queries    N items    b queries of one tile
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from twotower.core.types import FIRST_ID, EncodedFeature, Float64, Int64, Ragged
from twotower.evaluation.sparse import Sparse, blocks
from twotower.evaluation.ties import UInt64, tie_ranks

_CONTENT_GRID = 2.0**24
"""Unit vectors' entries are multiples of 2^-24; sums of products up to 2^5 are exact in float64."""

_SIMILARITY_GRID = 2.0**32
"""Similarities are multiples of 2^-32; sums up to 2^20 are exact in float64."""

_MAX_PRODUCTS = 2**21
"""Sparse products held at once, about 64 MiB: chosen, not tuned."""

_BLOCK_ROWS = 64
"""Queries scattered at once: their scores should stay in cache (64 was fastest of 16, 64, 256)."""


@dataclass(frozen=True, slots=True)
class Profiles:
    """What a baseline may know of the evaluated queries."""

    own_item: Int64
    """int64 ``(Q,)``: the query as an item, -1 where it is none."""

    positives: Ragged
    """Q rows: items of its train pairs."""


class PopularityScorer:
    """The same list for everybody: items by how many train pairs they have."""

    error = 0.0

    def __init__(self, counts: Int64) -> None:
        """Keep the counts: int64 ``(N,)``, of the train part the models saw."""
        self._counts_N = torch.as_tensor(counts).double()

    def tile(self, rows: Int64) -> Tensor:
        """float64 ``(b, N)``."""
        return self._counts_N.expand(len(rows), -1).clone()

    def exact(self, rows: Int64, items: Int64) -> Float64:  # noqa: ARG002 - one list for all rows
        """float64 ``(b, C)``."""
        return self._counts_N.numpy()[items]


class InvertedScorer:
    """Sparse dot products: each query has a weighted bag of keys, each key a list of items."""

    error = 0.0

    def __init__(self, bags: Sparse, postings: Sparse, described_by: Sparse | None = None) -> None:
        """Keep them.

        Args:
            bags: Q rows over the keys; or over the rows of ``described_by``.
            postings: a row a key, over the N items.
            described_by: rows over the keys; a query's bag is the sum of those its own bag names,
                brought to norm 1. Multiplied out tile by tile, never whole.
        """
        self._bags, self._postings, self._described_by = bags, postings, described_by

    def tile(self, rows: Int64) -> Tensor:
        """float64 ``(b, N)``; beside it at most about 64 MiB, or one query's own products."""
        num_items = self._postings.num_columns
        scores = np.empty((len(rows), num_items))
        bags = self._bags.take(rows)
        if self._described_by is not None:
            bags = bags.times(self._described_by).normalised(_CONTENT_GRID)
        for block in blocks(bags.work(self._postings), _MAX_PRODUCTS, _BLOCK_ROWS):
            bag = bags.take(block)
            found = self._postings.take(bag.columns)
            lengths = found.lengths()
            place = np.repeat(bag.row_ids() * num_items, lengths) + found.columns
            products = np.repeat(bag.weights, lengths) * found.weights
            dense = np.bincount(place, products, minlength=len(block) * num_items)
            scores[block] = dense.reshape(len(block), num_items)
        return torch.as_tensor(scores)

    def exact(self, rows: Int64, items: Int64) -> Float64:
        """float64 ``(b, C)``."""
        return np.take_along_axis(self.tile(rows).numpy(), items, axis=1)


def content_scorer(features: Sequence[EncodedFeature], profiles: Profiles) -> InvertedScorer:
    """Cosine of TF-IDF bags: items described like the query.

    Terms are the known values (ids from `FIRST_ID`) of the categorical and multi-valued features;
    equal ids of two features are two terms. Weight = count in the item times
    ln((1 + N) / (1 + df)) + 1, rows of norm 1 (the formula of scikit-learn's TfidfVectorizer).
    A query that is an item is that item's row; any other is the sum of its train positives' rows,
    brought to norm 1.

    Args:
        features: of all N items, for example words and source; dense ones are left out.
        profiles: the evaluated queries.
    """
    rows: list[Int64] = []
    terms: list[Int64] = []
    num_items, num_terms = 0, 0
    for feature in features:
        if isinstance(feature.values, Ragged):
            num_items = feature.values.num_rows
            known = feature.values.values >= FIRST_ID
            rows.append(feature.values.row_ids()[known])
            terms.append(feature.values.values[known].astype(np.int64) + num_terms)
            num_terms += feature.vocab_size
    if not rows:
        raise ValueError("content needs at least one categorical or multi-valued item feature")
    tf = Sparse.build(np.concatenate(rows), np.concatenate(terms), (num_items, num_terms))
    df = np.bincount(tf.columns, minlength=num_terms)
    idf = np.log((1 + num_items) / (1 + df)) + 1
    items = tf.weighted(tf.weights * idf[tf.columns]).normalised(_CONTENT_GRID)
    evidence = _evidence(profiles, num_items, own_alone=True)
    return InvertedScorer(evidence, items.transposed(), described_by=items)


def item_knn_scorer(
    train: Ragged,
    profiles: Profiles,
    tie_keys: UInt64,
    *,
    neighbours: int = 100,
    shrinkage: float = 10.0,
) -> InvertedScorer:
    """Sum of the similarities of a query's train positives (and of itself, if it is an item).

    sim(i, j) = queries with both / (sqrt(queries with i * queries with j) + shrinkage), over
    distinct train pairs (Ferrari Dacrema et al., arXiv:1907.06902); an item keeps its most similar
    ``neighbours`` (ties by the tie rule). Shrinkage 0 is the plain cosine, which puts pairs of
    items seen once above everything.
    Building costs the sum over train queries of the square of their number of positives.

    Args:
        train: items of every train query, distinct in a row.
        profiles: the evaluated queries.
        tie_keys: uint64 ``(N,)``.
        neighbours: most neighbours kept of an item; 1000 adds at most 0.02 of Recall@50.
        shrinkage: >= 0, in queries. Of 0, 1, 3, 10, 30, 100, ten is within 0.03 of the best
            validation Recall@50 of debian, wikispeedia, musae, completejourney, movietweetings.
    """
    num_items = len(tie_keys)
    shape = (train.num_rows, num_items)
    pairs = Sparse.build(train.row_ids(), train.values, shape)
    pairs = pairs.weighted(np.ones(len(pairs.weights)))
    similar = _similarities(pairs, tie_ranks(tie_keys), neighbours, shrinkage)
    return InvertedScorer(_evidence(profiles, num_items, own_alone=False), similar)


def _similarities(pairs: Sparse, ranks: Int64, neighbours: int, shrinkage: float) -> Sparse:
    """Each item's most similar items, a row an item."""
    num_items = pairs.num_columns
    by_item = pairs.transposed()
    counts = by_item.lengths()
    rows: list[Int64] = []
    columns: list[Int64] = []
    weights: list[Float64] = []
    for block in blocks(by_item.work(pairs), _MAX_PRODUCTS, num_items):
        both = by_item.take(block).times(pairs)
        first, second = block[both.row_ids()], both.columns
        cosine = both.weights / (np.sqrt(counts[first] * counts[second]) + shrinkage)
        cosine = np.round(cosine * _SIMILARITY_GRID) / _SIMILARITY_GRID
        cosine[first == second] = 0
        order = np.lexsort((ranks[second], -cosine, first))
        place = np.arange(len(order)) - both.entries.offsets[first[order] - block[0]]
        kept = order[(place < neighbours) & (cosine[order] > 0)]
        rows.append(first[kept])
        columns.append(second[kept])
        weights.append(cosine[kept])
    return Sparse.build(
        np.concatenate(rows),
        np.concatenate(columns),
        (num_items, num_items),
        np.concatenate(weights),
    )


def _evidence(profiles: Profiles, num_items: int, *, own_alone: bool) -> Sparse:
    """Items that speak for each query, Q rows of weight 1: its train positives and itself.

    ``own_alone`` leaves the positives of queries that are items out.
    """
    own, positives = profiles.own_item, profiles.positives
    with_own = np.flatnonzero(own >= 0)
    rows, items = positives.row_ids(), positives.values
    if own_alone:
        needed = own[rows] < 0
        rows, items = rows[needed], items[needed]
    rows, items = np.concatenate([rows, with_own]), np.concatenate([items, own[with_own]])
    found = Sparse.build(rows, items, (len(own), num_items))
    return found.weighted(np.ones(len(found.weights)))
