import numpy as np
import torch

from tiny_catalogue import tiny_experiment, tiny_inputs
from twotower.models.build import ModelInputs, build

torch.set_num_threads(1)


def test_items_asked_for_themselves_begin_as_their_own_nearest() -> None:
    item = tiny_inputs().item
    config = tiny_experiment(model__tower_init="aligned")
    model = build(config, ModelInputs(item, item))
    model.store.touched[:] = True
    rows = np.arange(item.num_rows)
    torch.testing.assert_close(model.embed_queries(rows), model.embed_items(rows), rtol=0, atol=0)
    apart = build(tiny_experiment(), ModelInputs(item, item))
    apart.store.touched[:] = True
    assert not torch.allclose(apart.embed_queries(rows), apart.embed_items(rows), atol=0.1)


def test_columns_of_shared_tables_and_later_layers_begin_equal_and_no_others() -> None:
    inputs = tiny_inputs()
    of = ModelInputs(inputs.item, inputs.query, inputs.context)
    aligned = build(tiny_experiment(history=True, model__tower_init="aligned"), of)
    apart = build(tiny_experiment(history=True), of)
    query, item = aligned.query_tower.state_dict(), aligned.item_tower.state_dict()
    # Inputs of the query tower: id 0-3, likes 4-7 (item tags), age 8, country 9-12, past 13-16
    # (item id); of the item tower: id 0-3, brand 4-7, tags 8-11, words 12-15, price 16.
    first, its = query.pop("mlp.layers.0.weight"), item["mlp.layers.0.weight"]
    assert torch.equal(first[:, 4:8], its[:, 8:12])
    assert torch.equal(first[:, 13:17], its[:, 0:4])
    own = [*range(4), *range(8, 13)]
    unaligned = apart.query_tower.state_dict()["mlp.layers.0.weight"]
    assert torch.equal(first[:, own], unaligned[:, own])
    assert not torch.equal(first[:, 4:8], unaligned[:, 4:8])
    for name, weight in query.items():
        assert torch.equal(weight, item[name])
    for name, weight in apart.item_tower.state_dict().items():
        assert torch.equal(weight, item[name])
