from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twotower.core.data_config import Split
from twotower.data.hashing import keyed
from twotower.data.splits import (
    LEFT_OUT,
    TEST,
    TRAIN,
    VALIDATION,
    PairIds,
    SplitPlan,
    assign,
)


def pairs_of(number: int, queries: int = 40, items: int = 60, seed: int = 0) -> PairIds:
    """Distinct random pairs, any query and item once at most together."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(queries * items, number, replace=False)
    query, item = (chosen // items).astype(np.int32), chosen % items
    hashes = keyed(1, np.arange(max(queries, items), dtype=np.uint64))
    groups = keyed(2, np.arange(max(queries, items), dtype=np.uint64) // np.uint64(5))
    time = rng.integers(0, 1000, number)
    return PairIds(query, hashes[:queries], hashes[item], time, groups[:queries], groups[item])


def plan_of(kind: str = "random", **changes: Any) -> SplitPlan:
    names = {"column": "group"} if kind == "by_group" else {}
    split = Split.model_validate({"kind": kind, "validation": 0.2, "test": 0.1, **names})
    return replace(SplitPlan(split, 7, 1.0, False, (700, 900)), **changes)


@pytest.mark.parametrize("kind", ["random", "per_query", "by_group", "time", "cold_items"])
def test_shares_come_out(kind: str) -> None:
    parts = assign(pairs_of(2000), plan_of(kind))
    shares = np.bincount(parts, minlength=4) / 2000
    tolerance = 0.15 if kind in ("by_group", "cold_items") else 0.04
    assert np.abs(shares - [0.7, 0.2, 0.1, 0]).max() < tolerance


KINDS = ["random", "per_query", "by_group", "time", "cold_items", "leave_last"]


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_pairs_do_not_depend_on_their_order(kind: str) -> None:
    pairs, plan = pairs_of(500), plan_of(kind, fraction=0.5)
    order = np.random.default_rng(1).permutation(500)
    assert pairs.time is not None
    assert pairs.item_group is not None
    mixed = replace(
        pairs,
        query=pairs.query[order],
        item_hash=pairs.item_hash[order],
        time=pairs.time[order],
        item_group=pairs.item_group[order],
    )
    assert (assign(pairs, plan)[order] == assign(mixed, plan)).all()


def test_fraction_only_takes_from_train() -> None:
    pairs = pairs_of(2000)
    whole = assign(pairs, plan_of())
    half, tenth = (assign(pairs, plan_of(fraction=share)) for share in (0.5, 0.1))
    for parts, share in ((half, 0.5), (tenth, 0.1)):
        assert (whole[whole != TRAIN] == parts[whole != TRAIN]).all()
        assert abs((parts == TRAIN).sum() / (whole == TRAIN).sum() - share) < 0.05
        assert set(parts[whole == TRAIN].tolist()) == {TRAIN, LEFT_OUT}
    assert (half[tenth == TRAIN] == TRAIN).all()  # smaller fractions are inside larger ones


@pytest.mark.parametrize("kind", ["random", "by_group", "cold_items"])
def test_both_directions_of_an_edge_are_in_one_part(kind: str) -> None:
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 50, (2, 400))
    hashes = keyed(1, np.arange(50, dtype=np.uint64))
    groups = keyed(2, np.arange(50, dtype=np.uint64) // np.uint64(5))
    plan = plan_of(kind, undirected=True, fraction=0.6)

    def parts(query: Any, item: Any) -> Any:
        ids = PairIds(query.astype(np.int32), hashes, hashes[item], None, groups, groups[item])
        return assign(ids, plan)

    assert (parts(left, right) == parts(right, left)).all()


@given(st.integers(1, 300), st.integers(0, 5))
def test_per_query_keeps_one_train_pair(number: int, seed: int) -> None:
    pairs = pairs_of(number, queries=30, items=20, seed=seed)
    parts = assign(pairs, plan_of("per_query"))
    for query in np.unique(pairs.query):
        assert (parts[pairs.query == query] == TRAIN).any()


def test_leave_last_holds_out_the_two_newest_of_every_query_that_has_three() -> None:
    pairs = replace(
        pairs_of(8, queries=4, items=9),
        query=np.array([0, 0, 0, 0, 1, 1, 2, 2], dtype=np.int32),
        time=np.array([5, 9, 9, 1, 3, 4, 7, 7]),
    )
    parts = assign(pairs, plan_of("leave_last")).tolist()
    assert sorted(parts[1:3]) == [VALIDATION, TEST]  # one time: the keyed order decides
    assert parts[:1] + parts[3:] == [TRAIN] * 6


def test_cold_items_are_held_out_whole() -> None:
    pairs = pairs_of(2000)
    parts = assign(pairs, plan_of("cold_items"))
    for item in np.unique(pairs.item_hash):
        assert len(set(parts[pairs.item_hash == item].tolist())) == 1


def test_instants_are_the_first_of_their_part() -> None:
    pairs = replace(pairs_of(4), time=np.array([699, 700, 899, 900]))
    assert assign(pairs, plan_of("time")).tolist() == [TRAIN, VALIDATION, VALIDATION, TEST]
