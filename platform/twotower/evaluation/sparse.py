"""Sparse matrices by rows, as much as the baselines need."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twotower.core.types import Float64, Int64, Ragged


@dataclass(frozen=True, slots=True)
class Sparse:
    """R rows over ``num_columns`` columns; a column stands at most once in a row."""

    entries: Ragged
    """Columns of every row, int64."""

    weights: Float64
    """float64, one an entry."""

    num_columns: int

    @classmethod
    def build(
        cls,
        rows: NDArray[Any],
        columns: NDArray[Any],
        shape: tuple[int, int],
        weights: Float64 | None = None,
    ) -> "Sparse":
        """From entries in any order; those of one place are added, each 1 without ``weights``."""
        codes = rows.astype(np.int64) * shape[1] + columns
        if weights is None:
            places, counts = np.unique(codes, return_counts=True)
            summed = counts.astype(np.float64)
        else:
            order = np.argsort(codes, kind="stable")
            codes = codes[order]
            starts = np.flatnonzero(np.diff(codes, prepend=-1))
            places = codes[starts]
            summed = np.add.reduceat(weights[order], starts) if len(starts) else weights[:0]
        rows, columns = np.divmod(places, max(shape[1], 1))
        lengths = np.bincount(rows, minlength=shape[0])
        return cls(Ragged.from_lengths(lengths, columns), summed, shape[1])

    @property
    def num_rows(self) -> int:
        """R."""
        return self.entries.num_rows

    @property
    def columns(self) -> Int64:
        """int64: the column of every entry."""
        return self.entries.values

    def row_ids(self) -> Int64:
        """int64: the row of every entry."""
        return self.entries.row_ids()

    def lengths(self) -> Int64:
        """int64 ``(R,)``: entries of every row."""
        return self.entries.lengths()

    def take(self, rows: Int64) -> "Sparse":
        """The given rows, in the given order, repeats allowed."""
        places = Ragged(self.entries.offsets, np.arange(len(self.weights), dtype=np.int64))
        taken = places.take(rows)
        entries = Ragged(taken.offsets, self.columns[taken.values])
        return Sparse(entries, self.weights[taken.values], self.num_columns)

    def weighted(self, weights: Float64) -> "Sparse":
        """The same places with other weights."""
        return Sparse(self.entries, weights, self.num_columns)

    def transposed(self) -> "Sparse":
        """Columns as rows."""
        shape = (self.num_columns, self.num_rows)
        return Sparse.build(self.columns, self.row_ids(), shape, self.weights)

    def normalised(self, grid: float) -> "Sparse":
        """Rows of norm 1, entries rounded to multiples of ``1 / grid``; zero rows stay zero."""
        rows = self.row_ids()
        norm = np.sqrt(np.bincount(rows, self.weights**2, minlength=self.num_rows))
        return self.weighted(np.round(self.weights / norm[rows] * grid) / grid)

    def times(self, other: "Sparse") -> "Sparse":
        """Matrix product; every single product takes memory: multiply by `blocks` of rows."""
        found = other.take(self.columns)
        lengths = found.lengths()
        return Sparse.build(
            np.repeat(self.row_ids(), lengths),
            found.columns,
            (self.num_rows, other.num_columns),
            np.repeat(self.weights, lengths) * found.weights,
        )

    def work(self, other: "Sparse") -> Float64:
        """Single products that each row of `times` needs, float64 ``(R,)``."""
        return np.bincount(
            self.row_ids(), other.lengths()[self.columns], minlength=self.num_rows
        ).astype(np.float64)


def blocks(work: Float64, max_work: int, max_rows: int) -> Iterator[Int64]:
    """Runs of rows, each of at most ``max_rows`` rows and ``max_work`` work (or a single row)."""
    ends = np.cumsum(work)
    start = 0
    while start < len(work):
        done = ends[start - 1] if start else 0.0
        stop = int(np.searchsorted(ends, done + max_work, side="right"))
        stop = min(max(stop, start + 1), start + max_rows, len(work))
        yield np.arange(start, stop, dtype=np.int64)
        start = stop
