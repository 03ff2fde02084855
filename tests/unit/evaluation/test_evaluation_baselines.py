"""Baselines against loops over dictionaries."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twotower.core.types import EncodedFeature, Float64, Int64, Ragged
from twotower.evaluation.baselines import (
    PopularityScorer,
    Profiles,
    content_scorer,
    item_knn_scorer,
)
from twotower.evaluation.scorers import Scorer
from twotower.evaluation.sparse import Sparse, blocks
from twotower.evaluation.ties import UInt64, tie_keys


def all_scores(scorer: Scorer, num_queries: int) -> Float64:
    return scorer.tile(np.arange(num_queries)).double().numpy()


def keys_of(num_items: int) -> UInt64:
    return tie_keys([str(index) for index in range(num_items)])


def random_rows(rng: np.random.Generator, rows: int, high: int, most: int) -> list[list[int]]:
    return [
        rng.choice(high, rng.integers(0, most + 1), replace=False).tolist() for _ in range(rows)
    ]


def profiles_of(own: list[int], positives: list[list[int]]) -> Profiles:
    return Profiles(np.array(own, dtype=np.int64), Ragged.from_lists(positives))


def slow_tf_idf(bags: list[list[tuple[str, int]]]) -> list[dict[tuple[str, int], float]]:
    df = Counter(term for bag in bags for term in set(bag))
    vectors = []
    for bag in bags:
        weights = {
            term: count * (math.log((1 + len(bags)) / (1 + df[term])) + 1)
            for term, count in Counter(bag).items()
        }
        norm = math.sqrt(sum(w * w for w in weights.values())) or 1.0
        vectors.append({term: w / norm for term, w in weights.items()})
    return vectors


def slow_knn(
    train: list[list[int]], num_items: int, neighbours: int, shrinkage: float
) -> list[dict[int, float]]:
    count = Counter(item for row in train for item in row)
    both: dict[tuple[int, int], int] = defaultdict(int)
    for row in train:
        for i in row:
            for j in row:
                both[i, j] += i != j
    keys = keys_of(num_items)
    kept = []
    for i in range(num_items):
        similar = {
            j: both[i, j] / (math.sqrt(count[i] * count[j]) + shrinkage)
            for j in range(num_items)
            if both[i, j]
        }
        best = sorted(similar, key=lambda j: (-round(similar[j] * 2**32), keys[j]))[:neighbours]
        kept.append({j: similar[j] for j in best})
    return kept


def test_popularity_is_the_count_for_everybody() -> None:
    counts = np.array([3, 0, 2**40 + 1, 7])
    scorer = PopularityScorer(counts)
    tile = scorer.tile(np.array([4, 4, 1]))
    assert tile.tolist() == [counts.tolist()] * 3
    tile[0] = -1
    assert scorer.tile(np.array([0])).tolist() == [counts.tolist()]
    assert scorer.exact(np.array([5, 6]), np.array([[2, 0], [1, 1]])).tolist() == [
        [2**40 + 1, 3],
        [0, 0],
    ]


@given(st.integers(0, 10**6))
def test_content_is_the_cosine_of_tf_idf_bags(seed: int) -> None:
    rng = np.random.default_rng(seed)
    num_items = 25
    words = [rng.integers(0, 12, rng.integers(0, 7)).tolist() for _ in range(num_items)]
    source = rng.integers(0, 6, num_items).tolist()
    features = [
        EncodedFeature("words", "multi", "item.words", 12, Ragged.from_lists(words, np.int32)),
        EncodedFeature("size", "dense", "", 0, rng.random(num_items).astype(np.float32)),
        EncodedFeature(
            "source", "categorical", "item.s", 6, Ragged.from_lists([[s] for s in source])
        ),
    ]
    own = [-1, 3, 0, -1, 24, -1]
    positives = random_rows(rng, 6, num_items, 4)
    scorer = content_scorer(features, profiles_of(own, positives))

    bags = [
        [("w", w) for w in words[i] if w > 1] + [("s", source[i])] * (source[i] > 1)
        for i in range(num_items)
    ]
    vectors = slow_tf_idf(bags)
    expected = np.zeros((6, num_items))
    for query in range(6):
        described = [own[query]] if own[query] >= 0 else positives[query]
        summed: dict[tuple[str, int], float] = defaultdict(float)
        for item in described:
            for term, weight in vectors[item].items():
                summed[term] += weight
        norm = math.sqrt(sum(w * w for w in summed.values())) or 1.0
        for item in range(num_items):
            products = (summed[term] * w for term, w in vectors[item].items())
            expected[query, item] = sum(products) / norm
    assert np.abs(all_scores(scorer, 6) - expected).max() < 1e-6


def test_content_ignores_default_and_unknown_values() -> None:
    words = Ragged.from_lists([[0, 1], [0, 1], [2], []])
    feature = EncodedFeature("words", "multi", "item.words", 3, words)
    scorer = content_scorer([feature], profiles_of([0, 2], [[], []]))
    assert all_scores(scorer, 2).tolist() == [[0, 0, 0, 0], [0, 0, 1, 0]]


def test_content_needs_a_feature_of_terms() -> None:
    dense = EncodedFeature("size", "dense", "", 0, np.zeros(3, dtype=np.float32))
    with pytest.raises(ValueError, match="at least one"):
        content_scorer([dense], profiles_of([0], [[]]))


@given(st.integers(0, 10**6), st.sampled_from([1, 3, 100]), st.sampled_from([0.0, 2.5]))
def test_item_knn_sums_the_kept_similarities(seed: int, neighbours: int, shrinkage: float) -> None:
    rng = np.random.default_rng(seed)
    num_items = 20
    train = random_rows(rng, 30, num_items, 6)
    own = [-1, 5, 19, -1]
    positives = random_rows(rng, 4, num_items, 5)
    scorer = item_knn_scorer(
        Ragged.from_lists(train),
        profiles_of(own, positives),
        keys_of(num_items),
        neighbours=neighbours,
        shrinkage=shrinkage,
    )
    similar = slow_knn(train, num_items, neighbours, shrinkage)
    expected = np.zeros((4, num_items))
    for query in range(4):
        for seen in {*positives[query], own[query]} - {-1}:
            for item, value in similar[seen].items():
                expected[query, item] += value
    found = all_scores(scorer, 4)
    assert np.abs(found - expected).max() < 1e-8
    picked = np.array([[3, 1], [0, 7]])
    exact = scorer.exact(np.array([2, 0]), picked)
    assert exact.tolist() == np.take_along_axis(found[[2, 0]], picked, axis=1).tolist()


def test_equal_evidence_is_an_exact_tie_in_any_order() -> None:
    """Three neighbours reached by the same similarities, added up in different orders."""
    train = [[0, 3], [0, 4], [1, 3], [1, 4], [1, 9], [2, 3], [2, 4], [2, 8], [2, 9], [5, 0]]
    scores = [
        all_scores(
            item_knn_scorer(
                Ragged.from_lists(train), profiles_of([-1], [order]), keys_of(10), shrinkage=0.3
            ),
            1,
        )[0]
        for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2])
    ]
    assert scores[0][3] == scores[0][4] > 0
    assert all(np.array_equal(scores[0], other) for other in scores[1:])


def test_tiles_do_not_depend_on_the_blocks_they_are_made_in() -> None:
    """200 queries with long bags need many blocks; each alone must give the same bits."""
    rng = np.random.default_rng(0)
    train = random_rows(rng, 200, 300, 40)
    profiles = profiles_of([-1] * 200, random_rows(rng, 200, 300, 150))
    scorer = item_knn_scorer(Ragged.from_lists(train), profiles, keys_of(300), neighbours=200)
    whole = scorer.tile(np.arange(200)).numpy()
    for row in (0, 63, 64, 199):
        assert np.array_equal(scorer.tile(np.array([row])).numpy()[0], whole[row])


def test_sparse_matrices_equal_dense_ones() -> None:
    rng = np.random.default_rng(1)
    rows, columns = rng.integers(0, 7, 40), rng.integers(0, 9, 40)
    weights = rng.integers(1, 5, 40).astype(np.float64)
    dense = np.zeros((7, 9))
    np.add.at(dense, (rows, columns), weights)
    matrix = Sparse.build(rows, columns, (7, 9), weights)

    def expand(sparse: Sparse) -> Float64:
        full = np.zeros((sparse.num_rows, sparse.num_columns))
        full[sparse.row_ids(), sparse.columns] = sparse.weights
        return full

    assert np.array_equal(expand(matrix), dense)
    assert np.array_equal(expand(matrix.transposed()), dense.T)
    assert np.array_equal(expand(matrix.take(np.array([3, 3, 0]))), dense[[3, 3, 0]])
    assert np.array_equal(expand(matrix.times(matrix.transposed())), dense @ dense.T)
    norms = np.linalg.norm(expand(matrix.normalised(2.0**40)), axis=1)
    assert np.allclose(norms[dense.any(axis=1)], 1)
    work = matrix.work(matrix.transposed())
    assert work.tolist() == [
        sum((dense[:, c] > 0).sum() for c in np.flatnonzero(row)) for row in dense
    ]


@given(st.lists(st.integers(0, 20), max_size=40), st.integers(1, 30), st.integers(1, 5))
def test_blocks_hold_every_row_once_within_their_bounds(
    work: list[int], max_work: int, max_rows: int
) -> None:
    parts: list[Int64] = list(blocks(np.array(work, dtype=np.float64), max_work, max_rows))
    assert [row for part in parts for row in part.tolist()] == list(range(len(work)))
    for part in parts:
        assert 1 <= len(part) <= max_rows
        assert len(part) == 1 or sum(work[row] for row in part) <= max_work
