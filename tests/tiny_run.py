"""A tiny prepared dataset and the config that trains on it, for tests of the loop and the runtime."""

import json
from pathlib import Path
from typing import Any

from prepared_fixture import FEATURES, Shape, write_prepared
from twotower.core.config import ExperimentConfig
from twotower.core.loading import build_config, with_overrides
from twotower.data.prepared import Prepared


def tiny_run(folder: Path, **changes: Any) -> tuple[ExperimentConfig, Prepared]:
    """Write a dataset of 200 train rows under ``folder``; `ssl__weight=0` sets ssl.weight.

    Thirteen steps an epoch, two epochs. The model has every kind of feature, a history, SSL with
    correlated masks, streaming logQ and mixed negatives, so that a resume has much to lose.
    """
    data = folder / "data"
    write_prepared(data, Shape())
    manifest = json.loads((data / "manifest.json").read_text())
    manifest["digests"] = {"validation_pairs": "v", "test_pairs": "t", "candidates": "c"}
    (data / "manifest.json").write_text(json.dumps(manifest))
    document = {
        "name": "tiny",
        "data": {
            "interactions": {"path": "log", "time": "time"},
            "items": {"path": "items"},
            "features": FEATURES,
            "lanes": 4,
        },
        "model": {"embed_dim": 8, "hidden": [16], "out_dim": 8},
        "loss": {"logq": "streaming", "mixed_negatives": 8},
        "ssl": {"weight": 0.5},
        "train": {
            "batch_size": 16,
            "num_epochs": 2,
            "checkpoint_every": 5,
            "log_every": 4,
            "threads": 1,
        },
        "eval": {"k": [2, 5], "select": "recall@5"},
        "storage": {"runs": str(folder / "runs"), "prepared": str(folder)},
        "cluster": {"num_cpus": 2, "object_store_mb": 100},
    }
    config = build_config(document, "tiny")
    changed = with_overrides(config, {key.replace("__", "."): v for key, v in changes.items()})
    return changed, Prepared.open(data)
