"""The whole of prepare, without Ray, against the row-by-row version."""

import hashlib
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from prepare_serial import make_config, make_log, open_prepared, prepare_serially
from prepare_slow import Slow, prepare_slowly
from twotower.core.config import ExperimentConfig, Storage
from twotower.data import dedupe, exchange, plans
from twotower.data.prepared import Part, Prepared

CASES: dict[str, dict[str, Any]] = {
    "random": {},
    "fraction": {"fraction": 0.4, "seed": 5},
    "per_query": {"split": {"kind": "per_query", "validation": 0.15, "test": 0.2}},
    "time": {"split": {"kind": "time", "validation": 0.1, "test": 0.1}},
    "leave_last": {"split": {"kind": "leave_last"}, "fraction": 0.6},
    "few_pairs": {"min_query_pairs": 13, "split": {"kind": "time"}},
    "instants": {"split": {"kind": "time", "instants": [1300, 1350]}},
    "cold_items": {"split": {"kind": "cold_items", "validation": 0.2, "test": 0.2}},
    "by_group": {"split": {"kind": "by_group", "column": "maker", "validation": 0.2, "test": 0.2}},
    "positive": {"positive": "rating >= 4 AND device = 'phone'"},
    "graph": {"queries": "items"},
    "graph_by_group": {
        "queries": "items",
        "split": {"kind": "by_group", "column": "maker", "validation": 0.2, "test": 0.2},
    },
    "undirected": {"queries": "items", "undirected": True, "fraction": 0.7},
    "undirected_cold": {
        "queries": "items",
        "undirected": True,
        "split": {"kind": "cold_items", "validation": 0.2, "test": 0.2},
    },
    "undirected_by_group": {
        "queries": "items",
        "undirected": True,
        "split": {"kind": "by_group", "column": "maker", "validation": 0.2, "test": 0.2},
    },
    "undirected_time": {
        "queries": "items",
        "undirected": True,
        "split": {"kind": "time", "validation": 0.2, "test": 0.2},
    },
}
PARTS: tuple[Part, ...] = ("train", "validation", "test")


def prepare_both(folder: Path, case: dict[str, Any]) -> tuple[ExperimentConfig, Prepared, Slow]:
    shards = make_log(folder, queries_are_items="queries" in case, bad=True)
    config = make_config(folder, **case)
    catalogue = pq.read_table(folder / "items.parquet").to_pylist()
    positive = None
    if config.data.positive:
        positive = lambda row: row["rating"] >= 4 and row["device"] == "phone"  # noqa: E731
    return config, open_prepared(config), prepare_slowly(config.data, shards, catalogue, positive)


