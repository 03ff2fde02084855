"""Both towers in NumPy, in float32: within rounding of the trained model's.

Shape letters:
    n rows    E width of an embedding    X width after the last step
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twotower.core.types import Float32, Ragged
from twotower.serving.arrays import Tensors
from twotower.serving.layers import Linear
from twotower.serving.scorers import LastStep
from twotower.serving.tables import ServedTable


@dataclass(frozen=True, slots=True)
class Tower:
    """MLP with ReLU between its layers -> last step; without layers the input itself ends so."""

    layers: tuple[Linear, ...]
    last: LastStep

    def __call__(self, x: Float32) -> Float32:
        """``(n, in)`` -> ``(n, X)``."""
        for number, layer in enumerate(self.layers):
            x = layer(np.maximum(x, 0) if number else x)
        return self.last(x)

    @classmethod
    def read(cls, tensors: Tensors, name: str, num_layers: int, last: LastStep) -> "Tower":
        """The tower stored under a name."""
        return cls(tuple(Linear.read(tensors, f"{name}.{n}") for n in range(num_layers)), last)


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
