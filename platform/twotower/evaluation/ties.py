"""The tie rule: equal scores are ordered by a keyed hash of the item id, for ever the same.

Without one, a model whose scores are all equal is ranked by whatever order the catalogue has (often
popularity) and looks good. With it, constant scores find about K / N of the truth.
"""

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from twotower.core.types import Float64, Int64

UInt64 = NDArray[np.uint64]

TIE_KEY = b"twotower.ties.v1"
"""Key of the hash. Changing it changes every tied result: it is part of the certificate."""

TIE_RULE = f"blake2b-64 of the UTF-8 item id under key {TIE_KEY.decode()!r}, ascending"


def tie_keys(item_ids: Iterable[str]) -> UInt64:
    """Hash of every item id, uint64 ``(N,)``; depends on the id alone, not on the catalogue."""
    digests = (blake2b(name.encode(), digest_size=8, key=TIE_KEY).digest() for name in item_ids)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def tie_ranks(keys: UInt64) -> Int64:
    """Place of every item in ascending order of its key, int64 ``(N,)``: the lower wins a tie.

    Two ids with one key (for a million items 3 in 100 million catalogues) keep catalogue order.
    """
    ranks = np.empty(len(keys), dtype=np.int64)
    ranks[np.argsort(keys, kind="stable")] = np.arange(len(keys), dtype=np.int64)
    return ranks


def best_first(items: Int64, scores: Float64, ranks: Int64, k: int) -> tuple[Int64, Float64]:
    """The first K of each row by score, then by the tie rule.

    Args:
        items: int64 ``(R, C)``, C >= K.
        scores: float64 ``(R, C)`` of those, no NaN.
        ranks: int64 ``(N,)``: `tie_ranks`.
        k: K >= 1.

    Returns:
        Items and scores, each ``(R, K)``.
    """
    order = np.argsort(-scores, axis=1)
    sorted_scores = np.take_along_axis(scores, order, 1)
    # Sorting by two keys costs many times more, and ties among the first K + 1 are few.
    near = sorted_scores[:, : k + 1]
    tied = ((near[:, 1:] == near[:, :-1]) & np.isfinite(near[:, 1:])).any(axis=1)
    order[tied] = np.lexsort((ranks[items[tied]], -scores[tied]), axis=-1)
    order = order[:, :k]
    return np.take_along_axis(items, order, 1), np.take_along_axis(scores, order, 1)
