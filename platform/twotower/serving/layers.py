"""Dense layers in NumPy, in float32: within rounding of torch's.

Shape letters:
    E width
"""

from dataclasses import dataclass

import numpy as np

from twotower.core.types import Float32
from twotower.serving.arrays import Tensors

_LAYER_NORM_EPS = 1e-5
"""PyTorch's own."""


@dataclass(frozen=True, slots=True)
class Linear:
    """``x W^T + b``. ValueError where its arrays don't belong together."""

    weight: Float32
    """float32 ``(out, in)``."""

    bias: Float32
    """float32 ``(out,)``."""

    def __post_init__(self) -> None:
        _check(self.weight, self.bias, self.weight.ndim == 2)

    def __call__(self, x: Float32) -> Float32:
        """``(..., in)`` -> ``(..., out)``."""
        return x @ self.weight.T + self.bias

    @classmethod
    def read(cls, tensors: Tensors, name: str) -> "Linear":
        """The layer stored under a name; KeyError if it isn't there."""
        return cls(tensors[f"{name}.weight"], tensors[f"{name}.bias"])


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """Mean 0 and deviation 1 over the last axis, then weight and bias. ValueError as `Linear`."""

    weight: Float32
    """float32 ``(E,)``."""

    bias: Float32

    def __post_init__(self) -> None:
        _check(self.weight, self.bias, self.weight.ndim == 1)

    def __call__(self, x: Float32) -> Float32:
        """``(..., E)``, the same shape."""
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = (centred * centred).mean(axis=-1, keepdims=True)
        return centred / np.sqrt(variance + np.float32(_LAYER_NORM_EPS)) * self.weight + self.bias

    @classmethod
    def read(cls, tensors: Tensors, name: str) -> "LayerNorm":
        """The layer stored under a name; KeyError if it isn't there."""
        return cls(tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def _check(weight: Float32, bias: Float32, fits: bool) -> None:
    fits &= bias.shape == weight.shape[:1] and weight.dtype == bias.dtype == np.float32
    if not fits:
        raise ValueError(
            f"a layer has weights {weight.dtype} {weight.shape} and bias {bias.dtype} {bias.shape}"
        )
