"""The two towers of an export over its tables: encoded features to vectors.

Shape letters:
    n rows    X width of a vector    H history items of all rows
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from twotower.core.errors import InputError
from twotower.core.types import Float32, Int64, Ragged
from twotower.serving.arrays import Tensors
from twotower.serving.features import (
    FeatureSpec,
    Record,
    Vocabulary,
    is_list,
    shown,
    text_of,
)
from twotower.serving.scorers import Scorer
from twotower.serving.sides import Encoded, HistorySpec, Side, read_bags
from twotower.serving.strings import Strings
from twotower.serving.tables import ServedTable
from twotower.serving.towers import Tower


@dataclass(frozen=True, slots=True)
class Questions:
    """Encoded queries."""

    side: Encoded
    context: Encoded
    history: Ragged | None
    """Item rows of each query, newest first."""


@dataclass(frozen=True, slots=True)
class ItemEncoder:
    """The item tower and what it reads: all that embedding items takes."""

    side: Side
    tower: Tower

    def embed(self, encoded: Encoded) -> Float32:
        """float32 ``(n, X)``; InputError where a number is too large for float32."""
        return _finite(self.tower, self.inputs(encoded))

    def inputs(self, encoded: Encoded) -> Float32:
        """What the tower reads: float32 ``(n, in)``."""
        return np.concatenate(self.side.inputs(encoded), axis=1)


class Model:
    """Both towers and what scores their vectors.

    KeyError where a tensor or a key of the document is missing, ValueError where two don't fit.
    """

    def __init__(
        self,
        document: Mapping[str, Any],
        tables: Mapping[str, ServedTable],
        vocabularies: Mapping[str, Vocabulary],
        towers: Tensors,
        history_items: Tensors,
    ) -> None:
        """Put together.

        Args:
            document: `model.json`.
            tables: the embedding tables.
            vocabularies: of the features.
            towers: tensors of both MLPs, of the scorer and of the history encoder.
            history_items: ``history``: the ids that each catalogue item is looked up by.
        """
        self._tables, self._towers, self._history_items = tables, towers, history_items
        items, self.queries, self.context = (
            Side.of(
                tuple(FeatureSpec(**one) for one in document["features"][name]),
                tables,
                vocabularies,
            )
            for name in ("item", "query", "context")
        )
        history = document["history"]
        self.history = HistorySpec(**history) if history else None
        scorer, layers = document["scorer"], document["layers"]
        self.scorer = Scorer.read(towers, scorer["kind"], scorer["layers"])
        self.query_tower = Tower.read(towers, "query_tower", layers, self.scorer.queries)
        item_tower = Tower.read(towers, "item_tower", layers, self.scorer.items)
        self.items = ItemEncoder(items, item_tower)

    @property
    def history_table(self) -> ServedTable:
        """Table that history items are looked up in."""
        assert self.history is not None
        return self._tables[self.history.table]

    def embed_items(self, records: Sequence[Record]) -> Float32:
        """As `Export.embed_items`."""
        self.items.side.require_columns(records)
        return self.items.embed(self.items.side.encode(records))

    def encode_queries(self, records: Sequence[Record], item_ids: Strings) -> Questions:
        """Encode raw records; their histories are ids of ``item_ids``."""
        own = [feature.column for feature in self.context.features]
        if self.history:
            own.append(self.history.name)
        self.queries.require_columns(records, own)
        histories = None
        if self.history:
            bags = [self._history_rows(r.get(self.history.name), item_ids) for r in records]
            histories = Ragged.from_lists([bag.tolist() for bag in bags])
        return Questions(self.queries.encode(records), self.context.encode(records), histories)

    def encode_nothing(self) -> Questions:
        """One query of which nothing is known."""
        empty = Ragged.from_lists([[]]) if self.history else None
        return Questions(self.queries.encode([{}]), self.context.encode([{}]), empty)

    def stored_queries(self, tensors: Tensors, rows: Int64) -> Questions:
        """Queries that were encoded when the export was written."""
        side, context = (one.stored(tensors, rows) for one in (self.queries, self.context))
        if not self.history:
            return Questions(side, context, None)
        histories = Ragged(tensors["history.offsets"], tensors["history"])
        return Questions(side, context, histories.take(rows))

    def embed_queries(self, asked: Questions) -> Float32:
        """float32 ``(n, X)``; InputError as of items."""
        return _finite(self.query_tower, self.query_inputs(asked))

    def query_inputs(self, asked: Questions) -> Float32:
        """What the query tower reads: float32 ``(n, in)``."""
        parts = self.queries.inputs(asked.side) + self.context.inputs(asked.context)
        if self.history and asked.history is not None:
            rows, lengths = asked.history.values.astype(np.int64), asked.history.lengths()
            bags = read_bags(self._history_items, "history", rows)
            parts.append(self.history.encode(bags, lengths, self._tables, self._towers))
        return np.concatenate(parts, axis=1)

    def _history_rows(self, value: Any, item_ids: Strings) -> Int64:
        assert self.history is not None
        name = self.history.name
        if value is None:
            return np.empty(0, dtype=np.int64)
        if not is_list(value):
            raise InputError(f"{name!r}: {shown(value)} must be a list of item ids, newest first")
        rows = item_ids.find([text_of(one, name) for one in value if one is not None])
        return rows[rows >= 0][: self.history.max_values]


def _finite(tower: Tower, inputs: Float32) -> Float32:
    """What a tower makes of its inputs."""
    with np.errstate(over="ignore", invalid="ignore"):
        vectors = tower(inputs)
    if not (is_finite := np.isfinite(vectors).all(axis=1)).all():
        raise InputError(
            f"record {int(np.argmin(is_finite))}: its vector is not finite; a dense value is too "
            "far from the training data's"
        )
    return vectors
