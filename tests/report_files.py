"""Writes the files of runs, a search and a prepared dataset as the platform does, with made-up numbers.

Fit because the page reads nothing but files: tests and screenshots need the shapes and plausible
sizes, not trained models. The numbers are drawn from a fixed seed and mean nothing.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

FEATURES = {
    "package": "categorical",
    "source": "categorical",
    "section": "categorical",
    "architecture": "categorical",
    "maintainer": "categorical",
    "homepage_host": "categorical",
    "tags": "multi",
    "name_words": "multi",
    "summary_words": "multi",
}
PREFIXES = ["", "head_", "torso_", "tail_", "unseen_", "not_head_"]
METRICS = {"recall@50": 1.0, "recall@10": 0.55, "map@10": 0.21, "map@50": 0.24}
BASELINES = {"popularity": 0.093, "content": 0.214, "item_knn": 0.158}
RUNS = {
    "baseline": (0.262, {}),
    "cfm": (0.2815, {"ssl": {"weight": 0.3}}),
    "cfm_tuned": (0.2893, {"ssl": {"weight": 0.82, "mask_rate": 0.375, "dropout_rate": 0.28}}),
}
PROTOCOL = {
    "part": "test",
    "pairs": "9b1f4ad0c2e7",
    "candidates": "51c0de88a1b2",
    "filter": "train and validation positives",
    "ties": "blake2b-64 of the item id",
    "split": "random, seed 0",
    "k": [10, 50],
    "slices": ["head", "torso", "tail", "unseen", "not_head"],
}


def write_demo(root: Path, queries: int = 3800) -> dict[str, Path]:
    """Three runs with baselines, a search and prepared data under ``root``; their places by name."""
    rng = np.random.default_rng(7)
    prepared = write_prepared(root / "prepared" / "debian-5f2c91aa", rng)
    luck = rng.random((3, queries))  # shared by all methods, so paired differences are narrow
    places = {"prepared": prepared}
    for name, (recall, changes) in RUNS.items():
        places[name] = write_run(root / "runs" / f"debian-{name}", prepared, changes)
        write_evaluation(places[name], "test", per_query(luck, recall, rng))
        write_metrics(places[name], recall, rng, ssl=bool(changes))
        if name != "baseline":  # as a run made before there were sizes
            write_json(places[name] / "sizes.json", sizes())
    rows = {n: per_query(luck, recall, rng) for n, recall in BASELINES.items()}
    document = {name: evaluation(table) for name, table in rows.items()}
    folder = places["baseline"] / "evaluation"
    write_json(folder / "baselines.json", document)
    for name, table in rows.items():
        write_table(folder / "baselines" / f"{name}.parquet", table)
    places["search"] = write_search(root / "runs" / "debian-search-0c41b7de", rng)
    return places


def write_run(folder: Path, prepared: Path, changes: dict[str, Any]) -> Path:
    """A run directory's config, record and best point."""
    folder.mkdir(parents=True)
    config = {
        "name": "debian",
        "data": {
            "interactions": {"path": "bundled:debian/interactions"},
            "items": {"path": "bundled:debian/items.parquet"},
            "queries": "items",
            "features": {
                "item": {name: {"kind": kind} for name, kind in FEATURES.items()},
                "query": {name: {"kind": kind, "share": name} for name, kind in FEATURES.items()},
            },
        },
        "loss": {"temperature": 0.05},
        "train": {"num_workers": 2, "num_epochs": 12},
        **changes,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    record = {
        "command": f"twotower train configs/debian.yaml --set ssl.weight={changes.get('ssl', {}).get('weight', 0.0)}",
        "git": {"commit": "4f1c0e6b7d2a95e8831f0b6c2d7e4a9f5b3c8d10"},
        "hardware": {"cpu": "AMD EPYC 7R13 Processor", "cpus": 2, "memory_gib": 7.6},
        "versions": {"python": "3.11.7", "twotower": "0.1.0", "ray": "2.60.0", "torch": "2.13.0"},
        "started": "2026-11-22T09:14:03Z",
        "ended": "2026-11-22T09:15:09Z",
        "exit_reason": "done",
        "restarts": 0,
        "prepared": str(prepared),
        "provenance": {"loss.temperature": "debian.yaml", "ssl.weight": "--set"},
        "stages": [
            {"name": "train", "seconds": 51.3 + 30 * bool(changes), "peak_memory_mb": 1410.0},
            {"name": "evaluate", "seconds": 6.4, "peak_memory_mb": 1120.0},
        ],
    }
    write_json(folder / "record.json", record)
    write_json(folder / "best.json", {"step": 451, "epoch": 11, "metric": "recall@50"})
    return folder


def write_metrics(folder: Path, recall: float, rng: np.random.Generator, *, ssl: bool) -> None:
    """metrics.jsonl: train points every fifth step, validation once an epoch."""
    lines: list[dict[str, Any]] = []
    for step in range(5, 12 * 41 + 1, 5):
        epoch = step / 41
        main = 5.9 * np.exp(-epoch / 4) + 1.1 + rng.normal(0, 0.06)
        point = {"kind": "train", "step": step, "epoch": epoch, "main": main, "loss": main}
        point |= {"rows_per_s": 9400 + rng.normal(0, 400), "step_s": 0.105, "data_wait_s": 0.002}
        if ssl:
            point["ssl"] = 4.2 * np.exp(-epoch / 3) + 0.4 + rng.normal(0, 0.05)
        lines.append(point)
    for epoch in range(1, 13):
        value = recall * (1.01 - np.exp(-epoch / 2.6)) + rng.normal(0, 0.001)
        point = {"kind": "validation", "step": epoch * 41, "epoch": epoch, "recall@50": value}
        lines.append(point)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)


