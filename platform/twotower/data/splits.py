"""Which part a distinct pair belongs to: a pure function of the pair, never of rows or files.

Draws are hashes of ids under `data.seed`, so a log that grows keeps the parts of its old pairs
(times and per-query ranks aside), and `data.fraction` doesn't move a pair.

Shape letters:
    P pairs    Q queries
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from twotower.core.data_config import Split
from twotower.core.hashing import UInt64
from twotower.core.seeding import derive
from twotower.core.types import Int64
from twotower.data.columns import Int32
from twotower.data.hashing import below, keyed, symmetric
from twotower.data.rows import lexical_order, run_starts

Parts = NDArray[np.uint8]

TRAIN, VALIDATION, TEST, LEFT_OUT = 0, 1, 2, 3
"""Codes of the parts; LEFT_OUT are train pairs beyond `data.fraction`."""

PARTS: tuple[Literal["train", "validation", "test"], ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class PairIds:
    """What the split may know of pairs."""

    query: Int32
    """int32 ``(P,)``: place in the columns of queries below."""
    query_hash: UInt64
    """uint64 ``(Q,)``."""
    item_hash: UInt64
    """uint64 ``(P,)``."""
    time: Int64 | None
    query_group: UInt64 | None
    """uint64 ``(Q,)``: hash of the query's group; None where queries are no items."""
    item_group: UInt64 | None
    """uint64 ``(P,)``; None unless the split is by group."""


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """The split with all that the data decides."""

    split: Split
    seed: int
    fraction: float
    undirected: bool
    instants: tuple[int, int] | None


def assign(pairs: PairIds, plan: SplitPlan) -> Parts:
    """Part of each pair: uint8 ``(P,)``, one of TRAIN, VALIDATION, TEST, LEFT_OUT.

    Both directions of an undirected edge are in the same part.
    """
    parts = _ASSIGN[plan.split.kind](pairs, plan)
    if plan.fraction < 1:
        kept = below(_pair_hash(pairs, plan, "fraction"), plan.fraction)
        parts[(parts == TRAIN) & ~kept] = LEFT_OUT
    return parts


def _random(pairs: PairIds, plan: SplitPlan) -> Parts:
    return _by_share(_pair_hash(pairs, plan, "split"), plan.split)


def _per_query(pairs: PairIds, plan: SplitPlan) -> Parts:
    """The first pairs of each query in keyed order are its test pairs, the next its validation.

    A query with n pairs has n * share of them on average: the remainder is rounded up for as large
    a share of the queries. One with a single pair keeps it in train, any other at least one.
    """
    number = len(pairs.query_hash)
    order = lexical_order(pairs.query, _pair_hash(pairs, plan, "split"))
    starts = run_starts(pairs.query[order])
    count = np.diff(starts, append=len(order))
    rank = np.arange(len(order)) - np.repeat(starts, count)
    words = keyed(derive(plan.seed, "rounding"), pairs.query_hash) >> np.uint64(11)
    draws = words.astype(np.float64) * 2.0**-53  # uniform in [0, 1)
    sizes = np.bincount(pairs.query, minlength=number)
    test = np.floor(sizes * plan.split.test + draws)
    held = np.floor(sizes * (plan.split.test + plan.split.validation) + draws)
    held = np.minimum(held, np.maximum(sizes - 1, 0))
    query = pairs.query[order]
    parts = np.full(len(order), TRAIN, dtype=np.uint8)
    parts[order[rank < held[query]]] = VALIDATION
    parts[order[rank < np.minimum(test, held)[query]]] = TEST
    return parts


def _leave_last(pairs: PairIds, plan: SplitPlan) -> Parts:
    """The newest pair of each query is its test pair, the one before it its validation pair.

    Pairs of one time are put in keyed order. A query with fewer than three pairs keeps them all in
    train.
    """
    if pairs.time is None:
        raise ValueError("leave_last needs times")
    latest = pairs.time.max(initial=np.iinfo(np.int64).min)
    age = (latest - pairs.time).astype(np.uint64)
    order = lexical_order(pairs.query, age, _pair_hash(pairs, plan, "split"))
    starts = run_starts(pairs.query[order])
    newest = starts[np.diff(starts, append=len(order)) >= len(PARTS)]
    parts = np.full(len(order), TRAIN, dtype=np.uint8)
    parts[order[newest]] = TEST
    parts[order[newest + 1]] = VALIDATION
    return parts


def _by_group(pairs: PairIds, plan: SplitPlan) -> Parts:
    if pairs.item_group is None:
        raise ValueError("a split by group needs the groups of the items")
    seed = derive(plan.seed, "split")
    if pairs.query_group is None:
        return _by_share(keyed(seed, pairs.item_group), plan.split)
    return _by_share(symmetric(seed, pairs.query_group[pairs.query], pairs.item_group), plan.split)


def _time(pairs: PairIds, plan: SplitPlan) -> Parts:
    if pairs.time is None or plan.instants is None:
        raise ValueError("a split by time needs times and instants")
    validation, test = plan.instants
    return (pairs.time >= validation).astype(np.uint8) + (pairs.time >= test).astype(np.uint8)


def _cold_items(pairs: PairIds, plan: SplitPlan) -> Parts:
    """Whole items; an undirected edge goes with the end that is held out further."""
    seed = derive(plan.seed, "split")
    parts = _by_share(keyed(seed, pairs.item_hash), plan.split)
    if plan.undirected:
        ends = _by_share(keyed(seed, pairs.query_hash), plan.split)
        parts = np.maximum(parts, ends[pairs.query])
    return parts


_ASSIGN = {
    "random": _random,
    "per_query": _per_query,
    "by_group": _by_group,
    "time": _time,
    "cold_items": _cold_items,
    "leave_last": _leave_last,
}


def _pair_hash(pairs: PairIds, plan: SplitPlan, purpose: str) -> UInt64:
    seed, query = derive(plan.seed, purpose), pairs.query_hash[pairs.query]
    if plan.undirected:
        return symmetric(seed, query, pairs.item_hash)
    return keyed(seed, query, pairs.item_hash)


def _by_share(hashes: UInt64, split: Split) -> Parts:
    """TEST below its share, VALIDATION below both shares, TRAIN above."""
    parts = np.full(len(hashes), TRAIN, dtype=np.uint8)
    parts[below(hashes, split.test + split.validation)] = VALIDATION
    parts[below(hashes, split.test)] = TEST
    return parts
