"""The exact best K against a slow, obvious ranking, above all where scores are equal or nearly so."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from twotower.core.errors import RunError
from twotower.core.types import Float64, Int64, Ragged
from twotower.evaluation.scorers import CosineScorer
from twotower.evaluation.ties import tie_keys
from twotower.evaluation.topk import Candidates, top_k


@dataclass(frozen=True)
class TableScorer:
    """Scores written down: ``exact`` is the truth, ``tile`` any float32 table within ``error``."""

    table: Float64
    approximate: Float64
    error: float

    def tile(self, rows: Int64) -> Tensor:
        return torch.as_tensor(self.approximate[rows].astype(np.float32))

    def exact(self, rows: Int64, items: Int64) -> Float64:
        return np.take_along_axis(self.table[rows], items, axis=1)


def exact_scorer(table: Float64) -> TableScorer:
    return TableScorer(table, table, 0.0)


def names(num_items: int) -> list[str]:
    return [f"item-{index}" for index in range(num_items)]


def no_filter(num_queries: int, num_items: int) -> Candidates:
    empty = Ragged.from_lists([[]] * num_queries)
    return Candidates(np.full(num_queries, -1), empty, tie_keys(names(num_items)))


def random_filter(rng: np.random.Generator, num_queries: int, num_items: int) -> Candidates:
    exclude = [
        rng.choice(num_items, rng.integers(0, num_items // 2 + 1), replace=False).tolist()
        for _ in range(num_queries)
    ]
    own = rng.integers(-1, num_items, num_queries)
    return Candidates(own, Ragged.from_lists(exclude), tie_keys(names(num_items)))


def slow_top_k(table: Float64, candidates: Candidates, k: int) -> list[list[int]]:
    lists = []
    for query, scores in enumerate(table):
        barred = {int(candidates.own_item[query]), *map(int, candidates.exclude.row(query))}
        items = [item for item in range(len(scores)) if item not in barred]
        items.sort(key=lambda item: (-scores[item], candidates.tie_keys[item]))
        lists.append((items + [-1] * k)[:k])
    return lists


def unit(rng: np.random.Generator, rows: int, width: int) -> Tensor:
    return torch.nn.functional.normalize(
        torch.as_tensor(rng.normal(size=(rows, width)).astype(np.float32)), dim=1
    )


@pytest.fixture(params=["highest", "high", "medium"])
def matmul_precision(request: pytest.FixtureRequest) -> Iterator[str]:
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("width", [1, 7, 64])
def test_cosine_lists_equal_the_slow_ranking_for_any_tile_bound(width: int) -> None:
    rng = np.random.default_rng(width)
    query_QD, item_ND = unit(rng, 70, width), unit(rng, 5000, width)
    candidates = random_filter(rng, 70, 5000)
    scorer = CosineScorer(query_QD, item_ND)
    rows = np.arange(70)
    everything = np.tile(np.arange(5000), (70, 1))
    expected = slow_top_k(scorer.exact(rows, everything), candidates, 20)
    for tile_mb in (1, 3, 256):
        assert top_k(scorer, candidates, 20, tile_mb=tile_mb).items.tolist() == expected


@given(st.integers(0, 10**6))
def test_ties_are_ordered_by_the_rule_at_the_cut_off_too(seed: int) -> None:
    rng = np.random.default_rng(seed)
    num_items = int(rng.integers(1, 120))
    table = rng.integers(0, rng.integers(1, 5), (6, num_items)).astype(np.float64)
    candidates = random_filter(rng, 6, num_items)
    k = int(rng.integers(1, 30))
    top = top_k(exact_scorer(table), candidates, k)
    assert top.items.tolist() == slow_top_k(table, candidates, k)
    listed = top.items >= 0
    assert np.array_equal(listed, np.isfinite(top.scores))
    found = np.take_along_axis(table, np.maximum(top.items, 0).astype(np.int64), axis=1)
    assert (top.scores[listed] == found[listed]).all()


@given(st.integers(0, 10**6))
def test_any_error_of_the_tile_within_its_bound_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    num_items, error = 150, 0.05
    table = np.round(rng.random((5, num_items)), int(rng.integers(1, 4)))
    noise = rng.choice([-0.99, 0.0, 0.99], table.shape) * error
    scorer = TableScorer(table, table + noise, error)
    candidates = random_filter(rng, 5, num_items)
    k = int(rng.integers(1, 40))
    assert top_k(scorer, candidates, k).items.tolist() == slow_top_k(table, candidates, k)


def test_few_ties_far_down_the_rule_are_found() -> None:
    """40 of 5,000 items tie at the cut-off, those that the tie rule puts last of all."""
    candidates = no_filter(1, 5000)
    table = np.zeros((1, 5000))
    table[0, np.argsort(candidates.tie_keys)[-45:]] = [2.0] * 5 + [1.0] * 40
    top = top_k(exact_scorer(table), candidates, 10)
    assert top.items.tolist() == slow_top_k(table, candidates, 10)
    assert top.searched == 1


def test_float64_orders_what_float32_cannot_tell_apart() -> None:
    """200 items whose scores differ by 1e-9, far more than K + the margin of candidates."""
    steps = np.random.default_rng(0).permutation(200)
    item_ND = torch.zeros(200, 2)
    item_ND[:, 0] = 1.0
    item_ND[:, 1] = torch.as_tensor(steps * 1e-4)
    query_QD = torch.tensor([[1.0, 1e-5]])
    assert (CosineScorer(query_QD, item_ND).tile(np.array([0])).unique().numel()) < 10
    top = top_k(CosineScorer(query_QD, item_ND), no_filter(1, 200), 10)
    assert steps[top.items[0]].tolist() == list(range(199, 189, -1))
    assert top.searched == 1


def test_matmuls_with_fewer_bits_change_nothing(matmul_precision: str) -> None:
    rng = np.random.default_rng(5)
    scorer = CosineScorer(unit(rng, 20, 16), unit(rng, 300, 16))
    low = {"highest": 0, "high": 1e-3, "medium": 1e-2}[matmul_precision]
    assert low < scorer.error < 2e-2
    exact = scorer.exact(np.arange(20), np.tile(np.arange(300), (20, 1)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        top = top_k(scorer, no_filter(20, 300), 25)
    assert top.items.tolist() == slow_top_k(exact, no_filter(20, 300), 25)


def test_error_bound_holds_and_is_that_of_float32() -> None:
    rng = np.random.default_rng(6)
    scorer = CosineScorer(unit(rng, 50, 64), unit(rng, 2000, 64))
    rows, items = np.arange(50), np.tile(np.arange(2000), (50, 1))
    worst = np.abs(scorer.tile(rows).double().numpy() - scorer.exact(rows, items)).max()
    assert worst <= scorer.error < 4e-6


@pytest.mark.parametrize("width", [1, 3, 64, 65])
def test_equal_vectors_score_equal_bits_wherever_they_stand(width: int) -> None:
    rng = np.random.default_rng(width)
    item_ND = unit(rng, 1, width).repeat(300, 1)
    item_ND[::2] = unit(rng, 150, width)
    scorer = CosineScorer(unit(rng, 4, width), item_ND)
    exact = scorer.exact(np.arange(4), np.tile(np.arange(300), (4, 1)))
    assert (exact[:, 1::2] == exact[:, 1:2]).all()
    alone = scorer.exact(np.array([3]), np.array([[7]]))
    assert alone[0, 0] == exact[3, 7]
    close = scorer.query_QD.double().numpy() @ item_ND.double().numpy().T
    assert np.allclose(exact, close, rtol=0, atol=1e-15 * width)


def test_a_collapsed_model_is_ranked_by_the_tie_rule_alone() -> None:
    rng = np.random.default_rng(1)
    num_items = 6000
    scorer = CosineScorer(unit(rng, 3, 8), unit(rng, 1, 8).repeat(num_items, 1))
    candidates = random_filter(rng, 3, num_items)
    constant = np.zeros((3, num_items))
    assert top_k(scorer, candidates, 10).items.tolist() == slow_top_k(constant, candidates, 10)


@given(st.integers(0, 10**6))
def test_catalogue_order_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 4, (4, 60)).astype(np.float64)
    candidates = random_filter(rng, 4, 60)
    order = rng.permutation(60)
    place = np.argsort(order)
    moved = Candidates(
        np.where(candidates.own_item >= 0, place[candidates.own_item], -1),
        Ragged(candidates.exclude.offsets, place[candidates.exclude.values]),
        candidates.tie_keys[order],
    )
    top = top_k(exact_scorer(table), candidates, 12).items
    other = top_k(exact_scorer(table[:, order]), moved, 12).items
    assert np.where(other >= 0, order[other], -1).tolist() == top.tolist()


def test_scores_of_items_that_are_no_candidates_do_not_matter() -> None:
    rng = np.random.default_rng(2)
    table = rng.random((8, 100))
    candidates = random_filter(rng, 8, 100)
    top = top_k(exact_scorer(table), candidates, 10)
    raised = table.copy()
    raised[candidates.exclude.row_ids(), candidates.exclude.values] = 1e9
    own = np.flatnonzero(candidates.own_item >= 0)
    raised[own, candidates.own_item[own]] = np.inf
    again = top_k(exact_scorer(raised), candidates, 10)
    assert np.array_equal(top.items, again.items)
    assert np.array_equal(top.scores, again.scores)


def test_minus_infinity_is_never_recommended_and_lists_are_padded() -> None:
    table = np.array([[1.0, -np.inf, 3.0, 2.0], [-np.inf] * 4])
    top = top_k(exact_scorer(table), no_filter(2, 4), 6)
    assert top.items.tolist() == [[2, 3, 0, -1, -1, -1], [-1] * 6]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_stop_the_evaluation(bad: float) -> None:
    table = np.zeros((2, 50))
    table[1, 30] = bad
    with pytest.raises(RunError, match="diverged"):
        top_k(exact_scorer(table), no_filter(2, 50), 5)


def test_vectors_that_are_not_finite_are_named() -> None:
    item_ND = torch.ones(5, 2)
    item_ND[3, 1] = float("nan")
    with pytest.raises(RunError, match="1 item vectors are not finite, first at row 3"):
        CosineScorer(torch.ones(2, 2), item_ND)


def test_no_queries_and_no_items_are_legal() -> None:
    assert top_k(exact_scorer(np.zeros((0, 5))), no_filter(0, 5), 3).items.shape == (0, 3)
    nobody = CosineScorer(torch.zeros(0, 4), torch.ones(5, 4))
    assert top_k(nobody, no_filter(0, 5), 3).items.shape == (0, 3)
    assert (top_k(exact_scorer(np.zeros((2, 0))), no_filter(2, 0), 3).items == -1).all()
