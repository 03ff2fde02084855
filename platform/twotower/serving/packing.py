"""Codes in the fewest bits: rows of unsigned numbers, each column at a width of its own.

A row's codes follow each other, lowest bit first, and rows follow rows without a gap; only the end
is padded, to a whole byte. So any row is found by arithmetic and decoded alone.

Shape letters:
    N rows packed    n rows asked for    D columns    P bytes, ceil(N * sum of bits / 8)
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from twotower.core.types import Int64

MAX_BITS = 16
"""Widest column."""

UInt8 = NDArray[np.uint8]

_CHUNK_ROWS = 1 << 12
"""Rows packed at a time; a multiple of 8, so that every chunk ends on a whole byte."""

_WORD = 8
"""Bytes of the words that codes are cut from."""

_WORD_BITS = _WORD * 8 - 7
"""Bits of a word that can be used whatever bit of a byte they begin at."""


def packed_bytes(num_rows: int, bits: Sequence[int]) -> int:
    """P: bytes of that many rows."""
    return (num_rows * sum(bits) + 7) // 8


def pack(codes: NDArray[Any], bits: Sequence[int]) -> UInt8:
    """Pack codes.

    Args:
        codes: unsigned integers ``(N, D)``, each below 2 to the bits of its column.
        bits: D widths, 0 to 16; a column of 0 bits holds 0 only and takes no room.

    Returns:
        uint8 ``(P,)``.

    Raises:
        ValueError: a width is out of range, or a code doesn't fit its column.
    """
    _check_bits(bits)
    if codes.ndim != 2 or codes.shape[1] != len(bits):
        raise ValueError(f"codes of shape {codes.shape} for {len(bits)} columns of bits")
    limits = np.left_shift(1, np.array(bits, dtype=np.int64))
    packed = np.empty(packed_bytes(len(codes), bits), dtype=np.uint8)
    kept = np.arange(MAX_BITS) < np.array(bits, dtype=np.int64)[:, None]
    done = 0
    for start in range(0, len(codes), _CHUNK_ROWS):
        chunk = codes[start : start + _CHUNK_ROWS].astype(np.int64)
        if ((chunk < 0) | (chunk >= limits)).any():
            raise ValueError("a code does not fit the bits of its column")
        spread = np.unpackbits(
            chunk.astype("<u2")[:, :, None].view(np.uint8), axis=2, bitorder="little"
        )
        part = np.packbits(spread[:, kept], bitorder="little")
        packed[done : done + len(part)] = part
        done += len(part)
    return packed


def unpack(packed: UInt8, ids: Int64, bits: Sequence[int]) -> NDArray[Any]:
    """Codes of some rows, only those decoded.

    Args:
        packed: uint8 ``(P,)``, of `pack`.
        ids: int64 ``(n,)``: rows, in any order, each in [0, N).
        bits: as they were packed.

    Returns:
        ``(n, D)``: uint8 where no column is wider than 8 bits, else uint16.
    """
    _check_bits(bits)
    width = sum(bits)
    if width == 0:
        return np.zeros((len(ids), len(bits)), dtype=np.uint8)
    if len(set(bits)) == 1 and width % 8 == 0:
        if bits[0] == 16:
            return packed.view("<u2").reshape(-1, len(bits))[ids]
        if bits[0] in (1, 2, 4, 8):
            rows = _whole_bytes(packed, ids, width // 8)
            return rows if bits[0] == 8 else _split(rows, bits[0])
    return _cut(packed, ids, tuple(bits))


def _whole_bytes(packed: UInt8, ids: Int64, size: int) -> UInt8:
    """Rows of so many bytes ``(n, size)``, as one number each where there is a type for it."""
    if size in (2, 4, 8):
        return packed.view(f"<u{size}")[ids].view(np.uint8).reshape(-1, size)
    return packed.reshape(-1, size)[ids]


def _split(rows: UInt8, bits: int) -> UInt8:
    """Equal codes that fill whole bytes: ``(n, bytes)`` to ``(n, bytes * 8 / bits)``."""
    return np.take(_CODES_OF[bits], rows).view(np.uint8)


def _codes_of(bits: int) -> NDArray[Any]:
    """The codes in each of the 256 bytes, those of a byte as one number of that many bytes."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (np.arange(256, dtype=np.uint8)[:, None] >> shifts) & np.uint8((1 << bits) - 1)
    return codes.view(f"<u{len(shifts)}").ravel()


_CODES_OF = {bits: _codes_of(bits) for bits in (1, 2, 4)}


class _Run(NamedTuple):
    """Neighbouring columns whose codes lie in one word, whatever bit of a byte they begin at."""

    columns: slice
    start: int
    """Its first bit in a row."""

    shifts: NDArray[np.uint64]
    masks: NDArray[np.uint64]


def _cut(packed: UInt8, ids: Int64, bits: tuple[int, ...]) -> NDArray[Any]:
    """Any widths: neighbouring codes are cut from one 64-bit word, which begins at a whole byte."""
    if len(packed) < _WORD:
        packed = np.concatenate([packed, np.zeros(_WORD - len(packed), dtype=np.uint8)])
    last = len(packed) - _WORD
    words = np.ndarray((last + 1,), dtype="<u8", buffer=packed.data, strides=(1,))
    codes = np.empty((len(ids), len(bits)), dtype=np.uint8 if max(bits) <= 8 else np.uint16)
    row_starts = ids * sum(bits)
    for run in _runs(bits):
        first = row_starts + run.start
        # Near the end the word begins earlier, so that it ends with the array.
        place = np.minimum(first >> 3, last)
        word = words[place] >> (first - (place << 3)).astype(np.uint64)
        codes[:, run.columns] = (word[:, None] >> run.shifts) & run.masks
    return codes


@lru_cache(maxsize=256)
def _runs(bits: tuple[int, ...]) -> list[_Run]:
    """As few runs as there can be."""
    widths = np.array(bits, dtype=np.int64)
    ends = np.cumsum(widths)
    starts = ends - widths
    runs: list[_Run] = []
    begin = 0
    while begin < len(bits):
        end = int(np.searchsorted(ends, starts[begin] + _WORD_BITS, side="right"))
        columns = slice(begin, end)
        shifts = (starts[columns] - starts[begin]).astype(np.uint64)
        masks = (np.left_shift(1, widths[columns]) - 1).astype(np.uint64)
        runs.append(_Run(columns, int(starts[begin]), shifts, masks))
        begin = end
    return runs


def _check_bits(bits: Sequence[int]) -> None:
    if not all(0 <= width <= MAX_BITS for width in bits):
        raise ValueError(f"bits {list(bits)}: each must be from 0 to {MAX_BITS}")
