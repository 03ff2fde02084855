"""Exact top-K of one query, bitwise as the evaluation scores and orders it.

Shape letters:
    N items    X width of a vector
"""

import math

import numpy as np
from numpy.typing import NDArray

from twotower.core.types import Float32, Float64, Int64
from twotower.serving.scores import Score

_LEAST_LOSS = 1e-30
"""What a float32 product may lose by being too small for a float32."""


class Ranking:
    """Ranks a catalogue; what of it is the same for every query is measured once."""

    def __init__(self, score: Score, items_NX: Float32, ranks: NDArray[np.int32]) -> None:
        """Use a catalogue.

        Args:
            score: of a query's and an item's vector.
            items_NX: float32 ``(N, X)``.
            ranks: int32 ``(N,)``: of two items with equal scores the lower comes first.

        Raises:
            ValueError: a vector holds NaN or infinity.
        """
        self._score, self._items, self._ranks = score, items_NX, ranks
        self._extents = score.extents(items_NX)
        if not np.isfinite(self._extents).all():
            raise ValueError("the vectors of items are not finite")

    def best(self, query_X: Float32, excluded: Int64, k: int) -> tuple[Int64, Float64]:
        """Best items, best first.

        Float32 scores find the candidates; whatever their rounding may have moved over the edge is
        among them. They are scored again in float64.

        Args:
            query_X: float32 ``(X,)``.
            excluded: int64: items that must not be recommended.
            k: at least 1.

        Returns:
            Items and float64 scores, at most K each.
        """
        allowed = np.ones(len(self._items), dtype=np.bool_)
        allowed[excluded] = False
        k = min(k, int(allowed.sum()))
        if not k:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float64)
        near = np.flatnonzero(self._near(query_X, allowed, k))
        scores = self._score.exact(query_X, self._items, near)
        order = np.lexsort((self._ranks[near], -scores))[:k]
        return near[order], scores[order]

    def _near(self, query_X: Float32, allowed: NDArray[np.bool_], k: int) -> NDArray[np.bool_]:
        """Which items may be among the K best; all where a score is too large for float32."""
        with np.errstate(over="ignore", invalid="ignore"):
            rough = self._score.rough(query_X, self._items)
            loss = 2 * (self._score.loss(query_X, self._extents) + _LEAST_LOSS)
            if not (np.isfinite(rough).all() and math.isfinite(loss)):
                return allowed
            edge = np.partition(rough[allowed], -k)[-k]
            least = np.nextafter(np.float32(float(edge) - loss), np.float32(-np.inf))
        return allowed & (rough >= least)
