"""Vocabularies: which values have an id of their own, and which id.

Ids 0 (default: masked or missing) and 1 (out of vocabulary) are reserved; kept values follow, most
frequent first, then the hash buckets of the rest.

Shape letters:
    V distinct values    K kept values
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from twotower.core.data_config import Feature
from twotower.core.hashing import value_buckets
from twotower.core.types import FIRST_ID, OOV_ID, Int64
from twotower.data.columns import Int32
from twotower.data.hashing import hash_strings


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Kept values; the k-th has id ``FIRST_ID + k``."""

    values: pa.Array
    """string ``(K,)``, distinct."""

    counts: Int64
    """int64 ``(K,)``: falling."""

    hash_buckets: int
    """Ids after the kept ones that other values are hashed into; 0 = they are all OOV."""

    @property
    def size(self) -> int:
        """Ids in all, reserved ones and buckets counted."""
        return FIRST_ID + len(self.values) + self.hash_buckets

    def encode(self, values: pa.Array) -> Int32:
        """Id of each value: int32 ``(V,)`` for a string array without nulls."""
        options = pc.SetLookupOptions(value_set=self.values)
        found = pc.call_function("index_in", [values], options).fill_null(-1).to_numpy()
        ids = found.astype(np.int32) + np.int32(FIRST_ID)
        unknown = np.flatnonzero(found < 0)
        ids[unknown] = OOV_ID
        if self.hash_buckets and len(unknown):
            hashes = hash_strings(values.take(pa.array(unknown)))
            ids[unknown] = FIRST_ID + len(self.values) + value_buckets(hashes, self.hash_buckets)
        return ids

    def to_table(self) -> pa.Table:
        """Columns value, count and id, as stored."""
        ids = np.arange(FIRST_ID, FIRST_ID + len(self.values), dtype=np.int32)
        return pa.table({"value": self.values, "count": self.counts, "id": ids})

    @classmethod
    def from_table(cls, table: pa.Table, hash_buckets: int) -> "Vocabulary":
        """A stored vocabulary."""
        values = table.column("value").combine_chunks()
        return cls(values, table.column("count").to_numpy(), hash_buckets)


def fit(values: pa.Array, counts: Int64, feature: Feature) -> Vocabulary:
    """Keep the values seen at least `min_count` times, at most `max_size`, most frequent first.

    Args:
        values: string ``(V,)``, distinct and rising; ties of the count keep this order.
        counts: int64 ``(V,)``; a value never seen isn't kept.
        feature: the limits and the number of hash buckets.
    """
    seen = np.flatnonzero(counts >= feature.min_count)
    kept = seen[np.argsort(-counts[seen], kind="stable")][: feature.max_size]
    return Vocabulary(values.take(pa.array(kept)), counts[kept], feature.hash_buckets)
