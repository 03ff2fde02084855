"""Columns of raw values as integer codes: work on text is done once a distinct value.

Shape letters:
    R rows    N values in all (of bags)    V distinct values
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from twotower.core.types import Float64, Int64

Int32 = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Coded:
    """A column of values: row r holds ``values[codes[r]]``."""

    codes: Int32
    """int32 ``(R,)``; -1 = null."""

    values: pa.Array
    """string ``(V,)``, no null; nearly always distinct, every one used."""


def factorize(column: pa.Array | pa.ChunkedArray) -> Coded:
    """Codes and values of a column of text, integers, booleans or dates, as text."""
    array = _one_array(column)
    if not pa.types.is_dictionary(array.type):
        array = pc.call_function("dictionary_encode", [array])
    codes = array.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32, copy=False)
    values = text(array.dictionary)
    used = np.bincount(codes + 1, minlength=len(values) + 1)[1:] > 0
    if values.null_count:
        used &= values.is_valid().to_numpy(zero_copy_only=False)
    if used.all():
        return Coded(codes, values)
    place = np.full(len(values) + 1, -1, dtype=np.int32)  # the last one serves code -1
    kept = np.flatnonzero(used)
    place[kept] = np.arange(len(kept), dtype=np.int32)
    return Coded(place[codes], values.take(pa.array(kept)))


def sort_values(coded: Coded) -> Coded:
    """The same column with distinct values in rising order (of UTF-8 bytes)."""
    distinct = pc.call_function("dictionary_encode", [coded.values])
    values = distinct.dictionary
    order = pc.call_function("array_sort_indices", [values]).to_numpy()
    rank = np.empty(len(order), dtype=np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    place = np.append(rank[distinct.indices.to_numpy()], np.int32(-1))
    return Coded(place[coded.codes], values.take(pa.array(order)))


def text(values: pa.Array) -> pa.Array:
    """Values as a string array."""
    return values if values.type == pa.string() else values.cast(pa.string())


def numbers(column: pa.Array | pa.ChunkedArray) -> Float64:
    """float64 ``(R,)``, integers beyond 2**53 rounded; null and what isn't finite become NaN."""
    array = _one_array(column).cast(pa.float64(), safe=False)
    values = array.to_numpy(zero_copy_only=False).copy()
    values[~np.isfinite(values)] = np.nan
    return values


def integers(column: pa.Array) -> Int64:
    """int64 ``(R,)`` of a column without nulls: integers, or instants in their own unit."""
    if pa.types.is_date32(column.type):
        column = column.cast(pa.int32())
    return column.cast(pa.int64()).to_numpy(zero_copy_only=False)


def bags(column: pa.Array | pa.ChunkedArray, max_values: int) -> tuple[Int64, Coded]:
    """Lengths int64 ``(R,)`` and values ``(N,)`` of a list column: the first non-null ones a row.

    Args:
        column: list of text, integers or booleans; a null list is an empty bag.
        max_values: longest bag.
    """
    array = _one_array(column)
    lengths = (
        pc.call_function("list_value_length", [array]).fill_null(0).to_numpy().astype(np.int64)
    )
    coded = factorize(pc.call_function("list_flatten", [array]))
    row = np.repeat(np.arange(len(lengths)), lengths)
    keep = coded.codes >= 0
    lengths = np.bincount(row[keep], minlength=len(lengths))
    row = row[keep]
    starts = np.cumsum(lengths) - lengths
    short = np.arange(len(row)) - starts[row] < max_values
    codes = coded.codes[keep][short]
    used = factorize(pa.DictionaryArray.from_arrays(pa.array(codes), coded.values))
    return np.minimum(lengths, max_values), used


class Values:
    """Distinct values met so far, by code; codes never change as more are met."""

    def __init__(self) -> None:
        """No value yet."""
        self.known: pa.Array = pa.array([], pa.string())

    def encode(self, coded: Coded) -> Int32:
        """int32 ``(R,)`` codes of a column among the known values, which grow by its new ones."""
        found = self._find(coded.values)
        if found.null_count:
            new = coded.values.filter(found.is_null())
            distinct = pc.call_function("unique", [new])
            self.known = pa.concat_arrays([self.known, distinct])
            found = self._find(coded.values)
        place = np.append(found.to_numpy(), np.int32(-1)).astype(np.int32)
        return place[coded.codes]

    def _find(self, values: pa.Array) -> pa.Array:
        options = pc.SetLookupOptions(value_set=self.known)
        return pc.call_function("index_in", [values], options)


def _one_array(column: Any) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        return (
            column.unify_dictionaries().combine_chunks()
            if column.num_chunks
            else pa.array([], column.type)
        )
    return column
