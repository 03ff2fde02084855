"""Short lists of items that hold every query's best K for certain, without sorting all scores.

Shape letters:
    b queries of one block    K items asked    T tiles    w items of one tile    L lanes
    h hits    C places of a pool

A bar is set for every query from what the first tile shows: a score that a few more than K items of
the catalogue should reach. Of every tile only what reaches the bar is taken, found by the maxima
of L scores at a time, so that most scores are looked at once, while they are in cache. As tiles
go by, the bar is raised to what has been seen.

The bar is a guess, the result is proved: if K items or more were taken, the K-th best score says
what an item must reach to be among the best (`Coarse.reach`); if the bar never was above that, no
such item was left out. Queries that can't be proved are named, not answered.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from twotower.core.types import Int64
from twotower.evaluation.coarse import Block, Coarse

_SPREADS = 4.0
"""Standard deviations of chance allowed for in the first tiles: 1 query in 1,000 sees more."""

_AT_ONCE = 16
"""Maxima a query, on average, whose L scores are looked at in one go."""

_RAISED_AFTER = (3, 12, 48, 192)
"""Tiles after which the bar is raised (of powers of 2, 3 and 4 the cheapest)."""


@dataclass(frozen=True, slots=True)
class Found:
    """Short lists of a block of queries."""

    proved: Tensor
    """bool ``(b,)``: the others have no list."""

    rows: Tensor
    """int64 ``(h,)``, rising: places in the block."""

    items: Tensor
    """int64 ``(h,)``: an item of that row's list."""