@pytest.fixture(params=["whole", "cut"])
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small logs as they are, or cut into as many pieces as large ones are."""
    if request.param == "cut":
        monkeypatch.setattr(plans, "PART_ROWS", 64)
        monkeypatch.setattr(plans, "TASK_ROWS", 150)
        monkeypatch.setattr(plans, "_LANE_ROWS", 12)
        monkeypatch.setattr(exchange, "SLICE_ROWS", 70)
        monkeypatch.setattr(dedupe, "_CHUNK_ROWS", 40)


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("name", CASES)
def test_equals_the_slow_version(name: str, tmp_path: Path) -> None:
    config, prepared, slow = prepare_both(tmp_path, CASES[name])
    items, queries = prepared.item_ids(), prepared.query_ids()
    assert prepared.manifest["dropped"] == slow.dropped
    if slow.instants:
        assert tuple(prepared.manifest["split"]["instants"]) == slow.instants
    for part in PARTS:
        pairs = prepared.pairs(part)
        assert pairs.time is not None
        found = {
            (queries[q], items[i]): (w, t)
            for q, i, w, t in zip(pairs.query, pairs.item, pairs.weight, pairs.time, strict=True)
        }
        expected = {ids: (pair.weight, pair.time) for ids, pair in slow.parts[part].items()}
        assert found == expected
        positives = prepared.positives(part)
        lists = {
            queries[q]: items[positives.row(q)].tolist()
            for q in range(prepared.num_queries)
            if len(positives.row(q))
        }
        assert lists == slow.newest_first(part)
    assert list(items) == sorted(items)
    assert set(queries) == {q for part in [*slow.parts.values(), slow.train_full] for q, _ in part}
    own = {item: row for row, item in enumerate(items)}
    if config.data.queries == "items":
        assert prepared.query_items().tolist() == [own[q] for q in queries]
    else:
        assert (prepared.query_items() == -1).all()
    counts = Counter(item for _, item in slow.parts["train"])
    full = Counter(item for _, item in slow.train_full)
    assert prepared.item_counts().tolist() == [counts[item] for item in items]
    assert prepared.item_full_counts().tolist() == [full[item] for item in items]


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("name", ["random", "undirected", "fraction"])
def test_train_rows_are_in_keyed_order_by_lane(name: str, tmp_path: Path) -> None:
    _, prepared, slow = prepare_both(tmp_path, CASES[name])
    items, queries = prepared.item_ids(), prepared.query_ids()
    vocabulary = pq.read_table(prepared.store.local_path("vocab/context.device.parquet"))
    ids = dict(zip(vocabulary["value"].to_pylist(), vocabulary["id"].to_pylist(), strict=True))
    order = slow.train_order()
    assert prepared.num_train == len(order)
    for bucket, lane in product(prepared.buckets, range(4)):
        columns = prepared.read_bucket(bucket, np.array([lane]))
        rows = zip(columns["query"], columns["item"], strict=True)
        last = bucket.first + bucket.rows
        expected = [order[p] for p in range(bucket.first, last) if p % 4 == lane]
        assert [(queries[q], items[i]) for q, i in rows] == expected
        own = [slow.parts["train"][pair] for pair in expected]
        assert columns["weight"].tolist() == [pair.weight for pair in own]
        assert columns["c.device"].tolist() == [ids.get(pair.row["device"], 0) for pair in own]


@pytest.mark.parametrize("timed", [True, False])
def test_history_from_counts_what_is_not_older(timed: bool, tmp_path: Path) -> None:
    make_log(tmp_path)
    config = make_config(tmp_path)
    section = config.data.model_dump(mode="json")
    section["features"]["query"]["past"] = {"kind": "history", "share": "item_id"}
    if not timed:
        section["interactions"]["time"] = None
    prepared = open_prepared(make_config(tmp_path, **section))
    pairs = prepared.pairs("train")
    by_query: dict[int, dict[int, int]] = {}
    for n, (query, item) in enumerate(zip(pairs.query, pairs.item, strict=True)):
        by_query.setdefault(query, {})[item] = pairs.time[n] if pairs.time is not None else 0
    (bucket,) = prepared.buckets
    columns = prepared.read_bucket(bucket, np.arange(4))
    for query, item, start in zip(
        columns["query"], columns["item"], columns["history_from"], strict=True
    ):
        times = by_query[query]
        newer = sum(time >= times[item] for time in times.values()) if timed else 0
        assert start == newer


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("name", ["fraction", "undirected", "time", "per_query"])
def test_same_bytes_however_the_work_is_cut(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = make_log(tmp_path, queries_are_items="queries" in CASES[name], bad=True)
    monkeypatch.setattr(plans, "PART_ROWS", 100)
    monkeypatch.setattr(plans, "_LANE_ROWS", 12)
    config = make_config(tmp_path, **CASES[name])
    first = contents(Path(prepare_serially(config, 0).path))
    for n, path in enumerate(shards):  # the same bytes under other names, in another order
        path.rename(path.with_name(f"x-{9 - n}.parquet"))
    monkeypatch.setattr(plans, "TASK_ROWS", 130)
    monkeypatch.setattr(exchange, "SLICE_ROWS", 37)
    monkeypatch.setattr(dedupe, "_CHUNK_ROWS", 11)
    other = config.model_copy(update={"storage": Storage(prepared=str(tmp_path / "other"))})
    result = prepare_serially(other, 1)
    assert contents(Path(result.path)) == first
    assert not result.reused
    assert len(first) > 20
