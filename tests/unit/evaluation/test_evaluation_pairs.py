"""A network over pairs is ranked as the slow float64 ranking says, whatever the tiles are."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from twotower.core.errors import DivergedError
from twotower.core.types import Float64, Ragged
from twotower.evaluation import pairs
from twotower.evaluation.pairs import Network, PairScorer
from twotower.evaluation.ties import tie_keys
from twotower.evaluation.topk import Candidates, top_k

PRODUCT = 3


def drawn(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.as_tensor(rng.normal(size=shape).astype(np.float32))


def network(rng: np.random.Generator, *hidden: int) -> Network:
    layers = [
        (drawn(rng, outputs, inputs), drawn(rng, outputs))
        for inputs, outputs in itertools.pairwise(hidden)
    ]
    return Network(PRODUCT, layers, drawn(rng, hidden[-1]))


def slow_scores(query_QX: Tensor, item_NX: Tensor, net: Network) -> Float64:
    """One pair at a time."""
    table = np.empty((len(query_QX), len(item_NX)))
    for i, query in enumerate(query_QX.double().numpy()):
        for j, item in enumerate(item_NX.double().numpy()):
            x = np.maximum(query[PRODUCT:] + item[PRODUCT:], 0)
            for weight, bias in net.layers:
                x = np.maximum(weight.double().numpy() @ x + bias.double().numpy(), 0)
            table[i, j] = query[:PRODUCT] @ item[:PRODUCT] + net.last.double().numpy() @ x
    return table


def everything(scorer: PairScorer) -> Float64:
    num_queries, num_items = len(scorer.query_QD), len(scorer.item_ND)
    return scorer.exact(np.arange(num_queries), np.tile(np.arange(num_items), (num_queries, 1)))


def unfiltered(num_queries: int, num_items: int) -> Candidates:
    none = Ragged.from_lists([[]] * num_queries)
    keys = tie_keys([f"item-{index}" for index in range(num_items)])
    return Candidates(np.full(num_queries, -1), none, keys)


def slow_lists(table: Float64, candidates: Candidates, k: int) -> list[list[int]]:
    return [np.lexsort((candidates.tie_keys, -row))[:k].tolist() for row in table]


@pytest.mark.parametrize("hidden", [(5,), (4, 3), (1, 1, 2)])
def test_scores_are_those_of_one_pair_at_a_time(
    hidden: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "_TILE_NUMBERS", 40)
    monkeypatch.setattr(pairs, "_PAIR_NUMBERS", 50)
    rng = np.random.default_rng(len(hidden))
    net = network(rng, *hidden)
    query, item = (drawn(rng, rows, PRODUCT + hidden[0]) for rows in (6, 31))
    scorer = PairScorer(query, item, net)
    slow = slow_scores(query, item, net)
    np.testing.assert_allclose(everything(scorer), slow, rtol=1e-12, atol=1e-12)
    tile = scorer.tile(np.arange(6))
    assert tile.dtype == torch.float32
    worst = np.abs(tile.double().numpy() - everything(scorer)).max()
    assert worst <= scorer.error < 1e-3


@given(st.integers(0, 10**6))
def test_lists_equal_the_slow_ranking_with_ties_and_large_numbers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = network(rng, 4, 3)
    scale = 10.0 ** rng.integers(-3, 4)
    query, item = (drawn(rng, rows, PRODUCT + 4) * scale for rows in (5, 90))
    item = item[torch.as_tensor(rng.integers(0, rng.integers(1, 91), 90))]  # many items alike
    scorer, candidates = PairScorer(query, item, net), unfiltered(5, 90)
    top = top_k(scorer, candidates, 12)
    table = everything(scorer)
    assert top.items.tolist() == slow_lists(table, candidates, 12)
    assert np.array_equal(top.scores, np.take_along_axis(table, top.items.astype(np.int64), 1))


def test_a_small_bound_of_memory_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    scorer = PairScorer(
        drawn(rng, 300, PRODUCT + 4), drawn(rng, 3000, PRODUCT + 4), network(rng, 4, 2)
    )
    small, large = (top_k(scorer, unfiltered(300, 3000), 20, tile_mb=mb) for mb in (1, 256))
    assert np.array_equal(small.items, large.items)
    assert np.array_equal(small.scores, large.scores)


def test_equal_vectors_score_equal_bits_and_a_collapsed_model_is_ranked_by_the_tie_rule() -> None:
    rng = np.random.default_rng(1)
    item = drawn(rng, 1, PRODUCT + 8).repeat(6000, 1)
    scorer = PairScorer(drawn(rng, 2, PRODUCT + 8), item, network(rng, 8, 5))
    assert (np.ptp(everything(scorer), axis=1) == 0).all()
    candidates = unfiltered(2, 6000)
    top = top_k(scorer, candidates, 10)
    assert top.items.tolist() == [np.argsort(candidates.tie_keys)[:10].tolist()] * 2


def test_a_network_that_diverged_is_refused() -> None:
    rng = np.random.default_rng(2)
    query, item = drawn(rng, 2, PRODUCT + 2), drawn(rng, 9, PRODUCT + 2)
    broken = Network(PRODUCT, [], torch.tensor([1.0, float("nan")]))
    with pytest.raises(DivergedError):
        top_k(PairScorer(query, item, broken), unfiltered(2, 9), 3)
    item[3, 1] = float("inf")
    with pytest.raises(DivergedError, match="item vectors"):
        PairScorer(query, item, network(rng, 2))