def sizes() -> dict[str, Any]:
    """sizes.json of a run with one table of codes."""
    tables = {
        "item.package": {"kind": "dpq", "values": 63668, "bytes": 577136, "full_bytes": 8149504},
        "item.section": {"kind": "full", "values": 62, "bytes": 7936, "full_bytes": 7936},
    }
    return {
        "tables": tables,
        "table_bytes": 585072,
        "full_table_bytes": 8157440,
        "dense_bytes": 412000,
    }


def write_search(folder: Path, rng: np.random.Generator, count: int = 16) -> Path:
    """search.json of a TPE search with early stops and one failure."""
    trials: list[dict[str, Any]] = []
    for number in range(count):
        near = min(number / 12, 1.0)
        weight = float(np.exp(rng.normal(np.log(0.8), 1.3 - near)))
        masked = int(np.clip(round(rng.normal(3, 2 - near)), 1, 7))
        dropout = float(np.clip(rng.normal(0.3, 0.25 - 0.12 * near), 0.02, 0.85))
        value = 0.2925 - 0.006 * np.log(weight / 0.8) ** 2 - 0.0018 * (masked - 3) ** 2
        value -= 0.03 * (dropout - 0.3) ** 2 - rng.normal(0, 0.0012)
        epochs = 12 if number % 3 or number < 3 else 4
        curve = [[e, value * (1.01 - np.exp(-e / 2.2))] for e in range(1, epochs + 1)]
        params: dict[str, Any] = {
            "ssl.weight": weight,
            "ssl.mask_rate": masked / 8,
            "ssl.dropout_rate": dropout,
        }
        params["ssl.masking"] = "cfm" if number % 4 else "rfm"
        trial = {"number": number, "params": params, "value": curve[-1][1], "curve": curve}
        trial |= {"state": "complete" if epochs == 12 else "pruned", "epochs": epochs}
        trials.append(trial | {"seconds": 2.9 * epochs, "error": None})
    trials[5] |= {"state": "failed", "value": None, "curve": [], "error": "loss is not finite"}
    best = max((t for t in trials if t["value"]), key=lambda t: t["value"])
    document = {
        "metric": "recall@50",
        "part": "validation",
        "sampler": "TPE",
        "scheduler": "ASHA",
        "seconds": 263.0,
        "space": {
            "ssl.weight": {"kind": "float", "low": 0.05, "high": 5.0, "log": True},
            "ssl.mask_rate": {"kind": "float", "low": 0.1, "high": 0.9},
            "ssl.dropout_rate": {"kind": "float", "low": 0.0, "high": 0.9},
            "ssl.masking": {"kind": "choice", "choices": ["cfm", "rfm"]},
        },
        "trials": trials,
        "total": count,
        "best": best["number"],
        "importances": {
            "ssl.weight": 0.58,
            "ssl.mask_rate": 0.27,
            "ssl.dropout_rate": 0.1,
            "ssl.masking": 0.05,
        },
        "winner": "runs/debian-search-0c41b7de/best.yaml",
    }
    write_json(folder / "search.json", document)
    return folder


