"""Prepare again, row by row, with Python numbers and dicts and no code of the pipeline.

What the data rules say, as directly as they can be written; the tests compare it with what
`prepare` wrote.
"""

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from twotower.core.data_config import Data
from twotower.core.seeding import derive

WORD = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(word: int) -> int:
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & WORD
    return word ^ (word >> 31)


def keyed(seed: int, *parts: int) -> int:
    for part in parts:
        seed = mix(((part ^ seed) + GOLDEN) & WORD)
    return seed


def hash_text(text: str) -> int:
    data = text.encode()
    value = mix((len(data) + GOLDEN) & WORD)
    for start in range(0, len(data), 8):
        word = int.from_bytes(data[start : start + 8], "little")
        value = mix(((word ^ value) + GOLDEN) & WORD)
    return value


@dataclass(frozen=True)
class Pair:
    """A distinct pair."""

    weight: int
    time: int | None
    key: int
    row: dict[str, Any]
    """Columns of the row that stands for it."""


@dataclass(frozen=True)
class Slow:
    """What prepared data must hold, by ids."""

    dropped: dict[str, int]
    parts: dict[str, dict[tuple[str, str], Pair]]
    train_full: dict[tuple[str, str], Pair]
    instants: tuple[int, int] | None

    def train_order(self) -> list[tuple[str, str]]:
        """Train pairs in the order of their keys."""
        train = self.parts["train"]
        return sorted(train, key=lambda pair: train[pair].key)

    def newest_first(self, part: str) -> dict[str, list[str]]:
        """Items of each query, newest first, ties by key."""
        found: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
        for (query, item), pair in self.parts[part].items():
            found[query].append((-(pair.time or 0), pair.key, item))
        return {query: [item for _, _, item in sorted(rows)] for query, rows in found.items()}


def read_rows(shards: list[Path]) -> list[tuple[str, int, dict[str, Any]]]:
    """Digest, row number and columns of every row of the log."""
    rows = []
    for path in shards:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        table = pq.read_table(path).to_pylist()
        rows += [(digest, number, row) for number, row in enumerate(table)]
    return rows


def prepare_slowly(
    data: Data, shards: list[Path], catalogue: list[dict[str, Any]], positive: Any = None
) -> Slow:
    """The whole of the data rules for one log."""
    items = {str(row[data.items.id]): row for row in catalogue}
    dropped: dict[str, int] = defaultdict(int)
    seen: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for digest, number, row in read_rows(shards):
        if positive is not None and not positive(row):
            dropped["not_positive"] += 1
            continue
        reason = bad(data, row, items)
        if reason:
            dropped[reason] += 1
            continue
        query, item = str(row[data.interactions.query]), str(row[data.interactions.item])
        key = keyed(derive(data.seed, "rows", digest), number)
        time = row[data.interactions.time] if data.interactions.time else None
        seen[query, item].append(Pair(1, time, key, row))
        if data.undirected:
            seen[item, query].append(Pair(1, time, key ^ 0xD1B54A32D192ED03, row))
    pairs = {ids: merge(rows) for ids, rows in seen.items()}
    of_query = Counter(query for query, _ in pairs)
    for ids in [ids for ids in pairs if of_query[ids[0]] < data.min_query_pairs]:
        dropped["few_pairs"] += pairs.pop(ids).weight
    parts, instants = split(data, pairs, items)
    train = {ids: pairs[ids] for ids, part in parts.items() if part == "train"}
    kept = {ids: pair for ids, pair in train.items() if in_fraction(data, ids)}
    others = {
        name: {ids: pairs[ids] for ids, part in parts.items() if part == name}
        for name in ("validation", "test")
    }
    return Slow(dict(dropped), {"train": kept, **others}, train, instants)


