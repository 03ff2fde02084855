"""A small valid config for tests that need one and no data behind it."""

from typing import Any

from twotower.core.config import ExperimentConfig
from twotower.core.loading import build_config, with_overrides


def tiny_config(num_features: int = 9, **changes: Any) -> ExperimentConfig:
    """A config of so many categorical item features; `ssl__weight=0` sets ssl.weight."""
    features = {f"f{i}": {"kind": "categorical"} for i in range(num_features)}
    document = {
        "name": "tiny",
        "data": {
            "interactions": {"path": "log"},
            "items": {"path": "items"},
            "queries": "items",
            "features": {"item": features, "query": {"f0": {"kind": "categorical"}}},
        },
        "ssl": {"weight": 1.0},
    }
    config = build_config(document, "tiny")
    return with_overrides(config, {key.replace("__", "."): v for key, v in changes.items()})
