"""Whole evaluations: small ones against loops, constant scores against chance."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from twotower.core.config import Eval
from twotower.core.types import Ragged
from twotower.evaluation.baselines import PopularityScorer
from twotower.evaluation.evaluate import Evaluation, Task, evaluate, measure, recommend
from twotower.evaluation.protocol import Setting
from twotower.evaluation.scorers import CosineScorer
from twotower.evaluation.slices import slice_masks
from twotower.evaluation.ties import tie_keys
from twotower.evaluation.topk import Top

CONFIG = Eval(k=(3, 8), select="recall@3")
SETTING = Setting(part="test", split="random", pairs_digest="p", candidates_digest="c")


def random_task(seed: int, num_queries: int = 20, num_items: int = 50) -> Task:
    rng = np.random.default_rng(seed)
    rows = [
        [rng.permutation(num_items)[: rng.integers(low, 6)].tolist() for _ in range(num_queries)]
        for low in (1, 0)
    ]
    return Task(
        truth=Ragged.from_lists(rows[0]),
        exclude=Ragged.from_lists(rows[1]),
        own_item=rng.integers(-1, num_items, num_queries),
        full_counts=np.maximum(rng.zipf(1.5, num_items) - 1, 0) % 1000,
        tie_keys=tie_keys([f"i{index}" for index in range(num_items)]),
    )


def random_scorer(seed: int, task: Task) -> CosineScorer:
    generator = torch.Generator().manual_seed(seed)
    vectors = [
        torch.nn.functional.normalize(torch.randn(rows, 4, generator=generator), dim=1)
        for rows in (len(task.own_item), len(task.tie_keys))
    ]
    return CosineScorer(vectors[0], vectors[1])


def slow_recall(top: list[int], true: set[int], k: int) -> float:
    return len(true.intersection(top[:k])) / len(true) if true else math.nan


@given(st.integers(0, 10**6))
def test_recall_of_slices_equals_a_loop(seed: int) -> None:
    task = random_task(seed)
    found = evaluate(random_scorer(seed, task), task, CONFIG, SETTING)
    masks = slice_masks(task.full_counts, task.tie_keys, CONFIG.slices)
    removed = [0, 0]
    for query in range(20):
        own, barred = int(task.own_item[query]), set(task.exclude.row(query).tolist())
        true = set(task.truth.row(query).tolist())
        removed[0] += len(true & {own})
        removed[1] += len(true & barred - {own})
        true -= barred | {own}
        top = found.top[query].tolist()
        assert not set(top) & (barred | {own})
        for name, k in [(name, k) for name in ("", *masks) for k in CONFIG.k]:
            part = {item for item in true if not name or masks[name][item]}
            key = f"{name}_recall@{k}" if name else f"recall@{k}"
            expected = slow_recall(top, part, k)
            assert found.per_query[key][query] == pytest.approx(expected, nan_ok=True)
    assert found.counts["truths_own_item"] == removed[0]
    assert found.counts["truths_filtered"] == removed[1]
    slices = ("head", "torso", "tail", "unseen")
    assert found.counts["truths"] == sum(found.counts[f"truths_{name}"] for name in slices)


@given(st.integers(0, 10**6))
def test_renumbering_the_catalogue_changes_no_number(seed: int) -> None:
    task = random_task(seed)
    order = np.random.default_rng(seed).permutation(50)
    place = np.argsort(order)
    moved = Task(
        truth=Ragged(task.truth.offsets, place[task.truth.values]),
        exclude=Ragged(task.exclude.offsets, place[task.exclude.values]),
        own_item=np.where(task.own_item >= 0, place[task.own_item], -1),
        full_counts=task.full_counts[order],
        tie_keys=task.tie_keys[order],
    )
    here = evaluate(PopularityScorer(task.full_counts), task, CONFIG, SETTING)
    there = evaluate(PopularityScorer(moved.full_counts), moved, CONFIG, SETTING)
    assert here.document() == there.document()
    scorer = random_scorer(seed, task)
    turned = CosineScorer(scorer.query_QD, scorer.item_ND[order])
    models = [evaluate(*pair, CONFIG, SETTING) for pair in ((scorer, task), (turned, moved))]
    assert models[0].summary == models[1].summary


def test_constant_scores_find_about_k_of_n_however_popular_the_truth() -> None:
    """2,000 items; half of all true pairs point at 20 of them, which come first in the catalogue."""
    rng = np.random.default_rng(0)
    num_items, num_queries = 2000, 400
    popular = rng.random(num_queries) < 0.5
    true = np.where(popular, rng.integers(0, 20, num_queries), rng.integers(0, 2000, num_queries))
    counts = np.zeros(num_items, dtype=np.int64)
    recalls, best = [], 0.0
    for salt in range(40):
        task = Task(
            truth=Ragged.from_lengths(np.ones(num_queries, dtype=np.int64), true),
            exclude=Ragged.from_lists([[]] * num_queries),
            own_item=np.full(num_queries, -1),
            full_counts=counts,
            tie_keys=tie_keys([f"{salt}-{index}" for index in range(num_items)]),
        )
        config = Eval(k=(50,), select="recall@50", slices=())
        found = evaluate(PopularityScorer(counts), task, config, SETTING)
        recalls.append(found.per_query["recall@50"].mean())
        best = found.counts["cut_offs_searched"]
    spread = np.std(recalls) / np.sqrt(len(recalls))
    assert abs(np.mean(recalls) - 50 / num_items) < 4 * spread
    assert best == num_queries


def test_catalogue_order_gives_constant_scores_no_help() -> None:
    task = random_task(1)
    constant = PopularityScorer(np.zeros(50, dtype=np.int64))
    found = evaluate(constant, task, CONFIG, SETTING)
    expected = np.argsort(task.tie_keys).tolist()
    for query in range(20):
        barred = {*task.exclude.row(query).tolist(), int(task.own_item[query])}
        allowed = [item for item in expected if item not in barred]
        assert found.top[query].tolist() == allowed[:8]


def test_filter_can_be_switched_off() -> None:
    task = random_task(2)
    open_task = replace(task, exclude=Ragged.from_lists([[]] * 20))
    scorer = random_scorer(2, task)
    config = CONFIG.model_copy(update={"filter_seen": False})
    unfiltered = evaluate(scorer, task, config, SETTING)
    assert np.array_equal(unfiltered.top, evaluate(scorer, open_task, CONFIG, SETTING).top)
    assert unfiltered.counts["truths_filtered"] == 0
    assert unfiltered.certificate.protocol["filter"] == "none"


def test_queries_may_be_ranked_in_pieces() -> None:
    task = random_task(3)
    scorer = random_scorer(3, task)
    whole = evaluate(scorer, task, CONFIG, SETTING)
    tops = []
    for rows in (np.arange(0, 7), np.arange(7, 20)):
        part = Task(
            truth=task.truth.take(rows),
            exclude=task.exclude.take(rows),
            own_item=task.own_item[rows],
            full_counts=task.full_counts,
            tie_keys=task.tie_keys,
        )
        piece = CosineScorer(scorer.query_QD[torch.as_tensor(rows)], scorer.item_ND)
        tops.append(recommend(piece, part, CONFIG))
    top = Top(
        np.concatenate([top.items for top in tops]),
        np.concatenate([top.scores for top in tops]),
        sum(top.searched for top in tops),
    )
    assert measure(top, task, CONFIG, SETTING).document() == whole.document()


def test_popularity_and_coverage_leave_out_queries_without_truth() -> None:
    task = random_task(4)
    lists = [task.truth.row(query).tolist() for query in range(20)]
    lists[0] = []
    task = replace(task, truth=Ragged.from_lists(lists))
    found = evaluate(random_scorer(4, task), task, CONFIG, SETTING)
    measured = ~np.isnan(found.per_query["recall@3"])
    assert not measured[0]
    assert np.array_equal(measured, ~np.isnan(found.per_query["popularity@3"]))
    listed = np.unique(found.top[measured][:, :3])
    assert found.summary["coverage@3"]["value"] == len(listed) / 50
    assert found.summary["recall@3"]["n"] == measured.sum() == found.counts["queries_measured"]


def test_documents_are_json_even_of_nothing() -> None:
    nothing = replace(random_task(5), truth=Ragged.from_lists([[]] * 20))
    found = evaluate(random_scorer(5, nothing), nothing, CONFIG, SETTING)
    text = json.dumps(found.document(), allow_nan=False)
    assert json.loads(text)["summary"]["tail_recall@3"] == {
        "value": None,
        "low": None,
        "high": None,
        "n": 0,
    }


def test_small_catalogues_pad_lists() -> None:
    task = Task(
        truth=Ragged.from_lists([[1], [0]]),
        exclude=Ragged.from_lists([[0], []]),
        own_item=np.array([-1, 1]),
        full_counts=np.array([5, 1, 0]),
        tie_keys=tie_keys("abc"),
    )
    found: Evaluation = evaluate(PopularityScorer(task.full_counts), task, CONFIG, SETTING)
    assert found.top.tolist() == [[1, 2] + [-1] * 6, [0, 2] + [-1] * 6]
    assert found.per_query["recall@3"].tolist() == [1, 1]
    assert found.counts["lists_short"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth": Ragged.from_lists([[0]])}, "truth has 1 rows, own_item 20"),
        ({"exclude": Ragged.from_lists([[50]] * 20)}, "exclude has items outside"),
        ({"full_counts": np.zeros(3, dtype=np.int64)}, "full_counts has 3 rows, tie_keys 50"),
        ({"groups": np.zeros(3)}, "groups has 3 rows, own_item 20"),
        ({"own_item": np.full(20, -2)}, "own_item has items outside"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(random_task(0), **change)
