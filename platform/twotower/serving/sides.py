"""From encoded features to what a tower reads.

Shape letters:
    n rows    S sparse, V dense and C context features    E width of an embedding    H history items
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from twotower.core.types import Float32, Int64, Ragged
from twotower.serving.arrays import Tensors
from twotower.serving.attention import Attention
from twotower.serving.features import (
    FeatureSpec,
    Record,
    Vocabulary,
    filled,
    require_columns,
    stacked,
)
from twotower.serving.tables import ServedTable
from twotower.serving.towers import bag_means, weighted_sums


@dataclass(frozen=True, slots=True)
class Encoded:
    """Features of n rows, by name."""

    num_rows: int
    bags: dict[str, Ragged]
    """Ids of each sparse feature, at least one a row."""

    numbers: dict[str, Float32]
    """float32 ``(n,)`` of each dense feature."""


@dataclass(frozen=True, slots=True)
class Side:
    """The features of one tower, in the order it reads them."""

    features: tuple[FeatureSpec, ...]
    tables: Mapping[str, ServedTable]
    vocabularies: Mapping[str, Vocabulary]

    @classmethod
    def of(
        cls,
        features: tuple[FeatureSpec, ...],
        tables: Mapping[str, ServedTable],
        vocabularies: Mapping[str, Vocabulary],
    ) -> "Side":
        """Keep the tables and vocabularies that the features name; KeyError if one isn't there."""
        sparse = [one for one in features if one.kind != "dense"]
        return cls(
            features,
            {one.table: tables[one.table] for one in sparse},
            {one.vocabulary: vocabularies[one.vocabulary] for one in sparse},
        )

    def encode(self, records: Sequence[Record]) -> Encoded:
        """Encode raw records; a column that a record lacks is a missing value."""
        bags: dict[str, Ragged] = {}
        numbers: dict[str, Float32] = {}
        for spec in self.features:
            if spec.kind == "dense":
                numbers[spec.name] = spec.numbers(records)
            else:
                bags[spec.name] = spec.ids(records, self.vocabularies[spec.vocabulary])
        return Encoded(len(records), bags, numbers)

    def stored(self, tensors: Tensors, rows: Int64) -> Encoded:
        """Some rows of features that were encoded before the export (`stored_tensors`)."""
        bags: dict[str, Ragged] = {}
        numbers: dict[str, Float32] = {}
        for spec in self.features:
            name = f"f.{spec.name}"
            if spec.kind == "dense":
                numbers[spec.name] = tensors[name][rows]
            else:
                bags[spec.name] = read_bags(tensors, name, rows)
        return Encoded(len(rows), bags, numbers)

    def inputs(self, encoded: Encoded) -> list[Float32]:
        """The parts of the tower's input, ``(n, E)`` each, then ``(n, V)``."""
        sparse = [
            bag_means(self.tables[spec.table], encoded.bags[spec.name])
            for spec in self.features
            if spec.kind != "dense"
        ]
        dense = [encoded.numbers[f.name] for f in self.features if f.kind == "dense"]
        return [*sparse, stacked(dense, encoded.num_rows)]

    def require_columns(self, records: Sequence[Record], also: Sequence[str] = ()) -> None:
        """InputError for a record with none of the columns of this side, nor one of ``also``."""
        require_columns(records, [*dict.fromkeys(f.column for f in self.features), *also])


@dataclass(frozen=True, slots=True)
class HistorySpec:
    """The history feature of queries, as `model.json` describes it."""

    name: str
    """Feature; a record has its items' ids under this name, newest first."""

    table: str
    max_values: int
    encoder: Literal["mean", "attention"]
    blocks: int = 1
    """Of attention."""

    heads: int = 1
    """Of each block."""

    def encode(
        self, bags: Ragged, lengths: Int64, tables: Mapping[str, ServedTable], towers: Tensors
    ) -> Float32:
        """One vector a row.

        Args:
            bags: H bags, the ids that each history item is looked up by.
            lengths: int64 ``(n,)``: items of each row.
            tables: the served tables.
            towers: tensors of the encoder.

        Returns:
            float32 ``(n, E)``; zeros for an empty history.
        """
        table = tables[self.table]
        if self.encoder == "attention":
            attend = Attention.of(towers, self.blocks, self.heads)
            return attend(bag_means(table, bags), lengths)
        summed = np.zeros((len(lengths), table.width), dtype=np.float32)
        items = Ragged.from_lengths(lengths, bags.lengths())
        entries = np.bincount(items.row_ids(), items.values, minlength=len(lengths))
        present = lengths > 0
        share_H = (1 / bags.lengths()).astype(np.float32)
        share_H *= (1 / np.maximum(lengths, 1)).astype(np.float32)[items.row_ids()]
        weights = np.repeat(share_H, bags.lengths())
        if present.any():
            offsets = Ragged.from_lengths(entries[present].astype(np.int64), weights).offsets
            summed[present] = weighted_sums(table.rows(bags.values), weights, offsets)
        return summed


def read_bags(tensors: Tensors, name: str, rows: Int64) -> Ragged:
    """Bags of some rows, of `bag_tensors`; int64 ids, at least one a row."""
    values = tensors[name]
    if f"{name}.offsets" not in tensors:
        taken = values[rows].astype(np.int64)
        return Ragged.from_lengths(np.ones(len(rows), dtype=np.int64), taken)
    taken = Ragged(tensors[f"{name}.offsets"], values).take(rows)
    return filled(Ragged(taken.offsets, taken.values.astype(np.int64)))


def bag_tensors(name: str, bags: Ragged) -> dict[str, NDArray[Any]]:
    """Ids as they are stored: int32, with offsets unless every row has exactly one."""
    ids = bags.values.astype(np.int32)
    if (bags.lengths() == 1).all():
        return {name: ids}
    return {name: ids, f"{name}.offsets": bags.offsets}