def bad(data: Data, row: dict[str, Any], items: dict[str, Any]) -> str:
    """The first reason why a row can't be used; empty where it can."""
    query, item = row[data.interactions.query], row[data.interactions.item]
    time = data.interactions.time
    reasons = {
        "null_query": query is None,
        "null_item": item is None,
        "unknown_item": str(item) not in items,
        "null_time": time is not None and row[time] is None,
        "unknown_query": data.undirected and str(query) not in items,
        "self_link": data.queries == "items" and query == item,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def merge(rows: list[Pair]) -> Pair:
    first = min(rows, key=lambda pair: (pair.time or 0, pair.key))
    return Pair(sum(pair.weight for pair in rows), first.time, first.key, first.row)


def pair_hash(data: Data, purpose: str, query: str, item: str) -> int:
    ends = [hash_text(query), hash_text(item)]
    if data.undirected:
        ends.sort()
    return keyed(derive(data.seed, purpose), *ends)


def in_fraction(data: Data, ids: tuple[str, str]) -> bool:
    return data.fraction == 1 or pair_hash(data, "fraction", *ids) < int(data.fraction * 2**64)


def by_share(data: Data, value: int) -> str:
    if value < int(data.split.test * 2**64):
        return "test"
    if value < int((data.split.test + data.split.validation) * 2**64):
        return "validation"
    return "train"


def split(
    data: Data, pairs: dict[tuple[str, str], Pair], items: dict[str, Any]
) -> tuple[dict[tuple[str, str], str], tuple[int, int] | None]:
    kind, seed = data.split.kind, derive(data.seed, "split")
    if kind == "random":
        return {ids: by_share(data, pair_hash(data, "split", *ids)) for ids in pairs}, None
    if kind == "by_group":
        return {ids: by_share(data, group_hash(data, ids, items)) for ids in pairs}, None
    if kind == "cold_items":
        found = {}
        for query, item in pairs:
            ends = [item, query] if data.undirected else [item]
            parts = [by_share(data, keyed(seed, hash_text(end))) for end in ends]
            order = ["train", "validation", "test"]
            found[query, item] = max(parts, key=order.index)
        return found, None
    if kind == "time":
        instants = data.split.instants or quantiles(
            data, [pair.time or 0 for pair in pairs.values()]
        )
        return {
            ids: "test"
            if (pair.time or 0) >= instants[1]
            else "validation"
            if (pair.time or 0) >= instants[0]
            else "train"
            for ids, pair in pairs.items()
        }, instants
    if kind == "leave_last":
        return leave_last(data, pairs), None
    return per_query(data, pairs), None


def group_hash(data: Data, ids: tuple[str, str], items: dict[str, Any]) -> int:
    column = data.split.column or ""

    def own(name: str) -> int:
        group = items.get(name, {}).get(column)
        if group is None:
            return mix(hash_text(name) ^ 0x5851F42D4C957F2D)
        return hash_text(str(group))

    ends = sorted(map(own, ids)) if data.queries == "items" else [own(ids[1])]
    return keyed(derive(data.seed, "split"), *ends)


def quantiles(data: Data, times: list[int]) -> tuple[int, int]:
    """Times that leave the shares; exact, so only for logs of fewer distinct times than buckets."""
    distinct = sorted(set(times))
    later = {t: sum(time >= t for time in times) / len(times) for t in distinct}
    test = min(distinct[2:], key=lambda t: abs(later[t] - data.split.test))
    before = distinct[1 : distinct.index(test)]
    wanted = data.split.validation + data.split.test
    return min(before, key=lambda t: abs(later[t] - wanted)), test


def per_query(data: Data, pairs: dict[tuple[str, str], Pair]) -> dict[tuple[str, str], str]:
    by_query: dict[str, list[str]] = defaultdict(list)
    for query, item in pairs:
        by_query[query].append(item)
    found = {}
    for query, own in by_query.items():
        own.sort(key=lambda item: pair_hash(data, "split", query, item))
        draw = (keyed(derive(data.seed, "rounding"), hash_text(query)) >> 11) * 2.0**-53
        held = int(len(own) * (data.split.test + data.split.validation) + draw)
        held = min(held, len(own) - 1)
        test = min(int(len(own) * data.split.test + draw), held)
        for rank, item in enumerate(own):
            part = "test" if rank < test else "validation" if rank < held else "train"
            found[query, item] = part
    return found


def leave_last(data: Data, pairs: dict[tuple[str, str], Pair]) -> dict[tuple[str, str], str]:
    found = dict.fromkeys(pairs, "train")
    for query in {query for query, _ in pairs}:
        own = [ids for ids in pairs if ids[0] == query]
        own.sort(key=lambda ids: (-(pairs[ids].time or 0), pair_hash(data, "split", *ids)))
        if len(own) >= 3:
            found[own[0]], found[own[1]] = "test", "validation"
    return found
