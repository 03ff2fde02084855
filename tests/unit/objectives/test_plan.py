from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tiny_catalogue import DOCUMENT, NUM_ITEMS, take, tiny_batch, tiny_experiment, tiny_inputs
from twotower.core.config import ExperimentConfig
from twotower.core.errors import DataError
from twotower.core.loading import with_overrides
from twotower.objectives.group import SINGLE, parts
from twotower.objectives.plan import ObjectiveInputs, Planner, distinct

torch.set_num_threads(1)


class OneOf:
    """Rank `rank` of `size` that hears only itself: enough to see what a rank plans for itself."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def exchange(self, *numbers: float) -> list[tuple[float, ...]]:
        return [numbers] * self.size

    def gather(self, x: torch.Tensor, sizes: Any) -> torch.Tensor:
        raise AssertionError

    def sum_(self, x: torch.Tensor) -> None:
        raise AssertionError


def planner(config: ExperimentConfig) -> Planner:
    inputs = tiny_inputs()
    names = tuple(f.name for f in inputs.item.features)
    known = ObjectiveInputs(
        names, inputs.query_items, inputs.item_counts, inputs.mutual_information
    )
    return Planner(config, known, torch.device("cpu"))


@pytest.mark.parametrize(("total", "size"), [(10, 3), (2, 4), (0, 2), (7, 1)])
def test_parts_cover_everything_once_and_differ_by_at_most_one(total: int, size: int) -> None:
    sizes = parts(total, size)
    assert sum(sizes) == total
    assert max(sizes) - min(sizes) <= 1


def test_padding_is_absent_from_the_plan() -> None:
    batch = tiny_batch(0, real=11)
    plan = planner(tiny_experiment(ssl__weight=1, ssl__items="in_batch")).plan(batch, SINGLE)
    assert plan.num_rows == 11
    assert plan.weight_sum == batch.weight.sum()
    assert np.array_equal(plan.main.items[plan.row_to_main], batch.item[:11])
    assert plan.counts.sum() == 11
    assert plan.ssl is not None
    assert np.array_equal(plan.ssl.items, batch.item[:11])


@given(st.integers(1, 200), st.integers(1, 400), st.integers(0, 9))
def test_columns_fill_a_multiple_of_64_and_stand_for_every_row(
    num_items: int, rows: int, seed: int
) -> None:
    items_b = np.random.default_rng(seed).integers(0, num_items, rows)
    items, row_to_item, counts = distinct(items_b)
    num_distinct = len(np.unique(items_b))
    assert np.array_equal(items[:num_distinct], np.unique(items_b))
    assert len(items) == min(rows, -(-num_distinct // 64) * 64)
    assert np.array_equal(items[row_to_item], items_b)
    assert np.array_equal(np.bincount(row_to_item, minlength=len(items)), counts)
    assert (counts > 0).all()


def test_every_row_embeds_its_item_where_features_drop_row_by_row() -> None:
    batch = tiny_batch(0)
    plan = planner(tiny_experiment(loss__feature_dropout=0.5)).plan(batch, SINGLE)
    assert np.array_equal(plan.main.items, batch.item)
    assert plan.main.hidden is not None


@pytest.mark.parametrize(
    "ssl",
    [
        {"ssl__mask_features": ["brand"]},
        {"ssl__hidden_features": ["id"]},
        {"ssl__hidden_features": ["id", "brand", "tags", "words", "price"]},
        {"ssl__weight": 1, "ssl__mask_features": ["brand", "tags"]},
    ],
)
def test_every_feature_of_the_item_tower_drops_whatever_ssl_masks(ssl: dict[str, Any]) -> None:
    dropped = {"loss__feature_dropout": 0.5, "loss__mixed_negatives": 9}
    plain = planner(tiny_experiment(**dropped)).plan(tiny_batch(0), SINGLE)
    beside = planner(tiny_experiment(**dropped, **ssl)).plan(tiny_batch(0), SINGLE)
    for ours, theirs in ((plain.main, beside.main), (plain.mixed, beside.mixed)):
        assert ours.hidden is not None
        assert theirs.hidden is not None
        assert ours.hidden.any(0).all()
        assert torch.equal(ours.hidden, theirs.hidden)


def test_feature_dropout_draws_in_the_order_of_the_config() -> None:
    """The item side has an order of its own; runs that were kept were drawn by the config's."""
    config = tiny_experiment(loss__feature_dropout=0.5)
    turned = dict(reversed(DOCUMENT["data"]["features"]["item"].items()))
    hidden = [
        planner(c).plan(tiny_batch(0), SINGLE).main.hidden
        for c in (config, with_overrides(config, {"data.features.item": turned}))
    ]
    assert hidden[0] is not None
    assert hidden[1] is not None
    assert torch.equal(hidden[1], hidden[0].flip(1))


def test_ranks_divide_uniform_items_and_negatives_of_one_worker() -> None:
    config = tiny_experiment(
        ssl__weight=1, ssl__batch_size=11, loss__mixed_negatives=7, ssl__masking="rfm"
    )
    batch = tiny_batch(3)
    whole = planner(config).plan(batch, SINGLE)
    plans = [
        planner(config).plan(take(batch, np.arange(16) % 3 == r), OneOf(r, 3)) for r in range(3)
    ]
    assert np.array_equal(np.concatenate([p.mixed.items for p in plans]), whole.mixed.items)
    assert np.array_equal(planner(config).mixed_items(whole.draws), whole.mixed.items)
    assert whole.ssl is not None
    assert len(whole.ssl.items) == 11
    assert set(whole.ssl.items) <= set(range(NUM_ITEMS))
    ssl = [p.ssl for p in plans if p.ssl is not None]
    assert np.array_equal(np.concatenate([s.items for s in ssl]), whole.ssl.items)
    for view in (0, 1):
        hidden = torch.cat([s.views.hidden[view] for s in ssl if s.views is not None])
        assert whole.ssl.views is not None
        assert torch.equal(hidden, whole.ssl.views.hidden[view])


def test_uniform_items_change_with_the_step_and_the_seed() -> None:
    drawn = [
        planner(tiny_experiment(ssl__weight=1, seed=seed)).plan(tiny_batch(step), SINGLE).ssl
        for seed, step in ((0, 0), (0, 1), (1, 0))
    ]
    first, *others = [s.items for s in drawn if s is not None]
    assert all(not np.array_equal(first, other) for other in others)


def test_cfm_without_mutual_information_is_refused() -> None:
    inputs = tiny_inputs()
    names = tuple(f.name for f in inputs.item.features)
    known = ObjectiveInputs(names, inputs.query_items, inputs.item_counts)
    with pytest.raises(DataError, match=r"ssl\.masking: cfm"):
        Planner(tiny_experiment(ssl__weight=1), known, torch.device("cpu"))
