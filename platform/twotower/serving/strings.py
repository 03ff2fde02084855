"""Many strings as two arrays, with lookup from text to place by sorted 64-bit hashes.

Shape letters:
    N strings    n strings asked for
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twotower.core.hashing import UInt64, hash_bytes
from twotower.core.types import Int64

_DATA, _OFFSETS = "bytes", "offsets"


class Strings(Sequence[str]):
    """UTF-8 strings, one after the other."""

    def __init__(self, data: NDArray[np.uint8], offsets: Int64) -> None:
        """Keep them: bytes, and int64 ``(N + 1,)`` places where strings begin, and the end."""
        self.data, self.offsets = data, offsets

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Strings":
        """Pack Python strings."""
        return cls.packed([text.encode() for text in texts])

    @classmethod
    def packed(cls, encoded: Sequence[bytes]) -> "Strings":
        """Join encoded strings."""
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(text) for text in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], name: str) -> "Strings":
        """What `tensors` gave under a name; KeyError if it isn't there."""
        return cls(tensors[f"{name}.{_DATA}"], tensors[f"{name}.{_OFFSETS}"])

    def tensors(self, name: str) -> dict[str, NDArray[Any]]:
        """The two arrays by the names they are stored under."""
        return {f"{name}.{_DATA}": self.data, f"{name}.{_OFFSETS}": self.offsets}

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        return self.data[self.offsets[place] : self.offsets[place + 1]].tobytes().decode()

    def find(self, texts: Sequence[str]) -> Int64:
        """Place of each text: int64 ``(n,)``, -1 where it is not among the strings."""
        found = np.full(len(texts), -1, dtype=np.int64)
        sorted_hashes, order = self._sorted
        # What is no Unicode text (a lone surrogate) is none of the strings, and that is all.
        hashes = Strings.packed([text.encode(errors="surrogatepass") for text in texts]).hashes()
        first = np.searchsorted(sorted_hashes, hashes)
        for n, (text, place) in enumerate(zip(texts, first.tolist(), strict=True)):
            while place < len(order) and sorted_hashes[place] == hashes[n]:
                if self[int(order[place])] == text:
                    found[n] = order[place]
                    break
                place += 1  # noqa: PLW2901 - two texts with one hash follow each other
        return found

    def hashes(self) -> UInt64:
        """uint64 ``(N,)``: as prepared data hashes strings."""
        return hash_bytes(self.offsets[:-1], np.diff(self.offsets), self.data)

    @cached_property
    def _sorted(self) -> tuple[UInt64, Int64]:
        hashes = self.hashes()
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order
