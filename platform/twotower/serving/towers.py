"""Both towers in NumPy, in float32: within rounding of the trained model's.

Shape letters:
    n rows    E width of an embedding    D width of the output    H history items of all rows
    T length of the longest history
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twotower.core.types import Float32, Ragged
from twotower.serving.tables import ServedTable

Tensors = Mapping[str, NDArray[Any]]

_LAYER_NORM_EPS = 1e-5
_NORM_EPS = 1e-12
"""PyTorch's own, of LayerNorm and of normalize."""


@dataclass(frozen=True, slots=True)
class Linear:
    """``x W^T + b``."""

    weight: Float32
    """float32 ``(out, in)``."""

    bias: Float32

    def __call__(self, x: Float32) -> Float32:
        """``(n, in)`` -> ``(n, out)``."""
        return x @ self.weight.T + self.bias

    @classmethod
    def read(cls, tensors: Tensors, name: str) -> "Linear":
        """The layer stored under a name; KeyError if it isn't there."""
        return cls(tensors[f"{name}.weight"], tensors[f"{name}.bias"])


@dataclass(frozen=True, slots=True)
class Tower:
    """MLP with ReLU between its layers -> L2 norm."""

    layers: tuple[Linear, ...]

    def __call__(self, x: Float32) -> Float32:
        """``(n, in)`` -> ``(n, D)``, rows of norm 1."""
        for layer in self.layers[:-1]:
            x = np.maximum(layer(x), 0)
        out = self.layers[-1](x)
        norms = np.sqrt((out * out).sum(axis=1, keepdims=True, dtype=np.float32))
        norms[np.isinf(norms)] = np.nan  # of what float32 can't square, no direction is known
        return out / np.maximum(norms, np.float32(_NORM_EPS))

    @classmethod
    def read(cls, tensors: Tensors, name: str, num_layers: int) -> "Tower":
        """The tower stored under a name."""
        return cls(tuple(Linear.read(tensors, f"{name}.{n}") for n in range(num_layers)))


@dataclass(frozen=True, slots=True)
class Attention:
    """`AttentionHistory` of the trained model: one block, read at the newest item."""

    tensors: Tensors

    def __call__(self, items_HE: Float32, lengths: NDArray[np.int64]) -> Float32:
        """Attend.

        Args:
            items_HE: embeddings of all history items, newest first within a row.
            lengths: int64 ``(n,)``: items of each row.

        Returns:
            ``(n, E)``; zeros where the history is empty.
        """
        longest, width = max(1, int(lengths.max(initial=1))), items_HE.shape[1]
        history = Ragged.from_lengths(lengths, items_HE)
        row = history.row_ids()
        place = np.arange(len(row)) - history.offsets[row]
        x_nTE = np.zeros((len(lengths), longest, width), dtype=np.float32)
        x_nTE[row, place] = items_HE + self.tensors["history.positions"][place]
        newest = self._norm("attention_norm", x_nTE[:, 0])
        query, key, value = (
            Linear.read(self.tensors, f"history.{n}") for n in ("query", "key", "value")
        )
        scores_nT = np.einsum("ne,nte->nt", query(newest), key(x_nTE)) / math.sqrt(width)
        allowed = (np.arange(longest) < lengths[:, None]) | (lengths == 0)[:, None]
        scores_nT = np.where(allowed, scores_nT, -np.inf)
        shares_nT = np.exp(scores_nT - scores_nT.max(axis=1, keepdims=True))
        shares_nT /= shares_nT.sum(axis=1, keepdims=True)
        mixed = newest + np.einsum("nt,nte->ne", shares_nT, value(x_nTE))
        fed = self._norm("feed_norm", mixed.astype(np.float32))
        inner, outer = (Linear.read(self.tensors, f"history.{n}") for n in ("inner", "outer"))
        fed = fed + outer(np.maximum(inner(fed), 0))
        return self._norm("last_norm", fed) * (lengths > 0)[:, None]

    def _norm(self, name: str, x: Float32) -> Float32:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = (centred * centred).mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(variance + np.float32(_LAYER_NORM_EPS))
        layer = f"history.{name}"
        return scaled * self.tensors[f"{layer}.weight"] + self.tensors[f"{layer}.bias"]


def bag_means(table: ServedTable, bags: Ragged) -> Float32:
    """Mean of the rows of each bag: float32 ``(bags, E)``; no bag is empty."""
    lengths = bags.lengths()
    found = table.rows(bags.values.astype(np.int64, copy=False))
    if (lengths == 1).all():
        return found
    return weighted_sums(found, np.repeat(1 / lengths, lengths).astype(np.float32), bags.offsets)


def weighted_sums(rows: Float32, weights: Float32, offsets: NDArray[np.int64]) -> Float32:
    """Sum of weight times row over each run of rows, none of them empty."""
    return np.add.reduceat(rows * weights[:, None], offsets[:-1], axis=0)
