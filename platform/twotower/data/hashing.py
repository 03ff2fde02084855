"""64-bit hashes of ids, pairs and rows: whole arrays at once, equal on every machine and version.

They decide the split, the shuffle and where a row goes, so their values are part of the layout: a
change of them is a new `SCHEMA_VERSION`.
"""

from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from twotower.core.hashing import GOLDEN, UInt64, hash_bytes, mix

Bools: TypeAlias = NDArray[np.bool_]


def keyed(seed: int, *parts: UInt64) -> UInt64:
    """Hash of one or more words a row under a 64-bit seed; the order of the parts matters."""
    mixed: Any = np.uint64(seed)
    for part in parts:
        mixed = mix((part ^ mixed) + GOLDEN)
    return mixed


def symmetric(seed: int, left: UInt64, right: UInt64) -> UInt64:
    """Hash of an unordered pair of words a row."""
    return keyed(seed, np.minimum(left, right), np.maximum(left, right))


def below(hashes: UInt64, share: float) -> Bools:
    """Whether each hash falls in the first ``share`` of all hashes, share in [0, 1]."""
    if share >= 1:
        return np.ones(len(hashes), dtype=np.bool_)
    return hashes < np.uint64(int(share * 2**64))


def hash_strings(values: pa.Array) -> UInt64:
    """64-bit hash of each string: its bytes in words of 8, and its length.

    Args:
        values: string or large_string ``(n,)``; the hash of a null has no meaning.
    """
    return hash_bytes(*_bytes_of(values))


def _bytes_of(values: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """Start and length of each string in the bytes that follow."""
    _, offsets, data = values.buffers()
    if len(values) == 0 or offsets is None:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint8)
    width: Any = np.int64 if pa.types.is_large_string(values.type) else np.int32
    bounds = np.frombuffer(offsets, dtype=width)[values.offset : values.offset + len(values) + 1]
    bounds = bounds.astype(np.int64)
    raw = np.frombuffer(data, dtype=np.uint8) if data is not None else np.empty(0, np.uint8)
    return bounds[:-1] - bounds[0], np.diff(bounds), raw[bounds[0] : bounds[-1]]
