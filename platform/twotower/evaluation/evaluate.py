"""From a scorer and the truth to metrics with intervals, and the certificate they go with.

Shape letters:
    Q evaluated queries    N items    K largest cut-off
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twotower.core.config import Eval
from twotower.core.types import Float64, Int64, Ragged
from twotower.evaluation.metrics import (
    NOTHING,
    Int32,
    Truth,
    coverage,
    findable_truth,
    hits,
    mean_popularity,
    ranking_metrics,
    true_ranks,
)
from twotower.evaluation.protocol import Certificate, Json, Setting, certify
from twotower.evaluation.scorers import Scorer
from twotower.evaluation.significance import Estimate, estimate
from twotower.evaluation.slices import Mask, slice_masks
from twotower.evaluation.ties import UInt64
from twotower.evaluation.topk import Candidates, Top, top_k


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is asked: the evaluated queries, in the scorer's row order, and the catalogue.

    Raises:
        ValueError: the parts don't fit each other.
    """

    truth: Ragged
    """Q rows: items of the part's pairs."""

    exclude: Ragged
    """Q rows: items the filter removes (train positives; at test validation's too)."""

    own_item: Int64
    """int64 ``(Q,)``: the query as an item, -1 where it is none."""

    full_counts: Int64
    """int64 ``(N,)``: pairs of every item in the full train part, before `data.fraction`."""

    tie_keys: UInt64
    """uint64 ``(N,)``: `ties.tie_keys` of the item ids."""

    groups: NDArray[Any] | None = None
    """``(Q,)``: the split's group of every query, where it was made by group."""

    def __post_init__(self) -> None:
        num_queries, num_items = len(self.own_item), len(self.tie_keys)
        sizes = {"truth": self.truth.num_rows, "exclude": self.exclude.num_rows}
        if self.groups is not None:
            sizes["groups"] = len(self.groups)
        for name, size in sizes.items():
            if size != num_queries:
                raise ValueError(f"{name} has {size} rows, own_item {num_queries}")
        if len(self.full_counts) != num_items:
            raise ValueError(f"full_counts has {len(self.full_counts)} rows, tie_keys {num_items}")
        for name, items, low in (
            ("truth", self.truth.values, 0),
            ("exclude", self.exclude.values, 0),
            ("own_item", self.own_item, -1),
        ):
            if len(items) and not (low <= items.min() and items.max() < num_items):
                raise ValueError(f"{name} has items outside [{low}, {num_items})")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One model (or baseline) on one part."""

    per_query: dict[str, Float64]
    """``recall@50``, ``tail_recall@50``, ``popularity@50``...: float64 ``(Q,)``, NaN where the
    query has no true item there."""

    summary: dict[str, Estimate]
    """Means of `per_query` with intervals, and ``coverage@K``, which has none."""

    counts: dict[str, int]
    """Sizes: of the task, its slices, and what was left out and why."""

    certificate: Certificate

    top: Int32
    """int32 ``(Q, K)``: what was recommended, best first, -1 after the last candidate."""

    ranks: Int32
    """int32 ``(P,)``: `metrics.true_ranks` of the findable true items; `accuracy` reads them."""

    def document(self) -> dict[str, Json]:
        """Summary, counts and certificate as JSON values."""
        summary: dict[str, Json] = {
            name: {key: of[key] for key in ("value", "low", "high", "n")}
            for name, of in self.summary.items()
        }
        return {
            "summary": summary,
            "counts": dict(self.counts),
            "certificate": self.certificate.document(),
        }


def evaluate(scorer: Scorer, task: Task, config: Eval, setting: Setting) -> Evaluation:
    """Rank the catalogue for every query and measure the lists.

    In a slice, truth is restricted to the slice's items while lists stay whole: other true items
    take up ranks there like any other item. Lists of queries without any findable true item are not
    counted, in popularity and coverage either.

    Raises:
        RunError: the scores are not finite.
    """
    return measure(recommend(scorer, task, config), task, config, setting)


def recommend(scorer: Scorer, task: Task, config: Eval) -> Top:
    """Rank the catalogue for every query of a task; the truth is not looked at.

    Queries don't touch each other, so tasks of some queries each (workers, say) give the same rows.

    Raises:
        RunError: the scores are not finite.
    """
    exclude = _filter(task, config)
    candidates = Candidates(task.own_item, exclude, task.tie_keys)
    return top_k(scorer, candidates, max(config.k), tile_mb=config.tile_mb)


def measure(top: Top, task: Task, config: Eval, setting: Setting) -> Evaluation:
    """Metrics of what was recommended for every query of a task; see `evaluate`."""
    num_items = len(task.tie_keys)
    truth, masks = findable(task, config)
    ranks_P = true_ranks(top.items, truth.items, num_items)

    per_query = accuracy(ranks_P, truth.items, masks, config.k)
    measured = truth.items.lengths() > 0
    for k in config.k:
        popularity = mean_popularity(top.items, task.full_counts, k)
        per_query[f"popularity@{k}"] = np.where(measured, popularity, np.nan)
    summary = {
        name: estimate(values, task.groups, config.confidence) for name, values in per_query.items()
    }
    num_measured = int(measured.sum())
    for k in config.k:
        share = coverage(top.items[measured], num_items, k) if num_measured else None
        summary[f"coverage@{k}"] = Estimate(value=share, low=None, high=None, n=num_measured)
    counts = _sizes(truth, masks, task)
    counts["lists_short"] = int((top.items[:, -1] == NOTHING).sum())
    counts["cut_offs_searched"] = top.searched
    return Evaluation(per_query, summary, counts, certify(setting, config), top.items, ranks_P)


def _filter(task: Task, config: Eval) -> Ragged:
    """What the filter removes of each query's candidates."""
    if config.filter_seen:
        return task.exclude
    no_items = np.zeros(task.exclude.num_rows, dtype=np.int64)
    return Ragged.from_lengths(no_items, no_items[:0])