def fits(num_items: int, k: int, tile_items: int, lanes: int) -> bool:
    """Whether a catalogue is large enough, for K, that a bar leaves most of it out."""
    num_tiles = -(-num_items // tile_items)
    return num_tiles > 1 and _rank(k, 1 / num_tiles) * 4 * lanes <= num_items // num_tiles


def bytes_per_query(k: int, row_bytes: int, lanes: int) -> int:
    """Memory that `find` needs a query at most, rows of a tile being of ``row_bytes``."""
    return 3 * row_bytes + 64 * _places(k) + 50 * _AT_ONCE * lanes


def find(coarse: Coarse, block: Block, barred: tuple[Int64, Int64], k: int) -> Found:
    """Look through the whole catalogue for the best K of some queries.

    Args:
        coarse: the scores, whose `lanes` say how many scores a maximum is taken of.
        block: the queries.
        barred: rows of the block, and beside each an item that is no candidate of it.
        k: K >= 1.
    """
    num_rows, device = len(block.slack), block.slack.device
    pool = _Pool(num_rows, _places(k), coarse, device)
    barred_tiles = _by_tile(barred, coarse.num_tiles, device)
    bar_b = torch.full((num_rows,), coarse.lowest, dtype=coarse.dtype, device=device)
    for index in range(coarse.num_tiles):
        scores_bw = coarse.scores(block, index)
        rows, places = barred_tiles[index]
        if len(rows):
            scores_bw[rows, places] = -torch.inf
        if index == 0:
            seen_bC = scores_bw.view(num_rows, coarse.lanes, -1).amax(1)
            bar_b = _raised(bar_b, seen_bC, _rank(k, 1 / coarse.num_tiles), coarse, block)
        elif index in _RAISED_AFTER:
            bar_b = _raised(bar_b, pool.seen(), _rank(k, index / coarse.num_tiles), coarse, block)
        bar_b = pool.take(scores_bw, bar_b, index)
    return pool.listed(block, bar_b, k)


class _Pool:
    """What reached the bars so far, at most C items a query."""

    def __init__(self, num_rows: int, places: int, coarse: Coarse, device: torch.device) -> None:
        self._scores_bC = torch.full((num_rows, places), -torch.inf, device=device)
        self._items_bC = torch.zeros((num_rows, places), dtype=torch.int32, device=device)
        self._count_b = torch.zeros(num_rows, dtype=torch.int64, device=device)
        self._coarse = coarse

    def seen(self) -> Tensor:
        """Scores taken so far, float32 ``(b, at most C)``, -inf where there is none."""
        return self._scores_bC[:, : int(self._count_b.max())]

    def take(self, scores_bw: Tensor, bar_b: Tensor, index: int) -> Tensor:
        """Take what reaches the bars of a tile; the bars back.

        Where it is too much, a bar comes back out of reach, and no list is proved.
        bfloat16 numbers above 0 are in the order of their bits read as integers, whose comparisons
        cost a sixth; so if all bars are above 0, integers are compared.
        """
        num_rows, width = scores_bw.shape
        lanes, maxima = self._coarse.lanes, width // self._coarse.lanes
        as_bits = scores_bw.dtype == torch.bfloat16 and bool((bar_b > 0).all())
        scores_bLm = (scores_bw.view(torch.int16) if as_bits else scores_bw).view(
            num_rows, lanes, maxima
        )
        least_b = bar_b.view(torch.int16) if as_bits else bar_b
        reach_bm = scores_bLm.amax(1) >= least_b[:, None]
        rows, columns = reach_bm.nonzero().unbind(1)
        if len(rows) > num_rows * maxima // 2:
            crowded_b = reach_bm.sum(1) > maxima // 2
            bar_b = bar_b.masked_fill(crowded_b, torch.inf)
            kept = ~crowded_b[rows]
            rows, columns = rows[kept], columns[kept]
        for start in range(0, len(rows), num_rows * _AT_ONCE):
            part = slice(start, start + num_rows * _AT_ONCE)
            rows_h, columns_h = rows[part], columns[part]
            found_hL = scores_bLm[rows_h, :, columns_h]
            hits, lane = (found_hL >= least_b[rows_h, None]).nonzero().unbind(1)
            found = found_hL[hits, lane]
            self._put(
                rows_h[hits],
                ((lane * maxima + columns_h[hits]) * self._coarse.num_tiles + index).int(),
                (found.view(torch.bfloat16) if as_bits else found).float(),
            )
        return bar_b

    def _put(self, rows: Tensor, items: Tensor, scores: Tensor) -> None:
        """Append to the rows named, which rise; what finds no place is counted only."""
        num_rows, num_places = self._scores_bC.shape
        added_b = torch.bincount(rows, minlength=num_rows)
        before_b = self._count_b - (added_b.cumsum(0) - added_b)
        places = torch.arange(len(rows), device=rows.device) + before_b[rows]
        flat = rows * num_places + places.clamp_(max=num_places - 1)
        self._scores_bC.view(-1)[flat] = scores
        self._items_bC.view(-1)[flat] = items
        self._count_b += added_b

    def listed(self, block: Block, bar_b: Tensor, k: int) -> Found:
        """What can be among the best K, of the queries for which that is proved."""
        proved_b = (self._count_b >= k) & (self._count_b <= self._scores_bC.shape[1])
        scores_bC = self.seen()
        if scores_bC.shape[1] < k:
            nothing = self._count_b[:0]
            return Found(torch.zeros_like(proved_b), nothing, nothing)
        least_b = self._coarse.reach(_nth_best(scores_bC, k), block.slack)
        proved_b &= least_b >= bar_b
        listed_bC = (scores_bC >= least_b.float()[:, None]) & proved_b[:, None]
        rows, places = listed_bC.nonzero().unbind(1)
        return Found(proved_b, rows, self._items_bC[rows, places].long())


def _raised(bar_b: Tensor, seen_bC: Tensor, rank: int, coarse: Coarse, block: Block) -> Tensor:
    """The bar at what reaches the rank-th best score seen, where that is higher than it was."""
    if seen_bC.shape[1] < rank:
        return bar_b
    return torch.maximum(bar_b, coarse.reach(_nth_best(seen_bC, rank), block.slack))


def _nth_best(scores_bC: Tensor, rank: int) -> Tensor:
    return scores_bC.float().topk(rank, dim=1, sorted=False).values.amin(1)


def _places(k: int) -> int:
    """Places a query has for what reaches its bar: about twice K are needed on average."""
    return 8 * k + 512


def _rank(k: int, share: float) -> int:
    """Of how many items seen the K best of all are very probably no more, with K - 1 among them."""
    return math.ceil(k * share + _SPREADS * math.sqrt(k * share))


def _by_tile(
    barred: tuple[Int64, Int64], num_tiles: int, device: torch.device
) -> list[tuple[Tensor, Tensor]]:
    """Rows and places of barred scores, tile by tile."""
    rows, items = (torch.as_tensor(part).to(device) for part in barred)
    order = (items % num_tiles).argsort()
    sizes = torch.bincount(items % num_tiles, minlength=num_tiles).tolist()
    split = (rows[order].split(sizes), (items[order] // num_tiles).split(sizes))
    return list(zip(*split, strict=True))
