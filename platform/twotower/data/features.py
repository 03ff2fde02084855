"""Feature columns of a table: read raw, fitted, and encoded to ids or standardised numbers.

Shape letters:
    R rows    N values in all    V distinct values
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from twotower.core.data_config import Feature
from twotower.core.errors import DataError
from twotower.core.storage import Store
from twotower.core.types import DEFAULT_ID, Float32, Float64, Int64, Ragged
from twotower.data import columns, vocabulary
from twotower.data.columns import Coded, Int32
from twotower.data.hashing import Bools
from twotower.data.sources import Inspected, read_column
from twotower.data.spill import read_one, write_one
from twotower.data.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Raw:
    """A column as read, a row of it for each row of the side."""

    values: pa.Array
    """string ``(V,)``, distinct and rising; empty for dense."""

    codes: Ragged
    """Places of each row's values: at most one a row unless the feature is `multi`."""

    numbers: Float64
    """float64 ``(R,)`` of a dense feature, NaN = missing; empty otherwise."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A feature of every row of a side, as it is stored."""

    ids: Ragged
    """int32 ids; no id where a value is missing. Empty for dense."""

    numbers: Float32
    """float32 ``(R,)`` standardised, NaN = missing; empty otherwise."""

    summary: dict[str, Any]
    """What the manifest and the profile say of the feature."""

    def missing(self, kind: str) -> Bools:
        """Where a row has no value: bool ``(R,)``."""
        return np.isnan(self.numbers) if kind == "dense" else self.ids.lengths() == 0

    def column(self, kind: str) -> pa.Array:
        """The stored column: int32, list of int32, or float32."""
        if kind == "dense":
            return pa.array(np.nan_to_num(self.numbers, nan=0.0))
        if kind == "multi":
            offsets = pa.array(self.ids.offsets.astype(np.int32))
            return pa.ListArray.from_arrays(offsets, pa.array(self.ids.values))
        ids = np.full(self.ids.num_rows, DEFAULT_ID, dtype=np.int32)
        ids[self.ids.lengths() > 0] = self.ids.values
        return pa.array(ids)


def read_raw(shards: Sequence[Inspected], column: str, feature: Feature, rows: Int64) -> Raw:
    """Read a feature's column.

    Args:
        shards: the table.
        column: its column.
        feature: how it is read.
        rows: int64 ``(R,)``: the table's row for each row of the side; -1 = none, all missing.
    """
    return raw_of(read_column(shards, column), feature, rows)


def raw_of(column: pa.ChunkedArray, feature: Feature, rows: Int64) -> Raw:
    """`read_raw` of a column in memory."""
    no_values, no_numbers = Ragged.from_lengths(rows[:0], np.empty(0, np.int32)), np.empty(0)
    if feature.kind == "dense":
        numbers = np.append(columns.numbers(column), np.nan)[rows]
        return Raw(pa.array([], pa.string()), no_values, numbers)
    if feature.kind == "multi" and not pa.types.is_null(column.type):
        lengths, coded = columns.bags(column, feature.max_values)
    else:
        coded = columns.factorize(column)
        lengths = (coded.codes >= 0).astype(np.int64)
        coded = Coded(coded.codes[coded.codes >= 0], coded.values)
    ragged = Ragged.from_lengths(np.append(lengths, 0), coded.codes).take(
        np.where(rows < 0, len(lengths), rows)
    )
    # Values of rows that the side lacks are no values of it.
    coded = columns.factorize(pa.DictionaryArray.from_arrays(pa.array(ragged.values), coded.values))
    coded = columns.sort_values(coded)
    return Raw(coded.values, Ragged(ragged.offsets, coded.codes), no_numbers)


def raw_ids(ids: pa.Array, feature: Feature) -> Raw:
    """`read_raw` of the ids of the side's rows: string ``(R,)``, distinct.

    Raises:
        DataError: the feature is dense, and an id is no number.
    """
    if feature.kind == "dense":
        try:
            return raw_of(pa.chunked_array([ids]), feature, np.arange(len(ids)))
        except pa.ArrowInvalid as error:
            raise DataError(
                f"data.features: a `dense` feature reads ids that are no numbers ({error}); "
                "take `categorical`"
            ) from error
    coded = columns.sort_values(Coded(np.arange(len(ids), dtype=np.int32), ids))
    ones = np.ones(len(ids), dtype=np.int64)
    return Raw(coded.values, Ragged.from_lengths(ones, coded.codes), np.empty(0))


def fit(raw: Raw, feature: Feature, weights: Int64) -> Vocabulary:
    """Vocabulary of a column; row r counts ``weights[r]`` times."""
    counts = np.bincount(
        raw.codes.values, weights[raw.codes.row_ids()], minlength=len(raw.values)
    ).astype(np.int64)
    return vocabulary.fit(raw.values, counts, feature)


def encode(raw: Raw, known: Vocabulary) -> Encoded:
    """Ids of a categorical or multi column."""
    ids = known.encode(raw.values)[raw.codes.values]
    lengths = raw.codes.lengths()
    summary = {
        "vocab_size": known.size,
        "distinct": len(raw.values),
        "kept": len(known.values),
        "missing_share": _share(lengths == 0),
        "mean_values": float(lengths.mean()) if len(lengths) else 0.0,
        "outside_share": _share(ids >= known.size - known.hash_buckets) + _share(ids == 1),
    }
    return Encoded(Ragged(raw.codes.offsets, ids), np.empty(0, np.float32), summary)


def standardise(raw: Raw, weights: Int64) -> Encoded:
    """Numbers less their weighted mean, over their weighted deviation (1 where that is 0)."""
    present = ~np.isnan(raw.numbers) & (weights > 0)
    numbers, weight = raw.numbers[present], weights[present].astype(np.float64)
    total = max(float(weight.sum()), 1.0)
    mean = float((weight * numbers).sum() / total)
    deviation = float(np.sqrt((weight * (numbers - mean) ** 2).sum() / total)) or 1.0
    summary = {
        "mean": mean,
        "deviation": deviation,
        "distinct": len(np.unique(raw.numbers[present])),
        "missing_share": _share(np.isnan(raw.numbers)),
    }
    scaled = ((raw.numbers - mean) / deviation).astype(np.float32)
    return Encoded(Ragged.from_lengths(weights[:0], np.empty(0, np.int32)), scaled, summary)


def save(encoded: Encoded, scratch: Store, name: str) -> None:
    """Keep an encoded feature for a later stage."""
    parts = {"offsets": encoded.ids.offsets, "ids": encoded.ids.values, "numbers": encoded.numbers}
    write_one(scratch, name, parts)


def load(scratch: Store, name: str) -> Encoded:
    """What `save` kept, without its summary."""
    parts = {key: array.to_numpy() for key, array in read_one(scratch, name).items()}
    return Encoded(Ragged(parts["offsets"], parts["ids"]), parts["numbers"], {})


def context_ids(known: Vocabulary, values: pa.Array) -> Int32:
    """Id by code of a log column; the last entry is the id of null."""
    return np.append(known.encode(values), np.int32(DEFAULT_ID))


def _share(mask: Bools) -> float:
    return float(mask.mean()) if len(mask) else 0.0
