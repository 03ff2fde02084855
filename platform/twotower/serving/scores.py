"""How a query's and an item's vectors are scored: a dot product, or a network over the pair.

Each score has two ways: `rough` in float32 over a whole catalogue, and `exact` in float64, where
sums have one order, that of the evaluation. `loss` bounds how far they are apart.

Shape letters:
    N items    C items picked    X width of a vector: G of the product part, H of the network's
    J outputs of a layer
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from twotower.core.sums import tree_sum
from twotower.core.types import Float32, Float64, Int64
from twotower.serving.layers import Linear

_ROUGH_NUMBERS = 1 << 20
"""float32 numbers of one layer held at once (4 MiB), which stay in cache."""

_EXACT_NUMBERS = 1 << 18
"""float64 products of one layer held at once (2 MiB)."""

_UNIT = 2.0**-24


class Score(Protocol):
    """Scores of one query's vector ``(X,)`` and items' ``(N, X)``, both float32."""

    def extents(self, items_NX: Float32) -> Float64:
        """What `loss` has to know of a catalogue; not finite where one of its numbers isn't."""
        ...

    def loss(self, query_X: Float32, extents: Float64) -> float:
        """Bound on ``|rough - exact|`` over the catalogue of those extents."""
        ...

    def rough(self, query_X: Float32, items_NX: Float32) -> Float32:
        """float32 ``(N,)``; what a float32 can't hold is not finite."""
        ...

    def exact(self, query_X: Float32, items_NX: Float32, rows: Int64) -> Float64:
        """float64 ``(C,)`` of some of the items, bitwise the evaluation's."""
        ...


@dataclass(frozen=True, slots=True)
class Dot:
    """The dot product, of vectors of norm 1 or any other."""

    def extents(self, items_NX: Float32) -> Float64:
        """The largest norm: ``(1,)``."""
        squares = np.einsum("nx,nx->n", items_NX, items_NX, dtype=np.float64)
        return np.sqrt(squares.max(initial=0, keepdims=True))

    def loss(self, query_X: Float32, extents: Float64) -> float:
        """Holds for any order of the float32 additions."""
        return _gamma(len(query_X)) * float(np.linalg.norm(query_X.astype(np.float64)) * extents[0])

    def rough(self, query_X: Float32, items_NX: Float32) -> Float32:
        """A matrix product."""
        return items_NX @ query_X

    def exact(self, query_X: Float32, items_NX: Float32, rows: Int64) -> Float64:
        """Products of float32 numbers have no error in float64."""
        query, scores = query_X.astype(np.float64), np.empty(len(rows))
        for part in _parts(len(rows), len(query), _EXACT_NUMBERS):
            scores[part] = tree_sum(items_NX[rows[part]].astype(np.float64) * query)
        return scores


@dataclass(frozen=True, slots=True)
class PairNetwork:
    """``p . q + h . MLP(relu(p' + q'))`` of a query's vector [p; p'] and an item's [q; q'] (NeuMF).

    ValueError where its arrays don't belong together.
    """

    product_width: int
    """G, numbers of p and q."""

    deep_width: int
    """H, numbers of p' and q'."""

    layers: tuple[Linear, ...]
    """Further hidden layers, with ReLU."""

    last: Float32
    """``(H,)`` of the last hidden layer: h."""

    def __post_init__(self) -> None:
        width = self.deep_width
        for layer in self.layers:
            if layer.weight.shape[1] != width:
                raise ValueError(f"a layer of the scorer has {layer.weight.shape} after {width}")
            width = len(layer.bias)
        if self.last.shape != (width,) or self.last.dtype != np.float32:
            raise ValueError(f"the scorer ends in {self.last.dtype} {self.last.shape}, not {width}")

    def extents(self, items_NX: Float32) -> Float64:
        """The largest norm of a q, and of each number of q' the largest size: ``(1 + H,)``."""
        deep = items_NX[:, self.product_width :]
        most = np.maximum(deep.max(axis=0, initial=0), -deep.min(axis=0, initial=0))
        return np.concatenate([Dot().extents(items_NX[:, : self.product_width]), most])

    def loss(self, query_X: Float32, extents: Float64) -> float:
        """As in `evaluation/pairs.py`: layer by layer, from bounds on size and error."""
        product, deep = np.split(query_X, [self.product_width])
        size = np.abs(deep.astype(np.float64)) + extents[1:]
        lost = size * _UNIT
        for layer in self.layers:
            weight, bias = (np.abs(x.astype(np.float64)) for x in (layer.weight, layer.bias))
            gamma = _gamma(weight.shape[1] + 2)
            lost = weight @ lost + gamma * (weight @ (size + lost) + bias)
            size = weight @ size + bias
        last = np.abs(self.last.astype(np.float64))
        most, far = float(last @ size), float(last @ lost)
        far += _gamma(len(last) + 2) * (most + far)
        norm = float(np.linalg.norm(product.astype(np.float64)) * extents[0])
        product_lost = _gamma(len(product) + 2) * norm
        return 1.01 * (far + product_lost + _UNIT * (most + far + norm + product_lost))

    def rough(self, query_X: Float32, items_NX: Float32) -> Float32:
        """A part of the catalogue at a time."""
        product, deep = np.split(query_X, [self.product_width])
        scores = items_NX[:, : self.product_width] @ product
        widest = max(self.deep_width, *(len(layer.bias) for layer in self.layers), 1)
        for part in _parts(len(items_NX), widest, _ROUGH_NUMBERS):
            x = np.maximum(items_NX[part, self.product_width :] + deep, 0)
            for layer in self.layers:
                x = np.maximum(layer(x), 0)
            scores[part] += x @ self.last
        return scores

    def exact(self, query_X: Float32, items_NX: Float32, rows: Int64) -> Float64:
        """Products of one layer are held at once for as many items as there is room for."""
        product, deep = np.split(query_X.astype(np.float64), [self.product_width])
        layers = [
            (layer.weight.astype(np.float64), layer.bias.astype(np.float64))
            for layer in self.layers
        ]
        last, scores = self.last.astype(np.float64), np.empty(len(rows))
        most = max(len(query_X), *(weight.size for weight, _ in layers), 1)
        for part in _parts(len(rows), most, _EXACT_NUMBERS):
            items = items_NX[rows[part]].astype(np.float64)
            x_CH = np.maximum(items[:, self.product_width :] + deep, 0)
            for weight_JH, bias_J in layers:
                x_CH = np.maximum(tree_sum(x_CH[:, None] * weight_JH) + bias_J, 0)
            scores[part] = tree_sum(items[:, : self.product_width] * product)
            scores[part] += tree_sum(x_CH * last)
        return scores


def _gamma(width: int) -> float:
    """Higham's gamma of a sum of so many float32 products, relative to their sizes.

    The margin holds what float64 loses, and a bound that is itself rounded.
    """
    return 1.01 * width * _UNIT / (1 - width * _UNIT)


def _parts(count: int, numbers_each: int, most: int) -> Iterator[slice]:
    """Slices of so many rows that hold about ``most`` numbers, at least one row."""
    step = max(1, most // numbers_each)
    return (slice(start, start + step) for start in range(0, count, step))
