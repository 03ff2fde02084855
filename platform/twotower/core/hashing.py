"""64-bit hashes in NumPy alone: what preparing, training and serving must compute alike.

Equal on every machine and version; their values are part of what is stored.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from twotower.core.types import Int64

UInt64: TypeAlias = NDArray[np.uint64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2**64 over the golden ratio, the step of SplitMix64."""

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


def bucket_of(hashes: UInt64, num_buckets: int) -> Int64:
    """Which of ``num_buckets`` (< 2**31) equal ranges each hash is in; rises with the hash."""
    return (((hashes >> np.uint64(32)) * np.uint64(num_buckets)) >> np.uint64(32)).astype(np.int64)


def value_buckets(hashes: UInt64, num_buckets: int) -> Int64:
    """Bucket of values outside a vocabulary, by `hash_bytes` of their text.

    Mixed again: the hash itself decides where queries are worked on.
    """
    return bucket_of(mix(hashes), num_buckets)


def hash_bytes(starts: Int64, lengths: Int64, data: NDArray[np.uint8]) -> UInt64:
    """64-bit hash of strings that lie in one blob: their bytes in words of 8, and their length.

    Args:
        starts: int64 ``(n,)``: first byte of each string in ``data``.
        lengths: int64 ``(n,)``: its bytes.
        data: uint8, the blob.
    """
    padded = np.zeros(len(data) + 8, dtype=np.uint8)
    padded[: len(data)] = data
    words = np.ndarray((len(data) + 1,), dtype="<u8", buffer=padded.data, strides=(1,))
    hashes = mix(lengths.astype(np.uint64) + GOLDEN)
    active = np.arange(len(lengths))
    for done in range(0, int(lengths.max(initial=0)), 8):
        active = active[lengths[active] > done]
        word = words[starts[active] + done] & _KEEP[np.minimum(lengths[active] - done, 8)]
        hashes[active] = mix((word ^ hashes[active]) + GOLDEN)
    return hashes
