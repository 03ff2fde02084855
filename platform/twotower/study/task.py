"""What a config asks of a model, in the words of the field."""

from twotower.core.config import ExperimentConfig
from twotower.data.schema import reads_query_id

ITEM_TO_ITEM = "item to item"
SEQUENCE = "sequence"
PERSONALISED = "personalised ranking"
QUERY_TO_ITEM = "query to item"


def task_of(config: ExperimentConfig) -> str:
    """The task of a config, by what its queries are and how they are read.

    - `item to item`: queries are items themselves.
    - `sequence`: the query is its history, read in order (`model.history: attention`).
    - `personalised ranking`: the query is somebody: known by an id that the model has a row for, or
      by what they took before, in any order.
    - `query to item`: the query is nothing but its features, as of a text or a place.
    """
    data = config.data
    if data.queries == "items":
        return ITEM_TO_ITEM
    features = data.features.query
    has_history = any(feature.kind == "history" for feature in features.values())
    if has_history and config.model.history == "attention":
        return SEQUENCE
    has_id = any(reads_query_id(data, name, feature) for name, feature in features.items())
    return PERSONALISED if has_id or has_history else QUERY_TO_ITEM
