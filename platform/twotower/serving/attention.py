"""Histories through blocks of causal self-attention, as `models/encoders.py` trains them.

Shape letters:
    n rows    H history items of all rows    T length of the longest history    E embedding width
    S newest positions that are read    J heads    F width of a head
"""

import math
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from twotower.core.types import Float32, Int64, Ragged
from twotower.serving.arrays import Tensors
from twotower.serving.layers import LayerNorm, Linear

_ROWS = 256
"""Rows attended at once; bounds memory."""


@dataclass(frozen=True, slots=True)
class Block:
    """Self-attention and two position-wise layers, both on normalised queries."""

    num_heads: int
    query: Linear
    key: Linear
    value: Linear
    inner: Linear
    outer: Linear
    attention_norm: LayerNorm
    feed_norm: LayerNorm

    def read(self, x_nTE: Float32, lengths: Int64, num_read: int) -> Float32:
        """Output at the newest positions: ``(n, S, E)``.

        Args:
            x_nTE: newest first; what lies after a history's end is not seen.
            lengths: int64 ``(n,)``: items of each history.
            num_read: S.
        """
        longest, width = x_nTE.shape[1:]
        newest_nSE = self.attention_norm(x_nTE[:, :num_read])
        query_nJSF = self._by_head(self.query(newest_nSE))
        key_nJTF, value_nJTF = (self._by_head(one(x_nTE)) for one in (self.key, self.value))
        scores_nJST = query_nJSF @ key_nJTF.swapaxes(2, 3) / math.sqrt(width // self.num_heads)
        allowed_nST = _seen(lengths, num_read, longest)
        scores_nJST = np.where(allowed_nST[:, None], scores_nJST, np.float32(-np.inf))
        shares_nJST = np.exp(scores_nJST - scores_nJST.max(axis=3, keepdims=True))
        shares_nJST /= shares_nJST.sum(axis=3, keepdims=True)
        mixed_nSE = (shares_nJST @ value_nJTF).swapaxes(1, 2).reshape(newest_nSE.shape)
        fed_nSE = self.feed_norm(newest_nSE + mixed_nSE)
        return fed_nSE + self.outer(np.maximum(self.inner(fed_nSE), 0))

    def _by_head(self, x_nTE: Float32) -> Float32:
        rows, places, width = x_nTE.shape
        by_head = x_nTE.reshape(rows, places, self.num_heads, width // self.num_heads)
        return by_head.swapaxes(1, 2)

    @classmethod
    def of(cls, tensors: Tensors, name: str, num_heads: int) -> "Block":
        """The block stored under a name; KeyError if a part isn't there."""
        dense = ("query", "key", "value", "inner", "outer")
        query, key, value, inner, outer = (Linear.read(tensors, f"{name}.{one}") for one in dense)
        norms = ("attention_norm", "feed_norm")
        attention_norm, feed_norm = (LayerNorm.read(tensors, f"{name}.{one}") for one in norms)
        return cls(num_heads, query, key, value, inner, outer, attention_norm, feed_norm)


@dataclass(frozen=True, slots=True)
class Attention:
    """`AttentionHistory` of the trained model, read at the newest item of each history."""

    positions: Float32
    """``(max_values, E)``, of the newest item first."""

    blocks: tuple[Block, ...]
    last_norm: LayerNorm

    def __call__(self, items_HE: Float32, lengths: Int64) -> Float32:
        """Attend.

        Args:
            items_HE: embeddings of all history items, newest first within a row.
            lengths: int64 ``(n,)``: items of each row.

        Returns:
            ``(n, E)``; zeros where the history is empty.
        """
        ends = np.cumsum(lengths)
        found = np.zeros((len(lengths), items_HE.shape[1]), dtype=np.float32)
        for start in range(0, len(lengths), _ROWS):
            part = lengths[start : start + _ROWS]
            first = ends[start] - lengths[start]
            found[start : start + _ROWS] = self._attend(items_HE[first:][: part.sum()], part)
        return found

    def _attend(self, items_HE: Float32, lengths: Int64) -> Float32:
        history = Ragged.from_lengths(lengths, items_HE)
        row = history.row_ids()
        place = np.arange(len(row)) - history.offsets[row]
        longest = max(1, int(lengths.max()))
        x_nTE = np.zeros((len(lengths), longest, items_HE.shape[1]), dtype=np.float32)
        x_nTE[row, place] = items_HE + self.positions[place]
        for block in self.blocks[:-1]:
            x_nTE = block.read(x_nTE, lengths, longest)
        newest_nE = self.blocks[-1].read(x_nTE, lengths, 1)[:, 0]
        return self.last_norm(newest_nE) * (lengths > 0)[:, None]

    @classmethod
    def of(cls, tensors: Tensors, num_blocks: int, num_heads: int) -> "Attention":
        """The encoder stored as `history`; KeyError if a part isn't there."""
        earlier = (f"history.earlier.{n}" for n in range(num_blocks - 1))
        blocks = tuple(Block.of(tensors, name, num_heads) for name in chain(earlier, ["history"]))
        last_norm = LayerNorm.read(tensors, "history.last_norm")
        return cls(tensors["history.positions"], blocks, last_norm)


def _seen(lengths: Int64, num_read: int, longest: int) -> NDArray[np.bool_]:
    """Which positions each of the newest ones sees: itself and older ones, ``(n, S, T)``.

    Positions after a history's end see themselves: finite, and never read.
    """
    place_T = np.arange(longest)
    newest_S1 = place_T[:num_read, None]
    real_nT = place_T < lengths[:, None]
    return ((place_T >= newest_S1) & real_nT[:, None]) | (place_T == newest_S1)
