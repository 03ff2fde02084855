"""Vocabularies as they are served: by the ids of the table that they lead to."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twotower.core.data_config import Feature
from twotower.core.types import FIRST_ID, Int64, Ragged
from twotower.data import committed
from twotower.data.prepared import Prepared
from twotower.data.tables import vocabulary_file
from twotower.models.embeddings.table import Served
from twotower.serving.features import Vocabulary
from twotower.serving.strings import Strings


class Vocabularies:
    """The vocabularies that an export needs, each read once."""

    def __init__(self, prepared: Prepared, served: Mapping[str, Served]) -> None:
        """Use a dataset's vocabularies and a model's tables."""
        self._prepared, self._served = prepared, served
        self._found: dict[str, Vocabulary] = {}

    def add(self, side: str, name: str, feature: Feature, table: str) -> str:
        """Take in the vocabulary of a feature that is looked up in a table; its name there."""
        features = self._prepared.features
        owner, of, own = side, name, feature
        if feature.share:
            owner, of, own = "item", feature.share, features.item[feature.share]
        order = self._served[table].ids
        key = f"{owner}.{of}" if order is None else f"{owner}.{of}/{table}"
        if key not in self._found:
            file = vocabulary_file(owner, of)
            values = committed.read_table(self._prepared.store, file, ["value"]).column("value")
            self._found[key] = ordered(values.to_pylist(), own.hash_buckets, order)
        return key

    def served_ids(self, table: str, bags: Ragged) -> Ragged:
        """Ids as the dataset has them, as the served table numbers them."""
        order = self._served[table].ids
        return bags if order is None else Ragged(bags.offsets, order[bags.values])

    def buckets(self) -> dict[str, int]:
        """Hash buckets by vocabulary."""
        return {name: known.hash_buckets for name, known in self._found.items()}

    def tensors(self) -> dict[str, NDArray[Any]]:
        """All of them as arrays."""
        found: dict[str, NDArray[Any]] = {}
        for name, known in self._found.items():
            found |= known.tensors(name)
        return found


def ordered(values: list[str], hash_buckets: int, order: Int64 | None) -> Vocabulary:
    """A vocabulary whose values follow the served ids, so that no map of ids is needed.

    One is kept where hash buckets lie among the values.
    """
    if order is None:
        return Vocabulary(Strings.of(values), hash_buckets)
    kept, buckets = np.split(order[FIRST_ID:], [len(values)])
    rank = np.argsort(kept)
    ids = np.concatenate([kept[rank], buckets]).astype(np.int32)
    is_plain = np.array_equal(ids, np.arange(FIRST_ID, FIRST_ID + len(ids)))
    strings = Strings.of([values[place] for place in rank.tolist()])
    return Vocabulary(strings, hash_buckets, None if is_plain else ids)
