"""Lists against a full sort of float64 scores, whatever the vectors are."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from served_arrays import drawn, pair_network
from twotower.core.types import Float32
from twotower.evaluation.scorers import CosineScorer
from twotower.serving import scores
from twotower.serving.ranking import Ranking
from twotower.serving.scores import Dot, Score

NONE = np.empty(0, dtype=np.int64)


def unit(seed: int, rows: int, width: int) -> Float32:
    vectors = drawn(seed, rows, width)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def every(score: Score, query: Float32, items: Float32) -> list[float]:
    return score.exact(query, items, np.arange(len(items))).tolist()


def in_order(num_items: int) -> np.ndarray:
    return np.arange(num_items, dtype=np.int32)


@pytest.mark.parametrize("width", [1, 2, 7, 64])
@pytest.mark.parametrize("scale", [1, 1e-3, 300])
def test_scores_are_bitwise_those_of_the_evaluation(width: int, scale: float) -> None:
    query, items = drawn(0, 1, width) * np.float32(scale), drawn(1, 50, width)
    scorer = CosineScorer(torch.from_numpy(query), torch.from_numpy(items))
    expected = scorer.exact(np.array([0]), np.arange(50)[None])[0]
    assert every(Dot(), query[0], items) == expected.tolist()
    bound = Dot().loss(query[0], Dot().extents(items))
    assert bound == pytest.approx(scorer.error, rel=0.02)


@given(st.integers(0, 10**6), st.sampled_from([1, 5, 200, 1000]), st.booleans())
def test_order_equals_a_full_sort_with_ties_by_rank(seed: int, k: int, by_pairs: bool) -> None:
    rng = np.random.default_rng(seed)
    score = pair_network(seed, 3, (5, 4)) if by_pairs else Dot()
    scale = np.float32(10.0 ** rng.integers(-3, 4))
    query, items = drawn(seed, 1, 8)[0], drawn(seed + 1, 40, 8)[rng.integers(0, 40, 200)] * scale
    ranks = rng.permutation(200).astype(np.int32)
    excluded = np.array([3, 3, 77, 150])
    found, scored = Ranking(score, items, ranks).best(query, excluded, k)
    exact = every(score, query, items)
    left = sorted(set(range(200)) - set(excluded.tolist()), key=lambda i: (-exact[i], ranks[i]))
    assert found.tolist() == left[:k]
    assert scored.tolist() == [exact[item] for item in left[:k]]


@given(st.integers(0, 10**6), st.integers(-8, 8))
def test_rough_scores_are_within_their_bound(seed: int, power: int) -> None:
    for score in (Dot(), pair_network(seed, 3, (5,)), pair_network(seed, 3, (5, 8, 2))):
        scale = np.float32(10.0**power)
        query, items = drawn(seed, 1, 8)[0] * scale, drawn(seed + 1, 60, 8) * scale
        far = np.abs(score.rough(query, items) - every(score, query, items)).max()
        bound = score.loss(query, score.extents(items))
        assert far <= bound
        assert bound < 1e-3 * max(1, scale) ** 2


def test_items_within_rounding_of_the_edge_are_scored_exactly() -> None:
    """Scores that float32 can't tell apart: the last bit of one number differs."""
    query = np.array([1, 1e-4, 0, 0], dtype=np.float32)
    items = np.zeros((64, 4), dtype=np.float32)
    items[:, 0] = 1
    items[:, 1] = np.linspace(0, 1e-4, 64, dtype=np.float32)
    found, _ = Ranking(Dot(), items, in_order(64)).best(query, NONE, 3)
    assert found.tolist() == [63, 62, 61]


@pytest.mark.parametrize("score", [Dot(), pair_network(0, 3, (5, 4))], ids=["dot", "pairs"])
@pytest.mark.parametrize("scale", [1, 30])
def test_what_rounding_moved_over_the_edge_is_brought_back(score: Score, scale: float) -> None:
    """Items that are almost alike: float32 puts others first."""
    k, num_items, moved = 700, 3000, 0
    items = (drawn(0, 1, 8) * scale + drawn(1, num_items, 8) * (scale * 1e-6)).astype(np.float32)
    for query in drawn(2, 5, 8):
        exact = np.array(every(score, query, items))
        best = np.lexsort((in_order(num_items), -exact))[:k]
        rough = score.rough(query, items)
        moved += np.count_nonzero(rough[best] < np.sort(rough)[-k])
        found, _ = Ranking(score, items, in_order(num_items)).best(query, NONE, k)
        assert found.tolist() == best.tolist()
    assert moved > 0


@pytest.mark.parametrize("score", [Dot(), pair_network(0, 3, (5, 4))], ids=["dot", "pairs"])
def test_scores_that_float32_cannot_hold_are_ranked(score: Score) -> None:
    query, items = drawn(0, 1, 8)[0] * np.float32(1e30), drawn(1, 50, 8) * np.float32(1e30)
    exact = every(score, query, items)
    found, scored = Ranking(score, items, in_order(50)).best(query, NONE, 7)
    assert found.tolist() == np.argsort(exact)[::-1][:7].tolist()
    assert scored[0] == max(exact)


def test_nothing_left_is_an_empty_list() -> None:
    found, scored = Ranking(Dot(), unit(1, 3, 4), in_order(3)).best(
        unit(0, 1, 4)[0], np.arange(3), 5
    )
    assert len(found) == len(scored) == 0
    found, _ = Ranking(Dot(), unit(1, 0, 4), in_order(0)).best(unit(0, 1, 4)[0], NONE, 5)
    assert len(found) == 0


def test_parts_of_a_catalogue_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    query, items = drawn(0, 1, 8)[0], drawn(1, 50, 8)
    for score in (Dot(), pair_network(0, 3, (5, 4))):
        whole = every(score, query, items)
        with monkeypatch.context() as patch:
            patch.setattr(scores, "_ROUGH_NUMBERS", 35)
            patch.setattr(scores, "_EXACT_NUMBERS", 45)
            assert every(score, query, items) == whole
            assert np.abs(score.rough(query, items) - whole).max() < 1e-5


def test_a_collapsed_network_over_pairs_is_ranked_in_bounded_memory() -> None:
    """All items tie, so that all are scored exactly: 400 numbers a pair and layer."""
    items = np.repeat(drawn(0, 1, 23), 30_000, axis=0)
    ranking = Ranking(pair_network(0, 3, (20, 20)), items, in_order(len(items))[::-1].copy())
    tracemalloc.start()
    found, scored = ranking.best(drawn(1, 1, 23)[0], NONE, 5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.tolist() == [29_999, 29_998, 29_997, 29_996, 29_995]
    assert len(set(scored.tolist())) == 1
    assert peak < 16 * 2**20


@pytest.mark.parametrize("score", [Dot(), pair_network(0, 3, (5,))], ids=["dot", "pairs"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 7])
def test_a_catalogue_that_is_not_finite_is_refused(score: Score, wrong: float, column: int) -> None:
    items = drawn(0, 9, 8)
    items[4, column] = wrong
    with pytest.raises(ValueError, match="not finite"):
        Ranking(score, items, in_order(9))
