"""From a prepared dataset to what the model and the reader are built from."""

from collections.abc import Mapping

import numpy as np

from twotower.core.config import ExperimentConfig
from twotower.core.types import Float64, Int64, Ragged, Side
from twotower.data.prepared import Prepared
from twotower.data.reader import BatchReader
from twotower.objectives.group import SINGLE, Group
from twotower.training.state import TrainInputs


def train_inputs(config: ExperimentConfig, prepared: Prepared) -> TrainInputs:
    """Catalogue, queries and tables of a run's model."""
    shared, item = config.model.shared_tables, prepared.item_side()
    sizes = prepared.tables(shared_tables=shared)
    query = prepared.query_side(shared_tables=shared)
    contexts = prepared.context_tables(shared_tables=shared)
    return TrainInputs(
        item=item,
        query=query,
        query_items=prepared.query_items(),
        item_counts=prepared.item_counts(),
        context={name: (table, sizes[table]) for name, table in contexts.items()},
        value_counts={
            table: value_counts(table, sizes[table], prepared, (item, query), contexts)
            + _history_counts(table, sizes[table], prepared, item, shared_tables=shared)
            for table, kind in config.embeddings(sizes).items()
            if kind.kind == "mgqe"
        },
        mutual_information=_mutual_information(config, prepared, [f.name for f in item.features]),
    )


def value_counts(
    table: str,
    size: int,
    prepared: Prepared,
    sides: tuple[Side, Side],
    contexts: Mapping[str, str],
) -> Int64:
    """Train pairs in which each value of a table occurs, as its item's, its query's or its own.

    Args:
        table: the table.
        size: its values V.
        prepared: the dataset.
        sides: features of items and of queries.
        contexts: context feature -> its table.

    Returns:
        int64 ``(V,)``.
    """
    pairs = prepared.pairs("train")
    counts = np.zeros(size, dtype=np.int64)
    for side, rows in zip(sides, (pairs.item, pairs.query), strict=True):
        rows_of_side = np.bincount(rows, minlength=side.num_rows)
        for feature in side.features:
            if feature.table == table and isinstance(feature.values, Ragged):
                values = feature.values
                weights = np.repeat(rows_of_side, values.lengths())
                counted = np.bincount(values.values, weights=weights, minlength=size)
                counts += counted.astype(np.int64)
    for name, own in contexts.items():
        if own == table:
            counts += np.bincount(pairs.context[name], minlength=size)
    return counts


def _history_counts(
    table: str, size: int, prepared: Prepared, item: Side, *, shared_tables: bool
) -> Int64:
    """Train pairs of the items of a history that has a table of its own; zeros of other tables."""
    counts = np.zeros(size, dtype=np.int64)
    for name, own in prepared.history_tables(shared_tables=shared_tables).items():
        shared = f"item.{prepared.features.query[name].share}"
        if own == table and shared != table:
            counts += value_counts(shared, size, prepared, (item, Side(0, ())), {})
    return counts


def batch_reader(
    config: ExperimentConfig, prepared: Prepared, group: Group = SINGLE
) -> BatchReader:
    """Reader of this rank's rows of every global batch."""
    return BatchReader(
        prepared,
        batch_size=config.train.batch_size,
        rank=group.rank,
        world=group.size,
        history=history_length(config),
    )


def history_length(config: ExperimentConfig) -> int | None:
    """Most items of a history that a feature of the config reads; None where none is one."""
    features = config.data.features.query.values()
    return max((f.max_values for f in features if f.kind == "history"), default=None)


def _mutual_information(
    config: ExperimentConfig, prepared: Prepared, features: list[str]
) -> Float64 | None:
    """In the order of the item side, which is not that of the config."""
    if config.ssl.weight == 0 or config.ssl.masking != "cfm":
        return None
    measured = prepared.mutual_information(config.ssl.mi)
    order = [measured.features.index(name) for name in features]
    return measured.matrix[np.ix_(order, order)]
