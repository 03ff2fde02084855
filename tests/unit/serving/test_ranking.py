import numpy as np
import pytest
import torch

from twotower.evaluation.scorers import CosineScorer
from twotower.serving.ranking import top_k, tree_dot


def unit(seed: int, rows: int, width: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("width", [1, 2, 7, 64])
def test_scores_are_bitwise_those_of_the_evaluation(width: int) -> None:
    query, items = unit(0, 1, width), unit(1, 50, width)
    scorer = CosineScorer(torch.from_numpy(query), torch.from_numpy(items))
    expected = scorer.exact(np.array([0]), np.arange(50)[None])[0]
    assert tree_dot(query[0], items).tobytes() == expected.tobytes()


@pytest.mark.parametrize("k", [1, 5, 200, 1000])
def test_order_equals_a_full_sort_with_ties_by_rank(k: int) -> None:
    rng = np.random.default_rng(2)
    query, items = unit(0, 1, 8)[0], unit(1, 40, 8)[rng.integers(0, 40, 200)]
    ranks = rng.permutation(200).astype(np.int32)
    excluded = np.array([3, 3, 77, 150])
    found, scores = top_k(query, items, ranks, excluded, k)
    exact = tree_dot(query, items)
    every = sorted(set(range(200)) - set(excluded.tolist()), key=lambda i: (-exact[i], ranks[i]))
    assert found.tolist() == every[:k]
    assert scores.tolist() == exact[every[:k]].tolist()


def test_items_within_rounding_of_the_edge_are_scored_exactly() -> None:
    """Scores that float32 can't tell apart: the last bit of one number differs."""
    query = np.array([1, 1e-4, 0, 0], dtype=np.float32)
    items = np.zeros((64, 4), dtype=np.float32)
    items[:, 0] = 1
    items[:, 1] = np.linspace(0, 1e-4, 64, dtype=np.float32)
    found, _ = top_k(query, items, np.arange(64, dtype=np.int32), np.empty(0, np.int64), 3)
    assert found.tolist() == [63, 62, 61]


def test_nothing_left_is_an_empty_list() -> None:
    found, scores = top_k(
        unit(0, 1, 4)[0], unit(1, 3, 4), np.arange(3, dtype=np.int32), np.arange(3), 5
    )
    assert len(found) == len(scores) == 0
