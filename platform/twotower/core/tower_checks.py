"""What a model's towers need of the features, checked before any work starts."""

from twotower.core.data_config import Features
from twotower.core.model_config import Model


def check_towers(model: Model, features: Features) -> None:
    """Refuse towers that can't be built over these features.

    Raises:
        ValueError: what is wrong, and the mend.
    """
    of_query = features.query | features.context
    histories = [name for name, f in features.query.items() if f.kind == "history"]
    if len(histories) > 1:
        raise ValueError(
            f"data.features.query: {histories} are histories; a model has at most one, keep one"
        )
    if model.history == "attention" and not histories:
        raise ValueError(
            "model.history: attention reads a history, and no query feature is one; add one "
            "(kind: history) to data.features.query, or take mean"
        )
    if model.towers == "identity":
        _check_identity(model, features)
    if model.tower_init == "aligned":
        if model.towers == "identity":
            raise ValueError(
                "model.tower_init: towers that are the identity have no weights to align; take "
                "independent, or model.towers: mlp"
            )
        tables = model.shared_tables and any(f.share is not None for f in of_query.values())
        dense = {name for name, f in features.item.items() if f.kind == "dense"}
        if not tables and not any(n in dense and f.kind == "dense" for n, f in of_query.items()):
            raise ValueError(
                "model.tower_init: both towers read no common table, there is nothing to align; "
                "let a query feature `share` an item feature's vocabulary (and keep "
                "model.shared_tables), or take independent"
            )


def _check_identity(model: Model, features: Features) -> None:
    """Without an MLP a tower is as wide as what it reads, and both have to be equally wide."""
    sides = {"item": features.item, "query": features.query | features.context}
    item, query = (
        sum(1 if f.kind == "dense" else model.embed_dim for f in side.values())
        for side in sides.values()
    )
    if item != query:
        raise ValueError(
            f"model.towers: identity needs towers of one width, the item's is {item} and the "
            f"query's {query} (model.embed_dim times its features, and 1 for a dense one); "
            "drop features, or take mlp"
        )
    if model.scorer == "neumf" and item % 2:
        raise ValueError(
            f"model.scorer: neumf reads two halves of a tower's output, {item} is odd; take an "
            "even model.embed_dim"
        )
