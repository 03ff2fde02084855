"""Counter-based random draws: each a pure function of what it is for, so nothing has to be saved.

Philox 4x32-10 (Salmon et al., SC'11) written with operators of int64 arrays only, so that the same
code draws on NumPy arrays and on torch tensors of any device, and gives the same bits on both.
"""

import hashlib
from typing import Any

import numpy as np

from twotower.core.types import Int64

_WORD = 0xFFFFFFFF
_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def derive(seed: int, *names: object) -> int:
    """A 64-bit seed of its own for one purpose: SHA-256 of the seed and the names."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def philox4x32(counter: tuple[Any, Any, Any, Any], key: int) -> tuple[Any, Any, Any, Any]:
    """Ten rounds of Philox 4x32.

    Args:
        counter: four words in [0, 2**32); int64 arrays of one shape, or ints (at least one array).
        key: 64 bits, used as two words.

    Returns:
        Four int64 arrays of words in [0, 2**32).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key & _WORD, (key >> 32) & _WORD
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


def _multiply(word: Any, multiplier: int) -> tuple[Any, Any]:
    """High and low word of a 32 x 32-bit product: int64 wraps around, which keeps all 64 bits."""
    product = word * multiplier
    return (product >> 32) & _WORD, product & _WORD


def words(seed: int, purpose: str, step: int, index: Any, lane: int = 0) -> tuple[Any, Any]:
    """Two random 32-bit words for every index.

    Args:
        seed: the experiment's seed.
        purpose: what the draw is for; other purposes draw independently.
        step: step of the run, in [0, 2**32).
        index: int64 array or tensor, in [0, 2**63): the place in the global batch (times slots).
        lane: a small int that tells draws of one purpose apart, in [0, 2**32).

    Returns:
        Two int64 arrays shaped like ``index``, values in [0, 2**32).
    """
    first, second, _, _ = four_words(seed, purpose, step, index, lane)
    return first, second


def four_words(
    seed: int, purpose: str, step: int, index: Any, lane: int = 0
) -> tuple[Any, Any, Any, Any]:
    """Four random 32-bit words for every index, the first two those of `words`."""
    return philox4x32((index & _WORD, index >> 32, step, lane), derive(seed, purpose))


def uniform(seed: int, purpose: str, step: int, index: Any, lane: int = 0) -> Any:
    """Uniform draws in [0, 1), multiples of 2**-24: exact in float32 and in float64."""
    first: Any = words(seed, purpose, step, index, lane)[0]
    return (first >> 8) * (1.0 / (1 << 24))


def integers(seed: int, purpose: str, step: int, index: Any, high: int) -> Any:
    """Integers in [0, high), high <= 2**32; the bias of the multiply-shift is below high / 2**62.

    62 random bits are scaled in two halves so that no product leaves int64.
    """
    if not 0 < high <= 1 << 32:
        raise ValueError(f"high must be in 1..2**32, got {high}")
    first, second = words(seed, purpose, step, index)
    upper: Any = (first >> 1) * high  # 31 bits x 32 bits
    lower: Any = (second >> 1) * high
    return (upper + (lower >> 31)) >> 31


def permutation(seed: int, purpose: str, n: int) -> Int64:
    """A permutation of 0..n-1 as int64 ``(n,)``: stable order of 64 random bits each."""
    first, second = words(seed, purpose, 0, np.arange(n, dtype=np.int64))
    return np.lexsort((second, first)).astype(np.int64)
