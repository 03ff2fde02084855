"""From a prepared dataset to what the model and the reader are built from."""

import numpy as np

from twotower.core.config import ExperimentConfig
from twotower.core.types import Float64
from twotower.data.prepared import Prepared
from twotower.data.reader import BatchReader
from twotower.objectives.group import SINGLE, Group
from twotower.training.state import TrainInputs


def train_inputs(config: ExperimentConfig, prepared: Prepared) -> TrainInputs:
    """Catalogue, queries and tables of a run's model."""
    shared, item = config.model.shared_tables, prepared.item_side()
    sizes = prepared.tables(shared_tables=shared)
    contexts = prepared.context_tables(shared_tables=shared)
    return TrainInputs(
        item=item,
        query=prepared.query_side(shared_tables=shared),
        query_items=prepared.query_items(),
        item_counts=prepared.item_counts(),
        context={name: (table, sizes[table]) for name, table in contexts.items()},
        mutual_information=_mutual_information(config, prepared, [f.name for f in item.features]),
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
