"""The catalogue's ids in the order of their rows, with lookup from text to row.

Lookup goes by sorted 64-bit hashes and compares the text itself, so that all workers of a machine
share one copy in shared memory (a hash table would be built in each).

Shape letters:
    N items    V values looked up
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from twotower.core.errors import DataError
from twotower.core.hashing import UInt64, mix
from twotower.core.types import Int64
from twotower.data.columns import Int32, factorize
from twotower.data.hashing import hash_strings
from twotower.data.rows import run_starts

_SHOWN = 3
_UNGROUPED = np.uint64(0x5851F42D4C957F2D)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Unique ids, sorted; an item's row is its place here."""

    ids: pa.Array
    """string ``(N,)``."""

    hashes: UInt64
    """uint64 ``(N,)``: `hash_strings` of the ids."""

    sorted_hashes: UInt64
    """uint64 ``(N,)``, rising."""

    rows: Int32
    """int32 ``(N,)``: row of each sorted hash."""

    source_rows: Int64
    """int64 ``(N,)``: place of each id in the table it came from."""

    longest_run: int
    """Most ids that share one hash; 1 but for a collision."""

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.ids)

    def lookup(self, values: pa.Array, hashes: UInt64) -> Int32:
        """Row of each id, int32 ``(V,)``; -1 where the catalogue lacks it.

        Args:
            values: string ``(V,)``, no null.
            hashes: uint64 ``(V,)``, their hashes.
        """
        found = np.full(len(values), -1, dtype=np.int32)
        if not self.num_rows:
            return found
        # Sorted needles walk through the haystack in order: several times fewer cache misses.
        order = np.argsort(hashes)
        first = np.empty(len(values), dtype=np.int64)
        first[order] = np.searchsorted(self.sorted_hashes, hashes[order])
        for shift in range(self.longest_run):
            place = np.minimum(first + shift, self.num_rows - 1)
            same = np.flatnonzero((self.sorted_hashes[place] == hashes) & (found < 0))
            candidates = self.rows[place[same]]
            equal = pc.call_function(
                "equal", [self.ids.take(pa.array(candidates)), values.take(pa.array(same))]
            ).to_numpy(zero_copy_only=False)
            found[same[equal]] = candidates[equal]
        return found


def build_catalogue(column: pa.ChunkedArray, name: str) -> Catalogue:
    """Catalogue of a table's id column.

    Args:
        column: ids in the order of the table.
        name: the source and its key, for the message.

    Raises:
        DataError: an id is null or stands twice; up to three are named.
    """
    if column.null_count:
        raise DataError(f"{name}: {column.null_count} rows have a null id; remove them")
    coded = factorize(column)
    if len(coded.values) < len(coded.codes):
        twice = np.flatnonzero(np.bincount(coded.codes) > 1)
        shown = ", ".join(repr(v) for v in coded.values.take(pa.array(twice[:_SHOWN])).to_pylist())
        raise DataError(
            f"{name}: {len(twice)} ids stand more than once ({shown}); keep one row an id"
        )
    ids = coded.values.take(pa.array(coded.codes))
    order = pc.call_function("array_sort_indices", [ids]).to_numpy().astype(np.int64)
    ids = ids.take(pa.array(order))
    hashes = hash_strings(ids)
    rows = np.argsort(hashes, kind="stable").astype(np.int32)
    runs = np.diff(run_starts(hashes[rows]), append=len(rows))
    return Catalogue(ids, hashes, hashes[rows], rows, order, int(runs.max(initial=1)))


def group_hashes(catalogue: Catalogue, column: pa.ChunkedArray) -> tuple[UInt64, pa.Array]:
    """Hash uint64 ``(N,)`` and name of each item's group; an item without one is its own group.

    Args:
        catalogue: the items.
        column: the group column in the order of the source table.
    """
    coded = factorize(column)
    codes = coded.codes[catalogue.source_rows]
    hashes = np.append(hash_strings(coded.values), np.uint64(0))[codes]
    hashes = np.where(codes < 0, group_alone(catalogue.hashes), hashes)
    names = coded.values.take(pa.array(codes, mask=codes < 0))
    return hashes, names


def group_alone(hashes: UInt64) -> UInt64:
    """Group hash of ids that have no group: each is one of its own."""
    return mix(hashes ^ _UNGROUPED)
