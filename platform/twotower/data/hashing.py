"""64-bit hashes of ids, pairs and rows: whole arrays at once, equal on every machine and version.

They decide the split, the shuffle and where a row goes, so their values are part of the layout: a
change of them is a new `SCHEMA_VERSION`.
"""

from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

UInt64: TypeAlias = NDArray[np.uint64]
Bools: TypeAlias = NDArray[np.bool_]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_KEEP = np.array([(1 << 8 * n) - 1 for n in range(9)], dtype=np.uint64)
"""Mask of the first n bytes of a little-endian word."""


def mix(words: UInt64) -> UInt64:
    """The finaliser of SplitMix64 (Steele et al., OOPSLA'14): a bijection of 64-bit words."""
    mixed = words ^ (words >> np.uint64(30))
    mixed *= _FIRST
    mixed ^= mixed >> np.uint64(27)
    mixed *= _SECOND
    mixed ^= mixed >> np.uint64(31)
    return mixed


def keyed(seed: int, *parts: UInt64) -> UInt64:
    """Hash of one or more words a row under a 64-bit seed; the order of the parts matters."""
    mixed: Any = np.uint64(seed)
    for part in parts:
        mixed = mix((part ^ mixed) + _GOLDEN)
    return mixed


def symmetric(seed: int, left: UInt64, right: UInt64) -> UInt64:
    """Hash of an unordered pair of words a row."""
    return keyed(seed, np.minimum(left, right), np.maximum(left, right))


def below(hashes: UInt64, share: float) -> Bools:
    """Whether each hash falls in the first ``share`` of all hashes, share in [0, 1]."""
    if share >= 1:
        return np.ones(len(hashes), dtype=np.bool_)
    return hashes < np.uint64(int(share * 2**64))


def bucket_of(hashes: UInt64, num_buckets: int) -> NDArray[np.int64]:
    """Which of ``num_buckets`` (< 2**31) equal ranges each hash is in; rises with the hash."""
    return (((hashes >> np.uint64(32)) * np.uint64(num_buckets)) >> np.uint64(32)).astype(np.int64)


def hash_strings(values: pa.Array) -> UInt64:
    """64-bit hash of each string: its bytes in words of 8, and its length.

    Args:
        values: string or large_string ``(n,)``; the hash of a null has no meaning.
    """
    starts, lengths, data = _bytes_of(values)
    padded = np.zeros(len(data) + 8, dtype=np.uint8)
    padded[: len(data)] = data
    words = np.ndarray((len(data) + 1,), dtype="<u8", buffer=padded.data, strides=(1,))
    hashes = mix(lengths.astype(np.uint64) + _GOLDEN)
    active = np.arange(len(lengths))
    for done in range(0, int(lengths.max(initial=0)), 8):
        active = active[lengths[active] > done]
        word = words[starts[active] + done] & _KEEP[np.minimum(lengths[active] - done, 8)]
        hashes[active] = mix((word ^ hashes[active]) + _GOLDEN)
    return hashes


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