def write_prepared(folder: Path, rng: np.random.Generator) -> Path:
    """profile.json, mi.json and manifest.json of a prepared dataset, and the record beside it."""
    profile = {
        "counts": {
            "log_rows": 52431,
            "used_rows": 52412,
            "pairs": 52012,
            "train": 41610,
            "validation": 5201,
            "test": 5201,
            "train_full": 41610,
            "items": 63666,
            "queries": 57055,
        },
        "empty_shards": {"interactions": 0, "items": 0},
        "dropped": {"unknown_item": 12, "self_link": 7},
        "dropped_share": 0.00023,
        "repeats_share": 0.0076,
        "parts": {
            "train": {"pairs": 41610, "rows": 41930, "queries": 16020, "items": 11207},
            "validation": {"pairs": 5201, "rows": 5240, "queries": 3820, "items": 3105},
            "test": {"pairs": 5201, "rows": 5242, "queries": 3800, "items": 3099},
        },
        "item_degrees": degrees(rng, 63666),
        "query_degrees": degrees(rng, 57055),
        "leaks": {
            "test_pairs_reverse_in_train": 0.0412,
            "reverses_looked_for": 5201,
            "reverse_sample_share": 1.0,
        },
        "unseen": {
            "test_pairs_item_not_in_train": 0.1848,
            "test_pairs_query_not_in_train": 0.2846,
            "test_queries_not_in_train": 0.3121,
        },
        "rows_without_features": {"items": 0},
        "features": {"item": {name: feature(i) for i, name in enumerate(FEATURES)}},
    }
    write_json(folder / "profile.json", profile)
    entropy = [11.07, 10.1, 3.1, 0.69, 6.4, 3.9, 5.5, 8.2, 8.8]
    size = len(FEATURES)
    raw = [
        [
            entropy[i] if i == j else min(entropy[i], entropy[j]) * (0.99 if 0 in (i, j) else 0.55)
            for j in range(size)
        ]
        for i in range(size)
    ]
    normalised = [
        [1.0 if i == j else 0.08 + 0.09 * ((i + j) % 7) for j in range(size)] for i in range(size)
    ]
    information = {"features": list(FEATURES), "raw": raw, "normalised": normalised}
    write_json(folder / "mi.json", information | {"entropy": entropy})
    manifest = {"fingerprint": "5f2c91aa", "lanes": 64, "counts": profile["counts"]}
    write_json(folder / "manifest.json", manifest | {"dropped": profile["dropped"]})
    seconds = {"inspect": 1.1, "read": 6.1, "merge": 2.3, "split": 3.4, "write": 4.2, "all": 17.1}
    write_json(folder.with_name(f"{folder.name}.record.json"), {"seconds": seconds})
    return folder


def degrees(rng: np.random.Generator, total: int) -> dict[str, Any]:
    """Degrees of a power law in bins that double, as the profile has them."""
    values = np.minimum(rng.zipf(1.9, total) - (rng.random(total) < 0.5), 4000)
    edges = [0, *(1 << power for power in range(13))]
    counts, _ = np.histogram(values, bins=edges)
    bins = zip(edges, edges[1:], counts.tolist(), strict=False)
    return {
        "histogram": [{"low": low, "high": high, "count": n} for low, high, n in bins if n],
        "mean": 4.1,
        "median": 1.0,
        "max": int(values.max()),
        "with_pairs": int((values > 0).sum()),
        "top_1_percent": 0.342,
        "top_10_percent": 0.688,
    }


def feature(place: int) -> dict[str, Any]:
    """What the profile says of the feature at a place."""
    return {
        "vocab_size": 40 * (place + 1) ** 3 + 2,
        "distinct": 40 * (place + 1) ** 3,
        "kept": 40 * (place + 1) ** 3,
        "missing_share": 0.01 * place,
        "mean_values": 1.0 + place / 4,
        "outside_share": 0.002 * place,
    }


def per_query(luck: np.ndarray, recall: float, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Per-query columns of a method whose recall@50 is about ``recall`` over all queries.

    Args:
        luck: ``(3, Q)`` uniform draws that methods share: how hard a query is, its slice, its rank.
        recall: mean over slices.
        rng: the method's own noise.
    """
    hardness, place, rank = luck
    own = rng.random(len(hardness)) < 0.12
    hardness = np.where(own, rng.random(len(hardness)), hardness)
    part = np.searchsorted([0.42, 0.69, 0.88], place)  # head, torso, tail, unseen
    hit = hardness < recall * np.array([1.3, 0.95, 0.72, 0.45])[part]
    columns = {"query": np.arange(len(hardness)) * 3}
    for prefix in PREFIXES:
        member = np.full(len(hardness), True)
        if prefix:
            member = part > 0 if prefix == "not_head_" else part == PREFIXES.index(prefix) - 1
        for metric, share in METRICS.items():
            columns[prefix + metric] = np.where(member, hit * (rank < share), np.nan)
    return columns


def evaluation(columns: dict[str, np.ndarray]) -> dict[str, Any]:
    """test.json's document of per-query columns."""
    summary: dict[str, Any] = {}
    for key, values in columns.items():
        if key == "query":
            continue
        kept = values[~np.isnan(values)]
        mean, half = kept.mean(), 1.96 * kept.std() / np.sqrt(len(kept))
        summary[key] = {"value": mean, "low": mean - half, "high": mean + half, "n": len(kept)}
    summary["coverage@10"] = {"value": 0.31, "low": None, "high": None, "n": None}
    subject = {"checkpoint": "step-00000451", "seed": 0, "fraction": 1.0}
    return {"summary": summary, "certificate": {"protocol": PROTOCOL, "subject": subject}}


def write_evaluation(folder: Path, part: str, columns: dict[str, np.ndarray]) -> None:
    """evaluation/<part>.json and .parquet of a run."""
    write_json(folder / "evaluation" / f"{part}.json", evaluation(columns))
    write_table(folder / "evaluation" / f"{part}.parquet", columns)


def write_table(path: Path, columns: dict[str, np.ndarray]) -> None:
    """A Parquet file of NumPy columns; NaN stays NaN."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), path)


def write_json(path: Path, value: Any) -> None:
    """A JSON file, folders made on the way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1))