def findable(task: Task, config: Eval) -> tuple[Truth, dict[str, Mask]]:
    """The true items that a list can hold, and the items of every slice."""
    num_items = len(task.tie_keys)
    truth = findable_truth(task.truth, _filter(task, config), task.own_item, num_items)
    return truth, slice_masks(task.full_counts, task.tie_keys, config.slices)


def accuracy(
    ranks_P: Int32, truth: Ragged, masks: Mapping[str, Mask], cut_offs: Sequence[int]
) -> dict[str, Float64]:
    """Every ranking metric, whole and by slice, at every cut-off.

    Args:
        ranks_P: int32 ``(P,)`` of `metrics.true_ranks`.
        truth: the same P items in Q rows, of `findable`.
        masks: slice -> bool ``(N,)``.
        cut_offs: rising.

    Returns:
        ``recall@50``, ``tail_recall@50``...: float64 ``(Q,)``, NaN where nothing is true.
    """
    rows_P = truth.row_ids()
    per_query: dict[str, Float64] = {}
    for name in ("", *masks):
        of_slice_P = masks[name][truth.values] if name else np.ones(len(rows_P), dtype=np.bool_)
        within = hits(np.where(of_slice_P, ranks_P, 0), truth, cut_offs[-1])
        num_true = np.bincount(rows_P[of_slice_P], minlength=truth.num_rows).astype(np.int64)
        prefix = f"{name}_" if name else ""
        for k in cut_offs:
            for metric, values in ranking_metrics(within, num_true, k).items():
                per_query[f"{prefix}{metric}@{k}"] = values
    return per_query


def _sizes(truth: Truth, masks: Mapping[str, Mask], task: Task) -> dict[str, int]:
    lengths = truth.items.lengths()
    counts = {
        "items": len(task.tie_keys),
        "queries": len(lengths),
        "queries_measured": int((lengths > 0).sum()),
        "truths": len(truth.items.values),
        "truths_filtered": truth.filtered,
        "truths_own_item": truth.own,
    }
    for name, mask in masks.items():
        counts[f"items_{name}"] = int(mask.sum())
        counts[f"truths_{name}"] = int(mask[truth.items.values].sum())
    return counts
