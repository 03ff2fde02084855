"""The tie rule: equal scores are ordered by a keyed hash of the item id, for ever the same.

Without one, a model whose scores are all equal is ranked by whatever order the catalogue has (often
popularity) and looks good. With it, constant scores find about K / N of the truth.
"""

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from twotower.core.types import Int64

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
