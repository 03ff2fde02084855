import numpy as np
import pytest
import torch

from tiny_catalogue import (
    NUM_COUNTRIES,
    NUM_ITEMS,
    NUM_QUERIES,
    tiny_batch,
    tiny_experiment,
    tiny_inputs,
)
from twotower.core.config import ExperimentConfig
from twotower.core.types import Ragged
from twotower.models.build import ModelInputs, build
from twotower.models.two_tower import TwoTower

torch.set_num_threads(1)


def tiny_model(config: ExperimentConfig) -> TwoTower:
    inputs = tiny_inputs()
    return build(config, ModelInputs(inputs.item, inputs.query, inputs.context)).double()


def no_history(rows: int) -> Ragged:
    return Ragged.from_lists([[] for _ in range(rows)])


@pytest.mark.parametrize("history", [None, "mean", "attention"])
def test_training_and_evaluation_embed_alike_once_every_row_is_touched(history: str | None) -> None:
    model = tiny_model(
        tiny_experiment(history=history is not None, model__history=history or "mean")
    )
    model.store.touched[:] = True
    batch = tiny_batch(0, history=history is not None)
    query = model.query_inputs(batch.query, batch.context, batch.history)
    passes = [model.items.inputs(model.items.expand(rows)) for rows in (batch.item, np.arange(7))]
    query_bD, items_XD = model.embed(model.look_up(query, passes))
    torch.testing.assert_close(items_XD.norm(dim=1), torch.ones(23).double())
    embedded = model.embed_items(batch_size=11)
    assert embedded.shape == (NUM_ITEMS, 6)
    torch.testing.assert_close(items_XD, embedded[np.concatenate([batch.item, np.arange(7)])])
    torch.testing.assert_close(model.embed_items(np.array([5, 2])), embedded[[5, 2]])
    queries = model.embed_queries(
        batch.query, context=batch.context, history=batch.history, batch_size=5
    )
    torch.testing.assert_close(query_bD, queries)


@pytest.mark.parametrize("history", ["mean", "attention"])
def test_empty_history_embeds_without_nan(history: str) -> None:
    model = tiny_model(tiny_experiment(history=True, model__history=history))
    context = {"country": np.zeros(3, dtype=np.int64)}
    out = model.embed_queries(np.arange(3), context=context, history=no_history(3))
    assert out.isfinite().all()
    torch.testing.assert_close(out.norm(dim=1), torch.ones(3).double())


def test_an_item_no_gradient_touched_embeds_like_one_without_features() -> None:
    model = tiny_model(tiny_experiment())
    out = model.embed_items()
    price = tiny_inputs().item.features[4].values
    assert isinstance(price, np.ndarray)
    dense = torch.from_numpy(price).double()[:, None]
    defaults = torch.zeros(NUM_ITEMS, 16).double()  # default rows start at zero
    torch.testing.assert_close(out, model.item_tower([defaults, dense]))


def test_no_rows_embed_to_no_rows() -> None:
    model = tiny_model(tiny_experiment(history=True))
    none = np.empty(0, dtype=np.int64)
    assert model.embed_items(none).shape == (0, 6)
    context = {"country": none}
    assert model.embed_queries(none, context=context, history=no_history(0)).shape == (0, 6)


def test_features_that_share_a_vocabulary_share_its_table() -> None:
    shared = tiny_model(tiny_experiment(history=True))
    assert set(shared.store.tables) == {
        "item.id",
        "item.brand",
        "item.tags",
        "item.words",
        "query.id",
        "context.country",
    }
    assert shared.store.tables["context.country"] == NUM_COUNTRIES
    assert shared.store.tables["query.id"] == NUM_QUERIES + 2
    apart = tiny_model(tiny_experiment(history=True, model__shared_tables=False))
    assert apart.store.tables["query.past"] == apart.store.tables["item.id"]


def test_initial_values_depend_on_the_seed_and_not_on_the_global_generator() -> None:
    torch.manual_seed(1)
    first = tiny_model(tiny_experiment(history=True, model__history="attention")).state_dict()
    torch.manual_seed(2)
    again = tiny_model(tiny_experiment(history=True, model__history="attention")).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = tiny_model(
        tiny_experiment(history=True, model__history="attention", seed=1)
    ).state_dict()
    assert not torch.equal(first["store.weight"], other["store.weight"])
    assert not torch.equal(
        first["item_tower.mlp.layers.0.weight"], other["item_tower.mlp.layers.0.weight"]
    )
