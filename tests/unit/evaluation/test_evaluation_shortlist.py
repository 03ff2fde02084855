"""Short lists give what whole rows give, bit for bit, on vectors made to break their proof."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from twotower.core.errors import DivergedError
from twotower.core.types import Ragged
from twotower.evaluation import coarse as coarse_scores
from twotower.evaluation.coarse import Coarse
from twotower.evaluation.scorers import CosineScorer
from twotower.evaluation.ties import tie_keys
from twotower.evaluation.topk import Candidates, Sizes, Top, top_k

B16, F32 = torch.bfloat16, torch.float32
WAYS = ((B16, F32), (B16,), (F32,))
TINY = Sizes(row_bytes=64, queries=3, lanes=2, few=1)


def slow_top_k(
    scorer: CosineScorer, candidates: Candidates, k: int
) -> tuple[list[list[int]], list[list[float]]]:
    """Every score in float64, every candidate sorted in Python."""
    num_queries, num_items = len(scorer.query_QD), len(scorer.item_ND)
    everything = np.tile(np.arange(num_items), (num_queries, 1))
    table = scorer.exact(np.arange(num_queries), everything)
    true = scorer.query_QD.double().numpy() @ scorer.item_ND.double().numpy().T
    assert np.allclose(table, true, rtol=1e-12, atol=1e-12 * np.abs(true).max(initial=0))
    lists, scores = [], []
    for query, row in enumerate(table):
        barred = {int(candidates.own_item[query]), *map(int, candidates.exclude.row(query))}
        items = [item for item in range(num_items) if item not in barred]
        items.sort(key=lambda item: (-row[item], candidates.tie_keys[item]))
        lists.append((items + [-1] * k)[:k])
        scores.append(([row[item] for item in items] + [-np.inf] * k)[:k])
    return lists, scores


def unit(rng: np.random.Generator, rows: int, width: int) -> Tensor:
    drawn = torch.as_tensor(rng.normal(size=(rows, width)).astype(np.float32))
    return torch.nn.functional.normalize(drawn, dim=1)


def filtered(rng: np.random.Generator, num_queries: int, num_items: int, most: int) -> Candidates:
    """Up to ``most`` items barred of each query, and now and then all of them."""
    exclude = [
        rng.choice(num_items, rng.integers(0, most + 1), replace=False).tolist()
        if rng.random() < 0.9
        else list(range(num_items))
        for _ in range(num_queries)
    ]
    own = rng.integers(-1, num_items, num_queries)
    keys = tie_keys([f"item-{index}" for index in range(num_items)])
    return Candidates(own, Ragged.from_lists(exclude), keys)


def unfiltered(num_queries: int, num_items: int) -> Candidates:
    none = Ragged.from_lists([[]] * num_queries)
    keys = tie_keys([f"item-{index}" for index in range(num_items)])
    return Candidates(np.full(num_queries, -1), none, keys)


def assert_equal(top: Top, expected: tuple[list[list[int]], list[list[float]]]) -> None:
    assert top.items.tolist() == expected[0]
    assert top.scores.tolist() == expected[1]  # the same bits


def by_all_ways(
    query_QD: Tensor, item_ND: Tensor, candidates: Candidates, k: int, sizes: Sizes = TINY
) -> list[Top]:
    """Results of every way, checked against the slow ranking."""
    tops = [
        top_k(CosineScorer(query_QD, item_ND, way), candidates, k, sizes=sizes)
        for way in (*WAYS, ())
    ]
    expected = slow_top_k(CosineScorer(query_QD, item_ND), candidates, k)
    for top in tops:
        assert_equal(top, expected)
    return tops


def plain(rng: np.random.Generator, rows: int, width: int) -> Tensor:
    return unit(rng, rows, width)


def on_a_grid(rng: np.random.Generator, rows: int, width: int) -> Tensor:
    """Few different scores, so that most items tie with many others."""
    return torch.as_tensor(rng.integers(-1, 2, (rows, width)).astype(np.float32)) / 2


def repeated(rng: np.random.Generator, rows: int, width: int) -> Tensor:
    return unit(rng, max(rows // 8, 1), width)[rng.integers(0, max(rows // 8, 1), rows)]


def all_alike(rng: np.random.Generator, rows: int, width: int) -> Tensor:
    return unit(rng, 1, width).expand(rows, -1).clone()


def beside_one_another(rng: np.random.Generator, rows: int, width: int) -> Tensor:
    """Around one vector, at about the distance that bfloat16 loses."""
    noise = torch.as_tensor(rng.normal(size=(rows, width)).astype(np.float32))
    return unit(rng, 1, width) + noise * float(2.0 ** -rng.integers(6, 20))


def halfway(rng: np.random.Generator, rows: int, width: int) -> Tensor:
    """Just above and just below the middle of two bfloat16 numbers, where rounding loses most."""
    kept = torch.as_tensor(rng.normal(size=(rows, width)).astype(np.float32)).bfloat16().float()
    half = 1 + 2.0**-8 * torch.as_tensor(rng.choice([-1.0, 1.0], (rows, width)).astype(np.float32))
    return kept * (half + torch.as_tensor(rng.choice([-1, 1], (rows, width)) * 2.0**-20)).float()


def one_sided(rng: np.random.Generator, rows: int, width: int) -> Tensor:
    """All scores of one sign: with the queries' sign turned below 0."""
    return unit(rng, rows, width).abs()


