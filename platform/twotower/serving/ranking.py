"""Exact top-K of one query, bitwise as the evaluation scores and orders it.

Shape letters:
    N items    C candidates    D width
"""

import numpy as np
from numpy.typing import NDArray

from twotower.core.types import Float32, Float64, Int64


def top_k(
    query_D: Float32, items_ND: Float32, ranks: NDArray[np.int32], excluded: Int64, k: int
) -> tuple[Int64, Float64]:
    """Best items, best first.

    A float32 product finds the candidates; whatever its rounding may have moved over the edge is
    among them. They are scored again in float64, where products of float32 numbers are exact.

    Args:
        query_D: float32 ``(D,)`` of norm 1.
        items_ND: float32 ``(N, D)`` of norm 1.
        ranks: int32 ``(N,)``: of two items with equal scores the lower comes first.
        excluded: int64: items that must not be recommended.
        k: at least 1.

    Returns:
        Items and float64 scores, at most K each.
    """
    rough = items_ND @ query_D
    rough[excluded] = -np.inf
    k = min(k, int(np.isfinite(rough).sum()))
    if not k:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float64)
    edge = np.partition(rough, len(rough) - k)[len(rough) - k]
    near = np.flatnonzero(rough >= edge - 2 * _loss(len(query_D)))
    scores = tree_dot(query_D, items_ND[near])
    order = np.lexsort((ranks[near], -scores))[:k]
    return near[order], scores[order]


def tree_dot(query_D: Float32, items_CD: Float32) -> Float64:
    """Dot products in float64, added by halves: the order in which the evaluation adds them."""
    terms = items_CD.astype(np.float64) * query_D.astype(np.float64)
    width = terms.shape[1]
    while width > 1:
        half = width // 2
        terms[:, :half] += terms[:, width - half : width]
        width -= half
    return terms[:, 0]


def _loss(width: int) -> float:
    """Bound on the rounding of a float32 dot product of unit vectors, in any order of addition."""
    return 1.01 * width * 2.0**-24
