"""A real study small enough for tests: one dataset of synthetic shards, two methods, two seeds."""

from pathlib import Path
from typing import Any

from small_experiment import small_document, write_yaml

TRIALS_ONLY: dict[str, Any] = {"seeds": [], "references": False, "sweeps": {}, "claims": []}


def small_study(folder: Path, /, **changes: Any) -> Path:
    """Write a study and its config under a folder; keys of the study may be replaced."""
    write_yaml(folder / "small.yaml", small_document(folder, rows=1500))
    document: dict[str, Any] = {
        "kind": "study",
        "name": "tiny",
        "title": "A tiny study",
        "folder": str(folder / "out"),
        "seeds": [5, 6],
        "trials": 2,
        "set": {"train.num_epochs": 2},
        "space": {"loss.temperature": {"low": 0.05, "high": 0.5, "scale": "log"}},
        "datasets": {"small": {"config": "small.yaml", "fractions": [1.0, 0.5]}},
        "methods": {
            "baseline": {},
            "cfm": {
                "title": "CFM",
                "set": {"ssl.weight": 0.3, "ssl.masking": "cfm"},
                "space": {"ssl.weight": {"low": 0.03, "high": 3.0, "scale": "log"}},
            },
        },
        "primary": ["recall@10", "tail_recall@10"],
        "sweeps": {
            "weight": {
                "title": "Weight",
                "method": "cfm",
                "path": "ssl.weight",
                "values": [0.1, 1.0],
                "datasets": ["small"],
                "seeds": 1,
            }
        },
        "claims": [
            {
                "claim": "CFM beats the baseline",
                "method": "cfm",
                "against": "baseline",
                "metric": "recall@10",
                "paper": 0.05,
            },
            {
                "claim": "The gain grows",
                "method": "cfm",
                "against": "baseline",
                "metric": "recall@10",
                "fractions": [0.5],
                "grows_from": 1.0,
                "paper_fractions": {"0.5": 0.1},
            },
        ],
    }
    return write_yaml(folder / "study.yaml", {**document, **changes})
