"""Raw values to ids and numbers, exactly as prepared data has them.

Shape letters:
    n records
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from twotower.core.errors import InputError
from twotower.core.hashing import value_buckets
from twotower.core.types import DEFAULT_ID, FIRST_ID, OOV_ID, Float32, Float64, Int64, Ragged
from twotower.serving.strings import Strings

Record = Mapping[str, Any]
"""One item or query: raw values by column."""


_SURROGATE = re.compile("[\ud800-\udfff]")

_SHOWN = 100
"""Characters of a value in a message."""


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
        return self.scaled(found)

    def scaled(self, numbers: Float64) -> Float32:
        """Dense: float64 ``(n,)`` as the tower reads them; what isn't finite is missing.

        Raises:
            InputError: a number is finite, but no float32 once it is standardised.
        """
        numbers = np.where(np.isfinite(numbers), numbers, np.nan)
        with np.errstate(over="ignore"):
            found = ((numbers - self.mean) / self.deviation).astype(np.float32)
        if (far := np.isinf(found)).any():
            raise InputError(
                f"column {self.column!r}: {numbers[far][0]:g} is too far from the training data's "
                f"numbers (mean {self.mean:g}, deviation {self.deviation:g}); give null if unknown"
            )
        return np.nan_to_num(found, nan=0.0)

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
        if not is_list(value):
            raise InputError(
                f"column {self.column!r}: {shown(value)} must be a list, feature {self.name!r} is "
                "multi"
            )
        texts = [text_of(one, self.column) for one in value if one is not None]
        return texts[: self.max_values]

    def _number(self, value: Any) -> float:
        try:
            return np.nan if value is None else float(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(
                f"column {self.column!r}: {shown(value)} must be a number that a float64 holds"
            ) from error


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
        InputError: it is no text, integer, boolean or date, or text that is no Unicode (a lone
            surrogate).
    """
    if isinstance(value, str) and not _SURROGATE.search(value):
        return str(value)
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (int, np.integer)):
        with suppress(ValueError):  # Python writes no integer of over 4300 digits
            return str(int(value))
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    raise InputError(
        f"column {column!r}: {shown(value)} must be text, an integer, a boolean or a date; "
        "write a timestamp as the text that the training data's column casts to"
    )


def require_columns(records: Sequence[Record], columns: Sequence[str]) -> None:
    """Refuse a record that names none of the columns a tower reads: it has other names."""
    for place, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise InputError(f"record {place}: {shown(record)} must be a mapping of columns")
        if not any(column in record for column in columns):
            raise InputError(
                f"record {place}: has none of the columns {', '.join(columns)}; it has "
                f"{', '.join(map(str, record)) or 'nothing'}"
            )


def is_list(value: Any) -> bool:
    """Whether it is a list of values: any sequence but text, or an array of one dimension."""
    if isinstance(value, np.ndarray):
        return value.ndim == 1
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))


def shown(value: Any) -> str:
    """A value for a message, cut; its type where it can't be written."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def stacked(numbers: Sequence[Float32], num_rows: int) -> Float32:
    """Dense features side by side: float32 ``(n, V)``."""
    empty: NDArray[np.float32] = np.empty((num_rows, 0), dtype=np.float32)
    return np.stack(numbers, axis=1) if numbers else empty
