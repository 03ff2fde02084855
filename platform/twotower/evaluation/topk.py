"""Exact best K items of every query over the whole catalogue, in bounded memory.

Shape letters:
    Q queries    N items    K items reported    C = K + _MARGIN candidates    b queries of one tile

A tile of scores gives C candidates a query; they are scored again in float64 and ordered by
score, then by tie key. Whether the true K best are among them is proved for every query: an item
left out scores at most ``floor + error`` (floor = the tile's C-th best score), so K candidates
above that are right. Where the proof fails (near-ties and ties at the cut-off) all items that could
matter are looked at, so the result is exact whatever the scores are.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twotower.core.errors import DivergedError
from twotower.core.types import Float64, Int64, Ragged
from twotower.evaluation.metrics import NOTHING, Int32
from twotower.evaluation.scorers import Scorer
from twotower.evaluation.ties import UInt64, tie_ranks

_MARGIN = 16
"""Candidates beyond K. Any value is exact; this one makes failed proofs rare (chosen)."""

_BYTES_PER_SCORE = 8
"""float64 of exact scorers; covers a float32 tile and a copy of it."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Which items may be recommended to which query, and who wins a tie."""

    own_item: Int64
    """int64 ``(Q,)``: the query's own item, never a candidate; -1 where it is none."""

    exclude: Ragged
    """Q rows of items that are no candidates either."""

    tie_keys: UInt64
    """uint64 ``(N,)``: see `ties.tie_keys`."""


@dataclass(frozen=True, slots=True)
class Top:
    """Best items of every query."""

    items: Int32
    """int32 ``(Q, K)``, best first, `NOTHING` after the last candidate."""

    scores: Float64
    """float64 ``(Q, K)``, -inf after the last candidate."""

    searched: int
    """Queries whose cut-off was too close to prove from the candidates and was searched again."""


def top_k(scorer: Scorer, candidates: Candidates, k: int, *, tile_mb: int = 256) -> Top:
    """Rank the whole catalogue for every query.

    Args:
        scorer: gives scores of queries ``0..Q-1``.
        candidates: what is ranked.
        k: K >= 1.
        tile_mb: memory bound of one tile of scores, in MiB; one query is always taken.

    Raises:
        DivergedError: the best score of a query is NaN or infinite.
    """
    ranks = tie_ranks(candidates.tie_keys)
    num_queries, num_items = len(candidates.own_item), len(ranks)
    items = np.full((num_queries, k), NOTHING, dtype=np.int32)
    scores = np.full((num_queries, k), -np.inf)
    step = max(1, tile_mb * 2**20 // (_BYTES_PER_SCORE * max(num_items, 1)))
    kept, searched = min(k, num_items), 0
    if not kept:
        return Top(items, scores, 0)
    with torch.inference_mode():
        selection = _Selection(scorer, ranks, kept)
        for start in range(0, num_queries, step):
            rows = np.arange(start, min(start + step, num_queries), dtype=np.int64)
            tile = _masked_tile(scorer, candidates, rows)
            items[rows, :kept], scores[rows, :kept], found = selection.best(tile, rows)
            searched += found
    items[np.isneginf(scores)] = NOTHING
    return Top(items, scores, searched)


def _masked_tile(scorer: Scorer, candidates: Candidates, rows: Int64) -> Tensor:
    """Scores of the given queries with -inf where an item is no candidate."""
    tile = scorer.tile(rows)
    excluded, own = candidates.exclude.take(rows), candidates.own_item[rows]
    with_own = np.flatnonzero(own >= 0)
    barred_rows = np.concatenate([excluded.row_ids(), with_own])
    barred_items = np.concatenate([excluded.values, own[with_own]]).astype(np.int64)
    place = (
        torch.as_tensor(barred_rows).to(tile.device),
        torch.as_tensor(barred_items).to(tile.device),
    )
    tile[place] = -torch.inf
    return tile


class _Selection:
    """Picks the best K of tiles; holds what is the same for all of them."""

    def __init__(self, scorer: Scorer, ranks: Int64, k: int) -> None:
        self._scorer, self._ranks, self._k = scorer, ranks, k
        self._error = scorer.error
        self._by_rank = np.argsort(ranks)

    def best(self, tile: Tensor, rows: Int64) -> tuple[Int64, Float64, int]:
        """Items ``(b, K)``, exact scores ``(b, K)``, and how many rows were searched again."""
        values, columns = tile.topk(min(self._k + _MARGIN, tile.shape[1]), dim=1)
        approximate = values.double().cpu().numpy()
        picked = columns.cpu().numpy()
        if np.isnan(approximate[:, 0]).any() or np.isposinf(approximate[:, 0]).any():
            raise DivergedError(
                "scores are NaN or infinite: the model diverged, nothing can be ranked"
            )
        exact = self._exact(rows, picked, approximate)
        items, scores = self._ordered(picked, exact)
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

    def _ordered(self, items: Int64, scores: Float64) -> tuple[Int64, Float64]:
        order = np.lexsort((self._ranks[items], -scores), axis=-1)[:, : self._k]
        return np.take_along_axis(items, order, 1), np.take_along_axis(scores, order, 1)

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
        return self._ordered(found[None], scores[None])

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
