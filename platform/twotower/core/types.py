"""Containers that cross layers, NumPy only.

Shape letters:
    R rows of a table    N values in all    b rows of a local batch
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

DEFAULT_ID = 0
"""Reserved id of a masked or missing value."""

OOV_ID = 1
"""Reserved id of a value outside the vocabulary."""

FIRST_ID = 2
"""First id of a known value."""


@dataclass(frozen=True, slots=True)
class Ragged:
    """Rows of different lengths: row r is ``values[offsets[r]:offsets[r + 1]]``."""

    offsets: Int64
    """int64 ``(R + 1,)``, rising from 0."""

    values: NDArray[Any]
    """``(N,)``, N = offsets[-1]."""

    @classmethod
    def from_lists(cls, rows: Iterable[Sequence[int]], dtype: Any = np.int64) -> "Ragged":
        """Pack Python lists; for tests and small inputs."""
        lists = [np.asarray(row, dtype=dtype) for row in rows]
        return cls.from_lengths(
            np.array([len(row) for row in lists], dtype=np.int64),
            np.concatenate(lists) if lists else np.empty(0, dtype=dtype),
        )

    @classmethod
    def from_lengths(cls, lengths: NDArray[Any], values: NDArray[Any]) -> "Ragged":
        """Rows that follow each other in ``values``, ``lengths[r]`` values each."""
        offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return cls(offsets, values)

    @classmethod
    def group(cls, keys: Int64, values: NDArray[Any], num_rows: int) -> "Ragged":
        """Rows by key: row r holds the values whose key is r, in their given order."""
        order = np.argsort(keys, kind="stable")
        return cls.from_lengths(np.bincount(keys, minlength=num_rows), values[order])

    @property
    def num_rows(self) -> int:
        """R."""
        return len(self.offsets) - 1

    def lengths(self) -> Int64:
        """int64 ``(R,)``."""
        return np.diff(self.offsets)

    def row(self, index: int) -> NDArray[Any]:
        """Values of one row (a view)."""
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def row_ids(self) -> Int64:
        """int64 ``(N,)``: the row each value belongs to."""
        return np.repeat(np.arange(self.num_rows, dtype=np.int64), self.lengths())

    def take(self, rows: Int64) -> "Ragged":
        """The given rows, in the given order; a row may be taken more than once."""
        starts, lengths = self.offsets[rows], self.lengths()[rows]
        taken = Ragged.from_lengths(lengths, self.values[:0])
        shift = np.repeat(starts - taken.offsets[:-1], lengths)
        return Ragged(taken.offsets, self.values[np.arange(taken.offsets[-1]) + shift])


@dataclass(frozen=True, slots=True)
class EncodedFeature:
    """One feature of one side, encoded for every row."""

    name: str
    kind: Literal["categorical", "multi", "dense"]
    table: str
    """Embedding table; features that share a vocabulary may name the same one. Empty for dense."""

    vocab_size: int
    """Ids are in [0, vocab_size); 0 for dense."""

    values: Ragged | Float32
    """int32 ids (categorical: one a row; multi: any number), or dense float32 ``(R,)``."""


@dataclass(frozen=True, slots=True)
class Side:
    """The features of one tower, a row an item (or query)."""

    num_rows: int
    features: tuple[EncodedFeature, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """One worker's rows of one global batch."""

    query: Int64
    """int64 ``(b,)``: rows of the query table."""

    item: Int64
    """int64 ``(b,)``: rows of the catalogue."""

    weight: Float32
    """float32 ``(b,)``: times the pair was seen; 0 marks padding."""

    position: Int64
    """int64 ``(b,)``: place in the global batch; what keys the row-level draws."""

    epoch: int
    step: int
    """Step of the whole run, from 0."""

    context: dict[str, Int64] = field(default_factory=dict)
    """Ids of the log's own features, by name."""

    history: Ragged | None = None
    """Item rows of each row's history, newest first."""
