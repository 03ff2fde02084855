"""From a prepared dataset to what the model and the reader are built from."""

from collections.abc import Mapping

import numpy as np

from twotower.core.config import ExperimentConfig
from twotower.core.embedding_config import Codebooks
from twotower.core.errors import ConfigError
from twotower.core.types import Float64, Int64, Ragged, Side
from twotower.data.order import steps_per_epoch
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
        value_counts=_value_counts(config, prepared, (item, query), contexts),
        mutual_information=_mutual_information(config, prepared, [f.name for f in item.features]),
    )


def _value_counts(
    config: ExperimentConfig,
    prepared: Prepared,
    sides: tuple[Side, Side],
    contexts: Mapping[str, str],
) -> dict[str, Int64]:
    """Train pairs in which each value of a table with tiers occurs.

    As its item's, its query's or its own; a history with a table of its own counts as the items do.

    Args:
        config: says which tables have tiers.
        prepared: the dataset; its pairs are read where there is such a table.
        sides: features of items and of queries.
        contexts: context feature -> its table.

    Returns:
        Table -> int64 ``(V,)``.
    """
    shared = config.model.shared_tables
    sizes = prepared.tables(shared_tables=shared)
    tiered = [t for t, kind in config.embeddings(sizes).items() if kind.kind == "mgqe"]
    if not tiered:
        return {}
    pairs = prepared.pairs("train")
    counts = {table: np.zeros(sizes[table], dtype=np.int64) for table in tiered}
    histories = [
        (f"item.{prepared.features.query[name].share}", own)
        for name, own in prepared.history_tables(shared_tables=shared).items()
    ]
    for side, rows in zip(sides, (pairs.item, pairs.query), strict=True):
        rows_of_side = np.bincount(rows, minlength=side.num_rows)
        for feature in side.features:
            read = {feature.table}
            if side is sides[0]:
                read |= {own for of_items, own in histories if of_items == feature.table}
            for table in read & counts.keys():
                assert isinstance(feature.values, Ragged)
                weights = np.repeat(rows_of_side, feature.values.lengths())
                counted = np.bincount(
                    feature.values.values, weights=weights, minlength=sizes[table]
                )
                counts[table] += counted.astype(np.int64)
    for name, table in contexts.items():
        if table in counts:
            counts[table] += np.bincount(pairs.context[name], minlength=sizes[table])
    return counts


def total_steps(config: ExperimentConfig, prepared: Prepared) -> int:
    """Steps of a whole run."""
    rows, lanes = prepared.num_train, prepared.lanes
    return config.train.num_epochs * steps_per_epoch(rows, lanes, config.train.batch_size)


def require_trainable(config: ExperimentConfig, prepared: Prepared) -> None:
    """Refuse what only the data shows, before any work starts.

    Raises:
        ConfigError: a warm-up, of the learning rate or of a table, is as long as the run.
    """
    steps = total_steps(config, prepared)
    tables = prepared.tables(shared_tables=config.model.shared_tables)
    warmups = {"train.warmup_steps: the learning rate": config.train.warmup_steps} | {
        f"model.embeddings: {name}": kind.warmup_steps
        for name, kind in config.embeddings(tables).items()
        if isinstance(kind, Codebooks)
    }
    for what, warmup in warmups.items():
        if warmup >= steps:
            raise ConfigError(
                f"{what} warms up for {warmup} steps, the run has {steps}; set fewer warmup_steps"
            )


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
