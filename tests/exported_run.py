"""A small real run with every kind of feature, trained without Ray, to export."""

from pathlib import Path
from typing import Any

from prepare_serial import open_prepared
from twotower.core.config import ExperimentConfig
from twotower.core.loading import build_config
from twotower.datasets.synthetic import write_synthetic
from twotower.runtime.reference import train_reference
from twotower.runtime.run_folder import RunFolder


def run_document(folder: Path, *, history: str = "mean", shared: bool = True) -> dict[str, Any]:
    """Write shards once under a folder; a config over them.

    Items and queries have single, multiple, numeric, hashed and shared features; queries have a
    history, the log has a country.
    """
    data = folder / "data"
    if not data.exists():
        write_synthetic(data, rows=3000, queries=200, items=120, shards=2, seed=1, clusters=8)
    return {
        "name": "small",
        "data": {
            "interactions": {"path": str(data / "interactions"), "time": "ts"},
            "items": {"path": str(data / "items.parquet")},
            "queries": {"path": str(data / "queries.parquet"), "id": "query_id"},
            "features": {
                "item": {
                    "item_id": {"kind": "categorical"},
                    "label": {"kind": "categorical", "column": "category"},
                    "brand": {"kind": "categorical", "min_count": 2, "hash_buckets": 5},
                    "tags": {"kind": "multi", "max_values": 2},
                    "words": {"kind": "multi", "min_count": 3, "hash_buckets": 7},
                    "price": {"kind": "dense"},
                },
                "query": {
                    "query_id": {"kind": "categorical", "min_count": 3},
                    "segment": {"kind": "categorical"},
                    "interests": {"kind": "multi", "share": "tags"},
                    "past": {"kind": "history", "share": "item_id", "max_values": 4},
                },
                "context": {"country": {"kind": "categorical", "min_count": 20}},
            },
            "lanes": 8,
        },
        "model": {
            "embed_dim": 8,
            "hidden": [16],
            "out_dim": 8,
            "history": history,
            "shared_tables": shared,
        },
        "train": {"batch_size": 256, "num_epochs": 2, "device": "cpu"},
        "eval": {"k": [5, 10], "select": "recall@10"},
        "storage": {"runs": str(folder / "runs"), "prepared": str(folder / "prepared")},
    }


def trained(document: dict[str, Any] | ExperimentConfig) -> tuple[ExperimentConfig, Path]:
    """Prepare and train a document or config; the config and the run directory."""
    config = build_config(document, "small") if isinstance(document, dict) else document
    prepared = open_prepared(config)
    folder = RunFolder(config)
    folder.begin(prepared, None)
    train_reference(config, prepared, store=folder.store)
    folder.end("done", "done")
    return config, folder.store.local_path()
