"""The data profile: what to know of the data before believing a number made from it."""

from dataclasses import dataclass
from typing import Any

from twotower.core.data_config import Data
from twotower.data.counts import Files, MergeCounts, ReadCounts, SplitCounts
from twotower.data.schema import SourceName
from twotower.data.sources import Inspected
from twotower.data.splits import LEFT_OUT, PARTS, TEST, TRAIN
from twotower.data.statistics import describe_degrees, ratio


@dataclass(frozen=True, slots=True)
class Measured:
    """All counts of a preparation."""

    sources: dict[SourceName, list[Inspected]]
    read: ReadCounts
    merged: MergeCounts
    split: SplitCounts
    files: Files
    reverse_share: float


def count_all(measured: Measured) -> dict[str, int]:
    """Sizes of the dataset, for the manifest."""
    pairs, read = measured.split.pairs, measured.read
    return {
        "log_rows": read.rows,
        "used_rows": read.rows - sum(read.dropped.values()),
        "pairs": measured.merged.pairs,
        **{part: int(pairs[code]) for code, part in enumerate(PARTS)},
        "train_full": int(pairs[TRAIN] + pairs[LEFT_OUT]),
        "items": measured.split.items.shape[1],
        "queries": measured.split.queries.shape[1],
    }


def build_profile(measured: Measured, data: Data) -> dict[str, Any]:
    """The profile, of integers and floats that depend on the data only."""
    split, read, merged = measured.split, measured.read, measured.merged
    full = split.items[TRAIN] + split.items[LEFT_OUT]
    by_query = split.queries[TRAIN] + split.queries[LEFT_OUT]
    return {
        "counts": count_all(measured),
        "empty_shards": {
            name: sum(not shard.rows for shard in shards)
            for name, shards in measured.sources.items()
        },
        "dropped": read.dropped,
        "dropped_share": ratio(read.bad, read.rows),
        "repeats_share": ratio(merged.rows - merged.pairs, merged.rows),
        "parts": {
            part: {
                "pairs": int(split.pairs[code]),
                "rows": int(split.rows[code]),
                "queries": int((split.queries[code] > 0).sum()),
                "items": int((split.items[code] > 0).sum()),
            }
            for code, part in enumerate(PARTS)
        },
        "item_degrees": describe_degrees(full),
        "query_degrees": describe_degrees(by_query),
        "leaks": _leaks(measured, data),
        "unseen": {
            "test_pairs_item_not_in_train": ratio(
                int(split.items[TEST][full == 0].sum()), int(split.pairs[TEST])
            ),
            "test_pairs_query_not_in_train": ratio(
                int(split.queries[TEST][by_query == 0].sum()), int(split.pairs[TEST])
            ),
            "test_queries_not_in_train": ratio(
                int(((split.queries[TEST] > 0) & (by_query == 0)).sum()),
                int((split.queries[TEST] > 0).sum()),
            ),
        },
        "rows_without_features": measured.files.missing_rows,
        "features": measured.files.features,
    }


def _leaks(measured: Measured, data: Data) -> dict[str, Any]:
    """Test pairs whose reverse is a train pair; only where queries are items."""
    if data.queries != "items":
        return {}
    looked_for = len(measured.split.reverses)
    return {
        "test_pairs_reverse_in_train": ratio(measured.files.reverses_found, looked_for),
        "reverses_looked_for": looked_for,
        "reverse_sample_share": measured.reverse_share,
    }


def table_sizes(data: Data, features: dict[str, dict[str, dict[str, Any]]]) -> dict[str, int]:
    """Ids of each embedding table; a feature that shares an item feature's has none of its own."""
    declared = {
        "item": data.features.item,
        "query": data.features.query,
        "context": data.features.context,
    }
    return {
        f"{side}.{name}": int(features[side][name]["vocab_size"])
        for side, own in declared.items()
        for name, feature in own.items()
        if feature.share is None and feature.kind != "dense"
    }
