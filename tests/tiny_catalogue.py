"""A small catalogue with every kind of feature, batches over it, and the config that goes with them."""

from typing import Any

import numpy as np
import torch

from twotower.core.config import ExperimentConfig
from twotower.core.loading import build_config, with_overrides
from twotower.core.types import Batch, EncodedFeature, Ragged, Side
from twotower.training.state import TrainInputs, TrainState

NUM_ITEMS, NUM_QUERIES, NUM_COUNTRIES = 40, 25, 5
DOCUMENT: dict[str, Any] = {
    "name": "tiny",
    "data": {
        "interactions": {"path": "log"},
        "items": {"path": "items"},
        "queries": {"path": "queries"},
        "lanes": 4,
        "features": {
            "item": {
                "id": {"kind": "categorical"},
                "brand": {"kind": "categorical"},
                "tags": {"kind": "multi"},
                "words": {"kind": "multi"},
                "price": {"kind": "dense"},
            },
            "query": {
                "id": {"kind": "categorical"},
                "likes": {"kind": "multi", "share": "tags"},
                "age": {"kind": "dense"},
            },
            "context": {"country": {"kind": "categorical"}},
        },
    },
    "model": {"embed_dim": 4, "hidden": [8], "out_dim": 6},
    "train": {"batch_size": 16, "learning_rate": 0.1},
}


def tiny_experiment(*, history: bool = False, **changes: Any) -> ExperimentConfig:
    """The config; `ssl__weight=1` sets ssl.weight."""
    config = build_config(DOCUMENT, "tiny")
    if history:
        feature = {"kind": "history", "share": "id", "max_values": 5}
        config = with_overrides(
            config,
            {"data.features.query": DOCUMENT["data"]["features"]["query"] | {"past": feature}},
        )
    return with_overrides(config, {key.replace("__", "."): v for key, v in changes.items()})


def categorical(name: str, table: str, size: int, ids: Any) -> EncodedFeature:
    values = np.asarray(ids, dtype=np.int32)
    return EncodedFeature(
        name, "categorical", table, size, Ragged(np.arange(len(values) + 1), values)
    )


def multi(name: str, table: str, size: int, lists: list[list[int]]) -> EncodedFeature:
    return EncodedFeature(name, "multi", table, size, Ragged.from_lists(lists, np.int32))


def tiny_inputs(seed: int = 0) -> TrainInputs:
    """Random features; some values are missing, some bags are empty, id 1 is out of vocabulary."""
    rng = np.random.default_rng(seed)
    bag = lambda n, size: [rng.integers(1, size, rng.integers(0, 5)).tolist() for _ in range(n)]  # noqa: E731
    item = Side(
        NUM_ITEMS,
        (
            categorical("id", "item.id", NUM_ITEMS + 2, np.arange(NUM_ITEMS) + 2),
            categorical("brand", "item.brand", 6, rng.integers(0, 6, NUM_ITEMS)),
            multi("tags", "item.tags", 12, bag(NUM_ITEMS, 12)),
            multi("words", "item.words", 15, bag(NUM_ITEMS, 15)),
            EncodedFeature("price", "dense", "", 0, rng.normal(size=NUM_ITEMS).astype(np.float32)),
        ),
    )
    query = Side(
        NUM_QUERIES,
        (
            categorical("id", "query.id", NUM_QUERIES + 2, np.arange(NUM_QUERIES) + 2),
            multi("likes", "item.tags", 12, bag(NUM_QUERIES, 12)),
            EncodedFeature("age", "dense", "", 0, rng.normal(size=NUM_QUERIES).astype(np.float32)),
        ),
    )
    mutual = rng.random((5, 5))
    return TrainInputs(
        item=item,
        query=query,
        query_items=np.where(
            rng.random(NUM_QUERIES) < 0.7, rng.integers(0, NUM_ITEMS, NUM_QUERIES), -1
        ),
        item_counts=rng.integers(1, 9, NUM_ITEMS),
        context={"country": ("context.country", NUM_COUNTRIES)},
        value_counts={
            "item.id": np.arange(NUM_ITEMS + 2) % 7,
            "item.tags": np.arange(12)[::-1].copy(),
        },
        mutual_information=mutual + mutual.T,
    )


def tiny_batch(
    step: int, *, rows: int = 16, real: int = 16, history: bool = False, seed: int = 0
) -> Batch:
    """A global batch whose rows after the first `real` are padding; few items, so that they repeat."""
    rng = np.random.default_rng((seed, step))
    weight = rng.integers(1, 4, rows).astype(np.float32)
    weight[real:] = 0
    return Batch(
        query=rng.integers(0, NUM_QUERIES, rows),
        item=rng.integers(0, NUM_ITEMS // 3, rows),
        weight=weight,
        position=np.arange(rows),
        epoch=0,
        step=step,
        context={"country": rng.integers(0, NUM_COUNTRIES, rows)},
        history=Ragged.from_lists(
            [rng.integers(0, NUM_ITEMS, rng.integers(0, 6)).tolist() for _ in range(rows)]
        )
        if history
        else None,
    )


def take(batch: Batch, at: Any) -> Batch:
    """Some rows of a batch, as one worker's part of it."""
    return Batch(
        query=batch.query[at],
        item=batch.item[at],
        weight=batch.weight[at],
        position=batch.position[at],
        epoch=batch.epoch,
        step=batch.step,
        context={name: ids[at] for name, ids in batch.context.items()},
        history=None
        if batch.history is None
        else batch.history.take(np.arange(len(batch.item))[at]),
    )


def tiny_state(
    config: ExperimentConfig, *, total_steps: int = 10, dtype: torch.dtype = torch.float64
) -> TrainState:
    return TrainState.build(config, tiny_inputs(), total_steps=total_steps, dtype=dtype)
