"""What float arithmetic may lose, as bounds that hold for any order of additions and any library.

Shape letters:
    R rows    D width
"""

from typing import Any

import torch
from torch import Tensor

_INPUT_ROUNDOFF = {"tf32": 2.0**-10, "bf16": 2.0**-7}
"""Relative error of an input that a matmul may first cut to fewer bits (truncation allowed for)."""

_NORM_UNDERFLOW = 1e-16
"""Covers what a float32 norm misses: squares of numbers under 1e-19 vanish (up to D = 10^6)."""


def float32_loss(width: int, *, on_cuda: bool) -> float:
    """Bound on ``|a - q.x| / (|q| |x|)`` for a float32 matrix product a under torch's settings.

    gamma_D = D 2^-24 / (1 - D 2^-24) holds for any order of the sum (Higham, Accuracy and
    Stability of Numerical Algorithms, 2nd ed., eq. 3.5); u is what a reduced-precision matmul
    takes from its inputs, 0 unless TF32 or bfloat16 products are switched on.
    """
    cut = _input_roundoff(on_cuda=on_cuda)
    return (sum_loss(width, 2.0**-24) + 2 * cut + cut * cut) * 1.001


def sum_loss(width: int, unit: float) -> float:
    """Higham's gamma: relative to the sum of magnitudes, for D products added with that unit."""
    loss = width * unit
    return loss / (1 - loss)


def norms(rows_RD: Tensor) -> Tensor:
    """Upper bounds of Euclidean norms of float32 rows, float64 ``(R,)``."""
    found_R = torch.linalg.vector_norm(rows_RD, dim=1).double()
    return found_R * (1 + (rows_RD.shape[1] + 4) * 2.0**-23) + _NORM_UNDERFLOW


def _input_roundoff(*, on_cuda: bool) -> float:
    """What float32 matrix products lose of their inputs under torch's present settings."""
    backends: Any = torch.backends
    matmul = backends.cuda.matmul if on_cuda else backends.mkldnn.matmul
    return _INPUT_ROUNDOFF.get(matmul.fp32_precision, 0.0)
