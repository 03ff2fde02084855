"""What the page says of the prepared data, from its profile."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twotower.core.config import ExperimentConfig
from twotower.report.content import Dataset
from twotower.report.folder import as_number
from twotower.report.formats import integer, percent

_COUNTS = {
    "log_rows": "rows of the log",
    "pairs": "distinct pairs",
    "train": "train",
    "validation": "validation",
    "test": "test",
    "items": "items",
    "queries": "queries",
}

_REASONS = {
    "null_query": "no query id",
    "null_item": "no item id",
    "null_time": "no time",
    "unknown_query": "query not in its table",
    "unknown_item": "item not in the catalogue",
    "self_link": "links itself",
    "not_positive": "not positive",
    "few_pairs": "of a query with too few pairs",
}


@dataclass(frozen=True, slots=True)
class Fact:
    """Something to know before believing a number."""

    label: str
    value: str
    remark: str = ""


def count_facts(dataset: Dataset) -> list[Fact]:
    """Sizes of the data, those that its profile has."""
    counts = dataset.profile.get("counts") or {}
    return [
        Fact(label, integer(value))
        for key, label in _COUNTS.items()
        if (value := as_number(counts.get(key))) is not None
    ]


def part_rows(dataset: Dataset) -> list[list[str]]:
    """Part, pairs, queries and items of the split."""
    parts: Mapping[str, Any] = dataset.profile.get("parts") or {}
    return [
        [name, *(_count(parts[name], key) for key in ("pairs", "queries", "items"))]
        for name in ("train", "validation", "test")
        if name in parts
    ]


def quality_facts(dataset: Dataset) -> list[Fact]:
    """Rows left out, repeats, leaks, and what test asks that training never saw."""
    profile = dataset.profile
    dropped: Mapping[str, Any] = profile.get("dropped") or {}
    facts: list[Fact] = []
    if "dropped" in profile:
        rows = sum(int(number) for number in dropped.values())
        told = ", ".join(f"{integer(n)} {_REASONS.get(k, k)}" for k, n in dropped.items() if n)
        facts.append(Fact("rows of the log left out", integer(rows), told))
    shares = {
        "repeats_share": ("rows that repeat a pair", "one pair with a weight"),
        **_leak_labels(profile.get("leaks") or {}),
        "test_pairs_item_not_in_train": ("test pairs whose item has no train pair", ""),
        "test_pairs_query_not_in_train": ("test pairs whose query has no train pair", ""),
        "test_queries_not_in_train": ("test queries without a train pair", ""),
    }
    known = {**profile, **(profile.get("leaks") or {}), **(profile.get("unseen") or {})}
    for key, (label, remark) in shares.items():
        share = as_number(known.get(key))
        if share is not None:
            facts.append(Fact(label, percent(share), remark))
    return facts


def _leak_labels(leaks: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    sample = as_number(leaks.get("reverse_sample_share"))
    remark = "a leak where links go both ways"
    if sample is not None and sample < 1:
        remark += f"; looked for in a sample of {percent(sample)}"
    return {"test_pairs_reverse_in_train": ("test pairs whose reverse is in train", remark)}


def tail(dataset: Dataset, side: str) -> list[tuple[float, float]]:
    """Points of the popularity curve of ``item`` or ``query``.

    Returns:
        (n, share of those with at least one train pair that have at least n), n rising: at the
        lower ends of the profile's bins. Empty where the profile has no such degrees.
    """
    bins: Sequence[Mapping[str, Any]] = _degrees(dataset, side).get("histogram") or ()
    used = [(float(b["low"]), float(b["count"])) for b in bins if b["low"] > 0]
    total = sum(count for _, count in used)
    points: list[tuple[float, float]] = []
    above = total
    for low, count in sorted(used):
        points.append((low, above / total))
        above -= count
    return points


def head_sentence(dataset: Dataset) -> str:
    """How much of the train pairs the most frequent items hold; empty where it isn't known."""
    degrees = _degrees(dataset, "item")
    one, ten = as_number(degrees.get("top_1_percent")), as_number(degrees.get("top_10_percent"))
    if one is None or ten is None:
        return ""
    return (
        f"The most frequent 1 % of the items hold {percent(one)} of the train pairs, the most "
        f"frequent 10 % hold {percent(ten)}."
    )


def feature_rows(config: ExperimentConfig | None, dataset: Dataset | None) -> list[list[str]]:
    """Features of both towers.

    Returns:
        Side, name, kind, distinct values (or whose vocabulary it shares), share of rows without a
        value, share of values outside the vocabulary, values a row; empty where it isn't known.
    """
    if config is None:
        return []
    known: Mapping[str, Any] = {} if dataset is None else dataset.profile.get("features") or {}
    rows: list[list[str]] = []
    for side in ("item", "query", "context"):
        for name, feature in getattr(config.data.features, side).items():
            facts = (known.get(side) or {}).get(name) or {}
            distinct = _count(facts, "distinct")
            if feature.share:
                distinct = f"{distinct} (ids of item {feature.share})".strip()
            mean = as_number(facts.get("mean_values"))
            values = f"{mean:.1f}" if mean is not None and feature.kind == "multi" else ""
            shares = (_share(facts, key) for key in ("missing_share", "outside_share"))
            rows.append([side, name, feature.kind, distinct, *shares, values])
    return rows


def _degrees(dataset: Dataset, side: str) -> Mapping[str, Any]:
    return dataset.profile.get(f"{side}_degrees") or {}


def _count(document: Mapping[str, Any], key: str) -> str:
    value = as_number(document.get(key))
    return integer(value) if value is not None else ""


def _share(document: Mapping[str, Any], key: str) -> str:
    value = as_number(document.get(key))
    return percent(value) if value is not None else ""
