"""The best K of queries all of whose scores are at hand: exact for any scorer and any scores.

Shape letters:
    N items    K items reported    C = K + _MARGIN candidates    b queries of one tile

A tile of scores gives C candidates a query; they are scored again in float64 and ordered by
score, then by tie key. Whether the true K best are among them is proved for every query: an item
left out scores at most ``floor + error`` (floor = the tile's C-th best score), so K candidates
above that are right. Where the proof fails (near-ties and ties at the cut-off) all items that could
matter are looked at, so the result is exact whatever the scores are.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from twotower.core.errors import DivergedError
from twotower.core.types import Float64, Int64
from twotower.evaluation.scorers import Scorer
from twotower.evaluation.ties import best_first

_MARGIN = 16
"""Candidates beyond K. Any value is exact; this one makes failed proofs rare (chosen)."""


class WholeRows:
    """Picks the best K of tiles; holds what is the same for all of them."""

    def __init__(self, scorer: Scorer, ranks: Int64, k: int) -> None:
        """Rank for a scorer, ties by ``ranks`` int64 ``(N,)``, 1 <= K <= N."""
        self._scorer, self._ranks, self._k = scorer, ranks, k
        self._error = scorer.error
        self._by_rank = np.argsort(ranks)

    def best(self, tile: Tensor, rows: Int64) -> tuple[Int64, Float64, int]:
        """Items ``(b, K)``, exact scores ``(b, K)``, and how many rows were searched again.

        Raises:
            DivergedError: the best score of a query is NaN or infinite.
        """
        values, columns = tile.topk(min(self._k + _MARGIN, tile.shape[1]), dim=1)
        approximate = values.double().cpu().numpy()
        picked = columns.cpu().numpy()
        if np.isnan(approximate[:, 0]).any() or np.isposinf(approximate[:, 0]).any():
            raise DivergedError(
                "scores are NaN or infinite: the model diverged, nothing can be ranked"
            )
        exact = self._exact(rows, picked, approximate)
        items, scores = best_first(picked, exact, self._ranks, self._k)
        floor = approximate[:, -1]
        unproved = np.isfinite(floor) & (scores[:, -1] <= floor + self._error)
        if picked.shape[1] == tile.shape[1]:
            unproved[:] = False
        for row in np.flatnonzero(unproved):
            scored = tile[int(row)].cpu().numpy()
            if self._error:
                found = self._near(scored, rows[row : row + 1], scores[row, -1])
                items[row], scores[row] = found[0][0], found[1][0]
            else:
                self._tied(scored, items[row], scores[row])
        return items, scores, int(unproved.sum())

    def _exact(self, rows: Int64, items: Int64, approximate: Float64) -> Float64:
        if not self._error:
            return approximate
        return np.where(np.isneginf(approximate), approximate, self._scorer.exact(rows, items))

    def _near(
        self, scored: NDArray[np.floating], row: Int64, cut_off: float
    ) -> tuple[Int64, Float64]:
        """Order every item whose exact score could reach the K-th best found so far."""
        lowest = np.nextafter(scored.dtype.type(cut_off - self._error), -np.inf)
        items = np.flatnonzero(scored >= lowest)
        exact = self._scorer.exact(row, items[None])[0]
        kth = np.partition(exact, len(exact) - self._k)[len(exact) - self._k]
        tied = items[exact == kth]
        above = exact > kth
        needed = self._k - np.count_nonzero(above)
        if needed < len(tied):
            tied = tied[np.argpartition(self._ranks[tied], needed)[:needed]]
        found = np.concatenate([items[above], tied])
        scores = np.concatenate([exact[above], np.full(len(tied), kth)])
        return best_first(found[None], scores[None], self._ranks, self._k)

    def _tied(self, scored: NDArray[np.floating], items: Int64, scores: Float64) -> None:
        """Fill the places of the lowest score with the first such items by the tie rule."""
        first = np.count_nonzero(scores > scores[-1])
        needed, width = len(items) - first, 16 * len(items)
        while True:
            tied = np.flatnonzero(scored[self._by_rank[:width]] == scores[-1])[:needed]
            if len(tied) == needed:
                items[first:] = self._by_rank[tied]
                return
            width *= 8
