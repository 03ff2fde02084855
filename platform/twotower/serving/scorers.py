"""How the towers end and how their vectors are scored, by the model's scorer.

Shape letters:
    n rows    D width of the towers' output    G width of the product part, D / 2
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from twotower.core.types import Float32
from twotower.serving.arrays import Tensors
from twotower.serving.layers import Linear
from twotower.serving.scores import Dot, PairNetwork, Score

Kind = Literal["cosine", "gmf", "neumf"]

NORM_EPS = 1e-12
"""PyTorch's own, of normalize."""


class Unit:
    """Onto the unit sphere."""

    def __call__(self, x_nD: Float32) -> Float32:
        """``(n, D)``, rows of norm 1."""
        norms = np.sqrt((x_nD * x_nD).sum(axis=1, keepdims=True, dtype=np.float32))
        norms[np.isinf(norms)] = np.nan  # of what float32 can't square, no direction is known
        return x_nD / np.maximum(norms, np.float32(NORM_EPS))


class Same:
    """As it is."""

    def __call__(self, x_nD: Float32) -> Float32:
        """The same."""
        return x_nD


@dataclass(frozen=True, slots=True)
class Weighted:
    """Number by number."""

    weight: Float32
    """float32 ``(D,)``."""

    def __call__(self, x_nD: Float32) -> Float32:
        """``(n, D)``."""
        return x_nD * self.weight


@dataclass(frozen=True, slots=True)
class Halves:
    """The first half for the product; of the second, this side's part of the first deep layer."""

    product: Same | Weighted
    deep: Linear

    def __call__(self, x_nD: Float32) -> Float32:
        """``(n, G + H)``."""
        product_nG, deep_nG = np.split(x_nD, 2, axis=1)
        return np.concatenate([self.product(product_nG), self.deep(deep_nG)], axis=1)


LastStep: TypeAlias = Unit | Same | Weighted | Halves
"""What becomes of a tower's output: ``(n, D)`` -> ``(n, X)``."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """The last step of either tower, and the score of what they give."""

    items: LastStep
    queries: LastStep
    score: Score

    @classmethod
    def read(cls, tensors: Tensors, kind: Kind, num_layers: int) -> "Scorer":
        """The scorer stored as `scorer`.

        Args:
            tensors: of `towers.safetensors`.
            kind: as in the config.
            num_layers: of a network over pairs.

        Raises:
            KeyError: a tensor isn't there.
            ValueError: they don't belong together.
        """
        if kind == "cosine":
            return cls(Unit(), Unit(), Dot())
        weight = tensors["scorer.weight"]
        if weight.ndim != 1 or weight.dtype != np.float32:
            raise ValueError(f"the weights of the scorer are {weight.dtype} {weight.shape}")
        if kind == "gmf":
            return cls(Same(), Weighted(weight), Dot())
        first = Linear.read(tensors, "scorer.first")
        if first.weight.shape[1] != 2 * len(weight):
            raise ValueError(f"the scorer has {first.weight.shape} beside {weight.shape}")
        of_query, of_item = np.split(first.weight, 2, axis=1)
        layers = (Linear.read(tensors, f"scorer.pairs.layers.{n}") for n in range(num_layers))
        return cls(
            Halves(Same(), Linear(of_item, np.zeros_like(first.bias))),
            Halves(Weighted(weight), Linear(of_query, first.bias)),
            PairNetwork(len(weight), len(first.bias), tuple(layers), tensors["scorer.pairs.last"]),
        )
