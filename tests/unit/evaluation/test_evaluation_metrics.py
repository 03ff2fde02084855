"""Metrics of one list against ranx and against their definitions written as loops."""

import math
from typing import Any

import numpy as np
import pytest
import ranx
from hypothesis import given
from hypothesis import strategies as st

from twotower.core.types import Float64, Ragged
from twotower.evaluation.metrics import (
    NOTHING,
    coverage,
    findable_truth,
    hits,
    mean_popularity,
    ranking_metrics,
    true_ranks,
)

NUM_ITEMS = 40


def random_lists(seed: int, num_queries: int = 30, k: int = 12) -> tuple[Any, Ragged]:
    """Lists of distinct items, some cut short, and sets of 0 to 20 true items."""
    rng = np.random.default_rng(seed)
    top = np.stack([rng.permutation(NUM_ITEMS)[:k] for _ in range(num_queries)]).astype(np.int32)
    top[np.arange(k) >= rng.integers(0, k + 4, num_queries)[:, None]] = NOTHING
    truth = [
        sorted(rng.permutation(NUM_ITEMS)[: rng.integers(0, 21)].tolist())
        for _ in range(num_queries)
    ]
    return top, Ragged.from_lists(truth)


def measured(top: Any, truth: Ragged, k: int) -> dict[str, Float64]:
    ranks = true_ranks(top, truth, NUM_ITEMS)
    return ranking_metrics(hits(ranks, truth, k), truth.lengths(), k)


def slow_metrics(listed: list[int], true: set[int], k: int) -> dict[str, float]:
    if not true:
        return dict.fromkeys(("recall", "map", "ndcg", "mrr"), math.nan)
    listed = [item for item in listed if item != NOTHING][:k]
    found, precisions, gain, first = 0, 0.0, 0.0, 0.0
    for rank, item in enumerate(listed, start=1):
        if item in true:
            found += 1
            precisions += found / rank
            gain += 1 / math.log2(rank + 1)
            first = first or 1 / rank
    reachable = min(k, len(true))
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, reachable + 1))
    return {
        "recall": found / len(true),
        "map": precisions / reachable,
        "ndcg": gain / ideal,
        "mrr": first,
    }


@given(st.integers(0, 10**6), st.integers(1, 15))
def test_metrics_equal_their_definitions(seed: int, k: int) -> None:
    top, truth = random_lists(seed)
    found = measured(top, truth, k)
    for query, listed in enumerate(top.tolist()):
        expected = slow_metrics(listed, set(truth.row(query).tolist()), k)
        for name, value in expected.items():
            assert found[name][query] == pytest.approx(value, nan_ok=True, abs=1e-12)


@pytest.mark.parametrize("k", [1, 5, 12])
def test_metrics_equal_ranx(k: int) -> None:
    """ranx divides the sum of precisions by all true items, we by min(K, true items).

    So MAP@K here is ranx's times R / min(K, R), query by query; the other three agree as they are.
    """
    top, truth = random_lists(k, num_queries=60)
    rows = [q for q in range(60) if len(truth.row(q)) and top[q, 0] != NOTHING]
    qrels = ranx.Qrels({f"q{q}": {f"i{i}": 1 for i in truth.row(q)} for q in rows})
    run = ranx.Run(
        {
            f"q{q}": {f"i{i}": 100.0 - r for r, i in enumerate(top[q].tolist()) if i != NOTHING}
            for q in rows
        }
    )
    metrics = [f"{name}@{k}" for name in ("recall", "map", "ndcg", "mrr")]
    ranx.evaluate(qrels, run, metrics)
    found = measured(top, truth, k)
    for place, q in enumerate(rows):
        num_true = len(truth.row(q))
        scale = {"map": num_true / min(k, num_true)}
        for name in ("recall", "map", "ndcg", "mrr"):
            theirs = run.scores[f"{name}@{k}"][f"q{q}"] * scale.get(name, 1)
            assert found[name][q] == pytest.approx(theirs, abs=1e-12), (name, place)


def test_by_hand() -> None:
    """True 7 and 9 of lists [7, 1, 9] and [1, 2, 3]; MAP@3 = (1/1 + 2/3) / 2 for the first."""
    top = np.array([[7, 1, 9], [1, 2, 3]], dtype=np.int32)
    found = measured(top, Ragged.from_lists([[7, 9], [7, 9]]), 3)
    assert found["recall"].tolist() == [1, 0]
    assert found["map"].tolist() == pytest.approx([5 / 6, 0])
    assert found["ndcg"].tolist() == pytest.approx([1.5 / (1 + 1 / math.log2(3)), 0])
    assert found["mrr"].tolist() == [1, 0]


def test_a_perfect_list_scores_one_though_more_is_true_than_fits() -> None:
    top = np.arange(5, dtype=np.int32)[None]
    found = measured(top, Ragged.from_lists([list(range(20))]), 5)
    assert found["recall"][0] == 5 / 20
    assert [found[name][0] for name in ("map", "ndcg", "mrr")] == pytest.approx([1, 1, 1])


def test_truth_that_cannot_be_found_is_dropped_and_counted() -> None:
    truth = Ragged.from_lists([[5, 3, 3, 9], [1], [], [2, 4]])
    exclude = Ragged.from_lists([[9, 8], [1], [0], [2]])
    own = np.array([5, -1, 0, 2])
    kept = findable_truth(truth, exclude, own, NUM_ITEMS)
    assert [kept.items.row(q).tolist() for q in range(4)] == [[3], [], [], [4]]
    assert kept.own == 2
    assert kept.filtered == 2


def test_no_truth_at_all_gives_nan_everywhere() -> None:
    top, _ = random_lists(0, num_queries=3)
    found = measured(top, Ragged.from_lists([[], [], []]), 5)
    assert all(np.isnan(values).all() for values in found.values())


def test_popularity_and_coverage_look_at_listed_items_only() -> None:
    top = np.array([[0, 1, 2], [1, 3, NOTHING], [NOTHING] * 3], dtype=np.int32)
    counts = np.array([10, 4, 1, 0, 99])
    assert mean_popularity(top, counts, 2).tolist()[:2] == [7, 2]
    assert mean_popularity(top, counts, 3).tolist()[:2] == [5, 2]
    assert np.isnan(mean_popularity(top, counts, 3)[2])
    assert coverage(top, 5, 1) == 2 / 5
    assert coverage(top, 5, 3) == 4 / 5
