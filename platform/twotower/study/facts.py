"""What a study's page says of its data."""

from collections.abc import Mapping
from typing import Any

from twotower.core.config import ExperimentConfig
from twotower.data.prepared import Prepared
from twotower.study.task import task_of


def facts(at: tuple[str, float], prepared: Prepared, config: ExperimentConfig) -> dict[str, Any]:
    """Sizes and features of a dataset at a fraction: an entry of `datasets`."""
    profile = prepared.store.read_json("profile.json")
    counts, known = profile["counts"], profile["features"]
    return {
        "name": at[0],
        "fraction": at[1],
        "task": task_of(config),
        "facts": {
            "items": counts["items"],
            "queries": counts["queries"],
            "train_pairs": counts["train"],
            "test_pairs": counts["test"],
            "share_of_test_pairs_of_unseen_items": profile["unseen"][
                "test_pairs_item_not_in_train"
            ],
        },
        "features": [
            {
                "name": f"{side} {name}",
                "kind": feature.kind,
                "distinct": known.get(side, {}).get(name, {}).get("distinct"),
                "filled": _filled(known.get(side, {}).get(name, {})),
            }
            for side in ("item", "query", "context")
            for name, feature in getattr(config.data.features, side).items()
        ],
    }


def _filled(facts: Mapping[str, Any]) -> float | None:
    missing = facts.get("missing_share")
    return None if missing is None else 1 - missing
