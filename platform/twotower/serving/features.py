"""Raw values to ids and numbers, exactly as prepared data has them.

Shape letters:
    n records
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from twotower.core.errors import InputError
from twotower.core.hashing import value_buckets
from twotower.core.types import DEFAULT_ID, FIRST_ID, OOV_ID, Float32, Int64, Ragged
from twotower.serving.strings import Strings

Record = Mapping[str, Any]
"""One item or query: raw values by column."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Kept values, and the buckets that all others are hashed into."""

    values: Strings
    """K of them, in the order of their ids."""

    hash_buckets: int
    """0 = values outside share the id `OOV_ID`."""

    ids: NDArray[np.int32] | None = None
    """int32 ``(K + hash_buckets,)``: id of each value and bucket; None = from `FIRST_ID` on."""

    def encode(self, texts: Sequence[str]) -> Int64:
        """Id of each text: int64 ``(n,)``."""
        places = self.values.find(texts)
        unknown = np.flatnonzero(places < 0)
        if self.hash_buckets and len(unknown):
            hashes = Strings.of([texts[place] for place in unknown.tolist()]).hashes()
            places[unknown] = len(self.values) + value_buckets(hashes, self.hash_buckets)
        ids = places + FIRST_ID if self.ids is None else self.ids[places].astype(np.int64)
        return np.where(places < 0, OOV_ID, ids)

    @classmethod
    def read(
        cls, tensors: Mapping[str, NDArray[Any]], name: str, hash_buckets: int
    ) -> "Vocabulary":
        """What `tensors` gave under a name; KeyError if it isn't there."""
        return cls(Strings.from_tensors(tensors, name), hash_buckets, tensors.get(f"{name}.ids"))

    def tensors(self, name: str) -> dict[str, NDArray[Any]]:
        """Its arrays by the names they are stored under."""
        found = self.values.tensors(name)
        return found if self.ids is None else found | {f"{name}.ids": self.ids}


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """One feature of a tower, as `model.json` describes it."""

    name: str
    kind: Literal["categorical", "multi", "dense"]
    column: str
    """Column of a record."""

    table: str = ""
    """Embedding table; empty for dense."""

    vocabulary: str = ""
    """Empty for dense."""

    max_values: int = 1
    """Longest bag of a multi feature; the first values count."""

    mean: float = 0.0
    deviation: float = 1.0
    """A dense number is stored less its mean, over its deviation."""

    def numbers(self, records: Sequence[Record]) -> Float32:
        """Dense: float32 ``(n,)``; a missing number reads as the mean."""
        found = np.array([self._number(r.get(self.column)) for r in records], dtype=np.float64)
        found[~np.isfinite(found)] = np.nan
        scaled = ((found - self.mean) / self.deviation).astype(np.float32)
        return np.nan_to_num(scaled, nan=0.0)

    def ids(self, records: Sequence[Record], known: Vocabulary) -> Ragged:
        """Sparse: int64 ids of each record, at least one; a missing value is the default id."""
        bags = [self._texts(record.get(self.column)) for record in records]
        ids = known.encode([text for bag in bags for text in bag])
        return filled(Ragged.from_lengths(np.array([len(bag) for bag in bags], np.int64), ids))

    def _texts(self, value: Any) -> list[str]:
        if self.kind != "multi":
            return [] if value is None else [text_of(value, self.column)]
        if value is None:
            return []
        if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, np.ndarray)):
            raise InputError(
                f"column {self.column!r}: {value!r} must be a list, feature {self.name!r} is multi"
            )
        texts = [text_of(one, self.column) for one in value if one is not None]
        return texts[: self.max_values]

    def _number(self, value: Any) -> float:
        try:
            return np.nan if value is None else float(value)
        except (TypeError, ValueError) as error:
            raise InputError(f"column {self.column!r}: {value!r} must be a number") from error


def filled(bags: Ragged) -> Ragged:
    """Bags of ids, those without any given the default id."""
    lengths = bags.lengths()
    if lengths.all():
        return bags
    whole = np.maximum(lengths, 1)
    ids = np.full(int(whole.sum()), DEFAULT_ID, dtype=np.int64)
    ids[np.repeat(lengths > 0, whole)] = bags.values
    return Ragged.from_lengths(whole, ids)


def text_of(value: Any, column: str) -> str:
    """A raw value as the text that vocabularies hold.

    Raises:
        InputError: it is no text, integer, boolean or date.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    raise InputError(
        f"column {column!r}: {value!r} must be text, an integer, a boolean or a date; "
        "write a timestamp as the text that the training data's column casts to"
    )


def require_columns(records: Sequence[Record], columns: Sequence[str]) -> None:
    """Refuse a record that names none of the columns a tower reads: it has other names."""
    for place, record in enumerate(records):
        if not any(column in record for column in columns):
            raise InputError(
                f"record {place}: has none of the columns {', '.join(columns)}; it has "
                f"{', '.join(map(str, record)) or 'nothing'}"
            )


def stacked(numbers: Sequence[Float32], num_rows: int) -> Float32:
    """Dense features side by side: float32 ``(n, V)``."""
    empty: NDArray[np.float32] = np.empty((num_rows, 0), dtype=np.float32)
    return np.stack(numbers, axis=1) if numbers else empty
