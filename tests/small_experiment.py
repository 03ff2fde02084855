"""A real experiment small enough for tests: synthetic shards on disk and a config over them."""

from pathlib import Path
from typing import Any

import yaml

from twotower.datasets.synthetic import write_synthetic

SPACE = {
    "ssl.weight": {"low": 0.03, "high": 3.0, "scale": "log"},
    "ssl.mask_rate": {"low": 0.1, "high": 0.9},
    "train.learning_rate": {"low": 0.01, "high": 0.3, "scale": "log"},
}


def small_document(folder: Path, rows: int = 3000) -> dict[str, Any]:
    """Write the shards once under a folder; returns a config document (YAML form) over them."""
    data = folder / "data"
    if not data.exists():
        write_synthetic(data, rows=rows, queries=200, items=120, shards=2, seed=1, clusters=8)
    return {
        "name": "small",
        "data": {
            "interactions": {"path": str(data / "interactions"), "time": "ts"},
            "items": {"path": str(data / "items.parquet")},
            "queries": {"path": str(data / "queries.parquet"), "id": "query_id"},
            "features": {
                "item": {
                    "item_id": {"kind": "categorical"},
                    "category": {"kind": "categorical"},
                    "brand": {"kind": "categorical"},
                    "tags": {"kind": "multi"},
                },
                "query": {
                    "query_id": {"kind": "categorical"},
                    "segment": {"kind": "categorical"},
                },
            },
            "lanes": 8,
        },
        "model": {"embed_dim": 8, "hidden": [16], "out_dim": 8},
        "train": {"batch_size": 256, "num_epochs": 4, "device": "cpu"},
        "eval": {"k": [5, 10], "select": "recall@10"},
        "storage": {"runs": str(folder / "runs"), "prepared": str(folder / "prepared")},
        "cluster": {"num_cpus": 2, "object_store_mb": 100},
    }


def write_yaml(path: Path, document: Any) -> Path:
    """Write a document as YAML; returns the path."""
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path
