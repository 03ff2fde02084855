"""Batches with nothing to compare: losses and weights stay finite, or the run stops by name."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from tiny_catalogue import tiny_batch, tiny_experiment, tiny_inputs, tiny_state
from twotower.core.loading import with_overrides
from twotower.core.types import Batch, Side
from twotower.models.embeddings.bags import RowGradients
from twotower.training.state import TrainInputs, TrainState
from twotower.training.step import train_step

torch.set_num_threads(1)

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "counted": {"loss__logq": "counted"},
    "streaming": {"loss__logq": "streaming"},
    "mixed": {"loss__mixed_negatives": 5, "loss__logq": "counted"},
    "ssl_uniform": {"ssl__weight": 0.7, "ssl__dropout_rate": 0.4},
    "ssl_in_batch": {"ssl__weight": 0.7, "ssl__items": "in_batch", "ssl__masking": "rfm"},
    "spread_out": {"loss__spread_out": "softmax"},
    "spread_out_squared": {"loss__spread_out": "squared"},
    "everything": {
        "ssl__weight": 0.7,
        "ssl__items": "in_batch",
        "loss__logq": "streaming",
        "loss__spread_out": "softmax",
        "loss__feature_dropout": 0.9,
        "train__clip_norm": 0.1,
        "train__optimizer": "adamw",
    },
}


def one_row(step: int) -> Batch:
    return tiny_batch(step, rows=1, real=1)


def one_row_and_padding(step: int) -> Batch:
    return tiny_batch(step, real=1)


def one_item(step: int) -> Batch:
    return replace(tiny_batch(step), item=np.full(16, 3))


def all_equal(step: int) -> Batch:
    batch = one_item(step)
    return replace(batch, query=np.full(16, 4), weight=np.ones(16, dtype=np.float32))


def own_item(step: int) -> Batch:
    """Queries that are items themselves, each next to itself only: it is left out of candidates."""
    batch, own = tiny_batch(step), tiny_inputs().query_items
    query = np.flatnonzero(own >= 0)[:1].repeat(16)
    return replace(batch, query=query, item=own[query])


BATCHES = [one_row, one_row_and_padding, one_item, all_equal, own_item]


def check_steps(state: TrainState, batches: list[Batch]) -> None:
    for batch in batches:
        losses = train_step(state, batch, detail=True)
        broken = [name for name, value in losses.items() if not torch.isfinite(value)]
        assert not broken, f"step {batch.step}: {broken}"
    weights = state.model.state_dict() | dict(state.optimizer.state_tensors())
    assert not [name for name, value in weights.items() if not torch.isfinite(value).all()]


@pytest.mark.parametrize("batch_of", BATCHES, ids=lambda make: make.__name__)
@pytest.mark.parametrize("case", CASES)
def test_batches_with_nothing_to_compare_give_finite_losses(case: str, batch_of: Any) -> None:
    state = tiny_state(tiny_experiment(**CASES[case]), dtype=torch.float32)
    check_steps(state, [batch_of(step) for step in range(3)])


@pytest.mark.parametrize("batch_of", BATCHES[:4], ids=lambda make: make.__name__)
def test_without_a_negative_the_loss_is_zero_and_the_model_stands_still(batch_of: Any) -> None:
    """log(1): a single candidate is certain. Rows that meet only their own item say nothing."""
    state = tiny_state(tiny_experiment())
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    losses = train_step(state, batch_of(0))
    assert losses["loss"].abs() < 1e-12
    after = state.model.state_dict()
    moved = [n for n in before if n != "store.touched" and not torch.equal(before[n], after[n])]
    assert not moved


@pytest.mark.parametrize("case", CASES)
def test_a_catalogue_of_one_item_gives_finite_losses(case: str) -> None:
    inputs = tiny_inputs()
    one = np.zeros(1, dtype=np.int64)
    item = replace(
        inputs.item,
        num_rows=1,
        features=tuple(
            replace(
                f, values=f.values[:1] if isinstance(f.values, np.ndarray) else f.values.take(one)
            )
            for f in inputs.item.features
        ),
    )
    lonely: TrainInputs = replace(
        inputs,
        item=item,
        item_counts=np.array([7]),
        query_items=np.minimum(inputs.query_items, 0),
    )
    config = tiny_experiment(**CASES[case])
    state = TrainState.build(config, lonely, total_steps=10)
    check_steps(
        state, [replace(tiny_batch(s), item=np.zeros(16, dtype=np.int64)) for s in range(3)]
    )


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("optimizer", ["adagrad", "adagrad_rowwise", "adamw"])
def test_cosines_of_embeddings_train_an_item_of_which_nothing_is_known(
    optimizer: str, clip: float | None
) -> None:
    """Its vector begins at zero. It is pulled no harder than others, and goes on moving."""
    config = with_overrides(
        tiny_experiment(train__optimizer=optimizer, train__clip_norm=clip),
        {
            "data.features.item": {"brand": {"kind": "categorical"}},
            "data.features.query": {"id": {"kind": "categorical"}},
            "data.features.context": {},
            "model.towers": "identity",
        },
    )
    inputs = tiny_inputs()
    item = Side(inputs.item.num_rows, inputs.item.features[1:2])
    query = Side(inputs.query.num_rows, inputs.query.features[:1])
    state = TrainState.build(
        config, replace(inputs, item=item, query=query, context={}), total_steps=30
    )
    (brand,) = item.features
    assert not isinstance(brand.values, np.ndarray)
    unknown = int(np.flatnonzero(brand.values.values == 0)[0])
    default = state.model.store.offsets["item.brand"]
    pulls, update = list[float](), state.optimizer.apply

    def watched(rows: RowGradients, rate: float) -> None:
        norms, is_default = rows.values.norm(dim=1), rows.rows == default
        pulls.append(float(norms[is_default] / norms[~is_default].max()))
        update(rows, rate)

    state.optimizer.apply = watched
    places = [state.model.store.weight[default].clone()]
    assert not places[0].any()
    for step in range(30):
        batch = tiny_batch(step)
        batch.item[0] = unknown
        train_step(state, batch)
        places.append(state.model.store.weight[default].clone())
    assert 0 < max(pulls) < 5
    assert min((b - a).norm().item() for a, b in pairwise(places[20:])) > 1e-4
