"""Exact best K items of every query over the whole catalogue, in bounded memory.

Shape letters:
    Q queries    N items    K items reported    b queries of one block    C longest list of a block

Where scores are products of vectors, provably complete short lists are found first, in the
cheapest type of number the device has (`shortlist`), and scored in float64. Queries without such a
list are looked for in the next type, the last of them in their whole rows of scores (`whole_row`).
Every way gives the same items and the same bits of scores.
"""

from dataclasses import dataclass
from threading import Event

import numpy as np
import torch
from numpy.typing import NDArray

from twotower.core.types import Float64, Int64, Ragged
from twotower.evaluation import shortlist
from twotower.evaluation.coarse import Coarse
from twotower.evaluation.metrics import NOTHING, Int32
from twotower.evaluation.scorers import CosineScorer, Scorer
from twotower.evaluation.shortlist import Found
from twotower.evaluation.side_by_side import side_by_side, threads_of
from twotower.evaluation.ties import UInt64, best_first, tie_ranks
from twotower.evaluation.whole_row import WholeRows

_BYTES_PER_SCORE = 8
"""float64 of exact scorers; covers a float32 tile and a copy of it."""

_HOPELESS = 0.5
"""Share of a block that must be proved for the rest to be tried."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How work is cut; no result depends on it."""

    row_bytes: int = 8192
    """Scores of one query in a tile of the catalogue."""

    queries: int = 512
    """Most queries of a block: with `row_bytes` 4 MiB of scores, which stay in cache."""

    lanes: int = 32
    """Scores whose maximum is taken at once (of 16, 32, 64 the fastest)."""

    few: int = 256
    """Fewer queries than this are ranked by whole rows: the catalogue is not converted for them."""


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
    """Queries that the first way could not prove (a cut-off too close, mostly) and that were
    searched again."""


def top_k(
    scorer: Scorer,
    candidates: Candidates,
    k: int,
    *,
    tile_mb: int = 256,
    sizes: Sizes | None = None,
) -> Top:
    """Rank the whole catalogue for every query.

    Args:
        scorer: gives scores of queries ``0..Q-1``.
        candidates: what is ranked.
        k: K >= 1.
        tile_mb: bound of the memory used beside vectors and result, in MiB; one query's scores are
            always held.
        sizes: for tests and measurements.

    Raises:
        DivergedError: the best score of a query is NaN or infinite.
    """
    num_queries, num_items = len(candidates.own_item), len(candidates.tie_keys)
    items = np.full((num_queries, k), NOTHING, dtype=np.int32)
    scores = np.full((num_queries, k), -np.inf)
    kept = min(k, num_items)
    if not kept or not num_queries:
        return Top(items, scores, 0)
    top = Top(items[:, :kept], scores[:, :kept], 0)
    search = _Search(candidates, top, tile_mb * 2**20, sizes or Sizes())
    left, first_left = np.arange(num_queries, dtype=np.int64), None
    with torch.inference_mode():
        if isinstance(scorer, CosineScorer):
            for dtype in scorer.shortlists:
                if search.pays(dtype, len(left)):
                    left = search.by_shortlists(scorer, dtype, left)
                    first_left = len(left) if first_left is None else first_left
        unproved = search.by_whole_rows(scorer, left)
    items[np.isneginf(scores)] = NOTHING
    return Top(items, scores, unproved if first_left is None else first_left)


class _Search:
    """Fills in the best K of queries; holds what is the same for all of them."""

    def __init__(self, candidates: Candidates, top: Top, budget: int, sizes: Sizes) -> None:
        self._candidates, self._top, self._budget, self._sizes = candidates, top, budget, sizes
        self._ranks = tie_ranks(candidates.tie_keys)
        self._k = top.items.shape[1]

    def pays(self, dtype: torch.dtype, num_queries: int) -> bool:
        """Whether to look for short lists in a type."""
        enough = num_queries >= self._sizes.few
        return enough and shortlist.fits(
            len(self._ranks), self._k, self._tile_items(dtype), self._sizes.lanes
        )

    def by_shortlists(self, scorer: CosineScorer, dtype: torch.dtype, rows: Int64) -> Int64:
        """Answer what short lists prove; the queries that are left, back.

        All that is not begun is left once most of a block could not be proved: this model's scores
        are too close together for the type.
        """
        coarse = Coarse(
            scorer.item_ND,
            dtype,
            self._tile_items(dtype),
            lanes=self._sizes.lanes,
            kept_bytes=self._budget // 2,
        )
        at_once = threads_of(scorer.item_ND.device)
        each = shortlist.bytes_per_query(self._k, self._sizes.row_bytes, self._sizes.lanes)
        most = min(self._sizes.queries, self._budget // 2 // each // at_once)
        step = max(1, min(most, -(-len(rows) // at_once)))
        hopeless = Event()

        def left_of(some: Int64) -> Int64:
            if hopeless.is_set():
                return some
            block = coarse.block(scorer.queries(some))
            found = shortlist.find(coarse, block, _barred(self._candidates, some), self._k)
            proved = found.proved.cpu().numpy()
            self._answer(scorer, some, found, proved)
            if proved.mean() < _HOPELESS:
                hopeless.set()
            return some[~proved]

        blocks = [rows[start : start + step] for start in range(0, len(rows), step)]
        return np.concatenate(side_by_side(left_of, blocks, at_once))

    def by_whole_rows(self, scorer: Scorer, rows: Int64) -> int:
        """Answer queries for certain; how many needed a second look."""
        if not len(rows):
            return 0
        whole, unproved = WholeRows(scorer, self._ranks, self._k), 0
        step = max(1, self._budget // (_BYTES_PER_SCORE * len(self._ranks)))
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            tile = scorer.tile(some)
            place = (
                torch.as_tensor(part).to(tile.device) for part in _barred(self._candidates, some)
            )
            tile[tuple(place)] = -torch.inf
            self._top.items[some], self._top.scores[some], found = whole.best(tile, some)
            unproved += found
        return unproved

    def _answer(
        self, scorer: CosineScorer, rows: Int64, found: Found, proved: NDArray[np.bool_]
    ) -> None:
        if not len(found.rows):
            return
        device = found.rows.device
        scores = scorer.exact_pairs(torch.as_tensor(rows).to(device)[found.rows], found.items)
        sizes_b = torch.bincount(found.rows, minlength=len(rows))
        first_b = sizes_b.cumsum(0) - sizes_b
        places = torch.arange(len(found.rows), device=device) - first_b[found.rows]
        shape = (len(rows), int(sizes_b.max()))
        scores_bC = torch.full(shape, -torch.inf, dtype=torch.float64, device=device)
        items_bC = torch.zeros(shape, dtype=torch.int64, device=device)
        scores_bC[found.rows, places], items_bC[found.rows, places] = scores, found.items
        best = best_first(
            items_bC.cpu().numpy()[proved], scores_bC.cpu().numpy()[proved], self._ranks, self._k
        )
        self._top.items[rows[proved]], self._top.scores[rows[proved]] = best

    def _tile_items(self, dtype: torch.dtype) -> int:
        return max(1, self._sizes.row_bytes // dtype.itemsize)


def _barred(candidates: Candidates, rows: Int64) -> tuple[Int64, Int64]:
    """Places in ``rows``, and beside each an item that is no candidate there."""
    excluded, own = candidates.exclude.take(rows), candidates.own_item[rows]
    with_own = np.flatnonzero(own >= 0)
    places = np.concatenate([excluded.row_ids(), with_own])
    return places, np.concatenate([excluded.values, own[with_own]]).astype(np.int64)