def tiny(rng: np.random.Generator, rows: int, width: int) -> Tensor:
    """Squares vanish in float32; scores are about 1e-44."""
    return unit(rng, rows, width) * 1e-22


def long_and_short(rng: np.random.Generator, rows: int, width: int) -> Tensor:
    lengths = 10.0 ** rng.integers(-6, 7, (rows, 1))
    return unit(rng, rows, width) * torch.as_tensor(lengths.astype(np.float32))


MAKERS = (
    plain, on_a_grid, repeated, all_alike, beside_one_another, halfway, one_sided, tiny,
    long_and_short,
)  # fmt: skip


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
@given(seed=st.integers(0, 10**6))
def test_every_way_gives_the_slow_ranking(
    maker: Callable[[np.random.Generator, int, int], Tensor], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    width, num_items = int(rng.integers(1, 20)), int(rng.integers(100, 260))
    query_QD = rng.choice([-1.0, 1.0]) * maker(rng, 7, width)
    item_ND = maker(rng, num_items, width)
    candidates = filtered(rng, 7, num_items, int(rng.choice([0, 5, num_items])))
    by_all_ways(query_QD.float(), item_ND, candidates, int(rng.integers(1, 9)))


@pytest.mark.parametrize("way", WAYS)
def test_most_queries_are_proved_by_their_short_list(way: Sequence[torch.dtype]) -> None:
    rng = np.random.default_rng(0)
    query_QD, item_ND = unit(rng, 600, 32), unit(rng, 20_000, 32)
    candidates = filtered(rng, 600, 20_000, 20)
    whole = top_k(CosineScorer(query_QD, item_ND, ()), candidates, 20)
    top = top_k(CosineScorer(query_QD, item_ND, way), candidates, 20)
    assert np.array_equal(top.items, whole.items)
    assert np.array_equal(top.scores, whole.scores)
    barred = np.count_nonzero(candidates.exclude.lengths() == 20_000)
    assert barred > 30
    assert barred <= top.searched < barred + 15


@pytest.mark.parametrize("dtype", [B16, F32])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_no_score_is_further_off_than_its_bound(
    maker: Callable[[np.random.Generator, int, int], Tensor], sign: float, dtype: torch.dtype
) -> None:
    rng = np.random.default_rng(1)
    query_bD, item_ND = sign * maker(rng, 30, 48), maker(rng, 500, 48)
    coarse = Coarse(item_ND, dtype, 100, lanes=4, kept_bytes=0)
    block = coarse.block(query_bD)
    for index in range(coarse.num_tiles):
        tile_ND = item_ND[index :: coarse.num_tiles]
        scores = coarse.scores(block, index)
        assert torch.isneginf(scores[:, len(tile_ND) :]).all()
        scores = scores[:, : len(tile_ND)].double()
        true = query_bD.double() @ tile_ND.double().T
        rounding = scores.abs() * (2.0**-8 if dtype == B16 else 0)
        assert ((scores - true).abs() <= block.slack[:, None] + rounding).all()


EXACT, CUT = 1 / 8, (1 + 2.0**-8) / 8
"""A number that bfloat16 keeps, and one of those of which it cuts off most."""


@pytest.mark.parametrize(("query", "item"), [(EXACT, CUT), (CUT, EXACT), (CUT, CUT)])
def test_the_bound_is_reached_where_all_numbers_are_cut_alike(query: float, item: float) -> None:
    coarse = Coarse(torch.full((1, 64), item), B16, 100, lanes=4, kept_bytes=0)
    block = coarse.block(torch.full((1, 64), query))
    lost = query * item * 64 - float(coarse.scores(block, 0)[0, 0])
    assert 0.95 * float(block.slack[0]) < lost <= float(block.slack[0])


@pytest.mark.parametrize("dtype", [B16, F32])
@pytest.mark.parametrize("slack", [0.0, 0.01, 0.3])
def test_reach_is_the_least_score_of_an_item_that_may_be_as_good(
    dtype: torch.dtype, slack: float
) -> None:
    codes = torch.arange(-200, 201) / 128
    scores = codes[codes != 0].to(dtype)
    coarse = Coarse(torch.ones(1, 1), dtype, 1, lanes=1, kept_bytes=0)
    reach = coarse.reach(scores, torch.full((len(scores),), slack, dtype=torch.float64)).double()
    loss = slack + scores.double().abs() * (2.0**-8 if dtype == B16 else 0)
    best, worst = scores.double() + loss, scores.double() - loss
    may_be_as_good = best[None] >= worst[:, None]
    least = torch.where(may_be_as_good, scores.double()[None], torch.inf).amin(1)
    inside = least > scores.min()
    assert (reach <= least).all()
    assert (reach >= least - 3 / 128)[inside].all()


def test_items_that_rounding_puts_in_the_wrong_order_are_told_apart() -> None:
    """30 items are truly a hair better than 60 others, which score higher by far in bfloat16."""
    rng = np.random.default_rng(2)
    up, down = 1 + 2.0**-8 + 2.0**-20, 1 + 2.0**-8
    item_ND = 0.5 * unit(rng, 6000, 64)
    better, worse = np.split(rng.permutation(6000)[:90], [30])
    item_ND[better] = torch.tensor(down)
    item_ND[better, 0] = down + 2.0**-7
    item_ND[worse] = torch.tensor(up)
    query_QD = torch.ones(4, 64)
    coarse = Coarse(item_ND, B16, 6000, lanes=4, kept_bytes=0)
    block = coarse.block(query_QD)
    scores = coarse.scores(block, 0)[0].float()
    assert scores[worse].min() > scores[better].max()
    sizes = Sizes(row_bytes=1000, queries=3, lanes=4, few=1)
    top = top_k(CosineScorer(query_QD, item_ND, (B16,)), unfiltered(4, 6000), 20, sizes=sizes)
    assert top.searched == 0
    assert set(top.items[0].tolist()) <= set(better.tolist())
    by_all_ways(query_QD, item_ND, unfiltered(4, 6000), 20, sizes)


def test_a_bar_that_was_too_high_proves_nothing() -> None:
    """The first tile promises too much: what it asks for leaves out items that are truly better.

    Of 64 equal numbers an item's score is their sum. In bfloat16 ``left_out`` scores one step less
    than ``taken``, is truly better by a hair, and is just not reached by a bar at ``promised``.
    """
    k, num_tiles, sizes = 20, 8, Sizes(row_bytes=1000, queries=4, lanes=4, few=1)
    step, middle = 1 / 128, (240 + 0.5) / 128
    item_ND = 0.2 * unit(np.random.default_rng(11), 4000, 64)
    promised, taken, left_out = np.split(np.arange(140), [80, 110])
    promised = promised[::num_tiles]
    item_ND[taken] = middle + 2.0**-20
    item_ND[left_out] = middle
    item_ND[left_out, 0] += step
    query_QD = torch.ones(2, 64)
    for level in range(242, 256):
        item_ND[promised] = level * step
        coarse = Coarse(item_ND, B16, 500, lanes=4, kept_bytes=0)
        block = coarse.block(query_QD)
        scores = torch.cat([coarse.scores(block, t) for t in range(num_tiles)], 1)[0]
        assert coarse.num_tiles == num_tiles
        bar = coarse.reach(torch.tensor([64 * level * step], dtype=B16), block.slack[:1])
        if (scores >= bar).sum() == len(promised) + len(taken):
            break
    else:
        pytest.fail("no level puts the bar between the two")
    tops = by_all_ways(query_QD, item_ND, unfiltered(2, 4000), k, sizes)
    assert set(tops[0].items[0].tolist()) <= {*promised.tolist(), *left_out.tolist()}
    assert tops[1].searched == 2


@pytest.mark.parametrize("seed", range(4))
def test_lists_that_overflow_their_places_are_searched_again(seed: int) -> None:
    """700 near-ties stand evenly in the catalogue; a query has 592 places for K = 10."""
    rng = np.random.default_rng(seed)
    query_QD, item_ND = unit(rng, 1, 32).expand(4, -1).clone(), unit(rng, 8000, 32)
    near = rng.permutation(8000)[:700]
    item_ND[near] = query_QD[:1] + 1e-4 * item_ND[near]
    sizes = Sizes(row_bytes=1000, queries=4, lanes=4, few=1)
    tops = by_all_ways(query_QD, item_ND, unfiltered(4, 8000), 10, sizes)
    assert [top.searched for top in tops[:2]] == [4, 4]


def test_scores_below_zero_are_proved_too() -> None:
    rng = np.random.default_rng(3)
    query_QD, item_ND = -unit(rng, 20, 16).abs(), unit(rng, 3000, 16).abs()
    sizes = Sizes(row_bytes=1000, queries=8, lanes=4, few=1)
    tops = by_all_ways(query_QD, item_ND, unfiltered(20, 3000), 5, sizes)
    assert (tops[0].scores < 0).all()
    assert max(top.searched for top in tops) <= 2


def test_a_collapsed_model_is_left_to_whole_rows() -> None:
    rng = np.random.default_rng(4)
    query_QD, item_ND = unit(rng, 9, 8), all_alike(rng, 3000, 8)
    tops = by_all_ways(query_QD, item_ND, unfiltered(9, 3000), 5)
    assert [top.searched for top in tops[:3]] == [9, 9, 9]


def test_more_near_ties_than_places_are_searched_again() -> None:
    """Half the catalogue within 1e-4 of the best: too much for bfloat16, enough for float32."""
    rng = np.random.default_rng(5)
    item_ND = unit(rng, 8000, 32)
    query_QD = unit(rng, 1, 32).expand(300, -1).clone()
    item_ND[:3000] = query_QD[:1] + 1e-4 * item_ND[:3000]
    ways = {way: CosineScorer(query_QD, item_ND, way) for way in WAYS}
    sizes = Sizes(row_bytes=2000, queries=64, lanes=4)
    tops = {
        way: top_k(scorer, unfiltered(300, 8000), 10, sizes=sizes) for way, scorer in ways.items()
    }
    assert tops[B16, F32].searched == 300
    assert tops[F32,].searched < 10
    expected = slow_top_k(CosineScorer(query_QD[:1], item_ND), unfiltered(1, 8000), 10)
    for top in tops.values():
        assert_equal(top, (expected[0] * 300, expected[1] * 300))


@pytest.mark.parametrize("tile_mb", [1, 2, 64])
def test_the_memory_bound_changes_nothing(tile_mb: int) -> None:
    rng = np.random.default_rng(6)
    query_QD, item_ND = unit(rng, 400, 24), unit(rng, 12_000, 24)
    candidates = filtered(rng, 400, 12_000, 30)
    whole = top_k(CosineScorer(query_QD, item_ND, ()), candidates, 10)
    for way in WAYS:
        top = top_k(CosineScorer(query_QD, item_ND, way), candidates, 10, tile_mb=tile_mb)
        assert np.array_equal(top.items, whole.items)
        assert np.array_equal(top.scores, whole.scores)


@pytest.fixture(params=["highest", "high", "medium"])
def matmul_precision(request: pytest.FixtureRequest) -> Iterator[str]:
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("has_onednn", [True, False])
def test_matmuls_with_fewer_bits_and_autocast_change_nothing(
    matmul_precision: str, has_onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coarse_scores, "_has_onednn", lambda _: has_onednn)
    rng = np.random.default_rng(7)
    query_QD, item_ND = unit(rng, 40, 16), unit(rng, 2000, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        by_all_ways(query_QD, item_ND, filtered(rng, 40, 2000, 20), 10)


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("two_threads")
def test_threads_change_nothing_and_are_given_back() -> None:
    rng = np.random.default_rng(8)
    query_QD, item_ND = unit(rng, 50, 16), unit(rng, 2000, 16)
    by_all_ways(query_QD, item_ND, filtered(rng, 50, 2000, 20), 10)
    with ThreadPoolExecutor(1) as pool:
        assert torch.get_num_threads() == pool.submit(torch.get_num_threads).result() == 2


@pytest.mark.parametrize("way", WAYS)
def test_products_that_overflow_stop_the_evaluation(way: Sequence[torch.dtype]) -> None:
    """One score is just over the largest float32, a dozen just under."""
    item_ND = torch.ones(2000, 1)
    item_ND[100:112], item_ND[112] = 3e19, 4e19
    scorer = CosineScorer(torch.full((20, 1), 1e19), item_ND, way)
    with pytest.raises(DivergedError, match="diverged"):
        top_k(scorer, unfiltered(20, 2000), 5, sizes=TINY)


def test_lists_longer_than_the_catalogue_are_padded() -> None:
    rng = np.random.default_rng(10)
    query_QD, item_ND = unit(rng, 12, 8), unit(rng, 150, 8)
    by_all_ways(query_QD, item_ND, filtered(rng, 12, 150, 150), 200)
    by_all_ways(query_QD, item_ND, unfiltered(12, 150), 150)
