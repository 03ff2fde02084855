"""Mutual information of the item features over the catalogue.

Every item has unit mass. A multi-valued feature spreads it evenly over the item's values, an empty
one is a value of its own, a dense one counts in ten quantile bins (and one of missing numbers).
``I(X, Y) = sum p(x, y) log(p(x, y) / (p(x) p(y)))`` in nats (arXiv 2007.12865, sec. 3.3.1).

Shape letters:
    N items    k features    C combinations of two features' values, item by item
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from twotower.core.types import Float32, Float64, Int64, Ragged

_BINS = 10
_MOST_COMBINATIONS = 1 << 21
"""Combinations in memory at a time. A constant: sums of floats must not depend on the machine."""


@dataclass(frozen=True, slots=True)
class Information:
    """Entropies and mutual information of k features."""

    entropy: Float64
    """float64 ``(k,)``, nats."""
    raw: Float64
    """float64 ``(k, k)``, nats; the diagonal is the information of a feature with itself."""
    normalised: Float64
    """float64 ``(k, k)`` in [0, 1]: corrected information over the smaller corrected entropy."""


def mutual_information(features: Sequence[Ragged]) -> Information:
    """Information of every pair of features.

    Args:
        features: values of each feature as codes >= 0, N rows, at least one value a row.

    Entropies are corrected for the small sample as H + (values - 1) / 2N (Miller, Madow 1955), with
    the values of a pair of features those combinations that occur.
    """
    num, items = len(features), features[0].num_rows
    entropy, corrected = np.zeros(num), np.zeros(num)
    for i, feature in enumerate(features):
        entropy[i], corrected[i] = _entropy(_masses(feature, None), items)
    raw, fair = np.diag(entropy), np.diag(corrected)
    for i in range(num):
        for j in range(i):
            joint, joint_corrected = _entropy(_masses(features[i], features[j]), items)
            raw[i, j] = raw[j, i] = max(entropy[i] + entropy[j] - joint, 0.0)
            fair[i, j] = fair[j, i] = corrected[i] + corrected[j] - joint_corrected
    smaller = np.minimum(corrected[:, None], corrected[None, :])
    normalised = np.divide(fair, smaller, out=np.zeros_like(fair), where=smaller > 0)
    return Information(entropy, raw, np.clip(normalised, 0.0, 1.0))


def codes_of_ids(ids: Ragged) -> Ragged:
    """Ids as codes with a value of its own for an empty row."""
    lengths = ids.lengths()
    filled = Ragged.from_lengths(np.maximum(lengths, 1), ids.values[:0])
    codes = np.zeros(int(filled.offsets[-1]), dtype=np.int64)  # id 0 stands for the empty row
    place = filled.offsets[:-1].repeat(lengths) + np.arange(len(ids.values))
    place -= ids.offsets[:-1].repeat(lengths)
    codes[place] = ids.values
    return Ragged(filled.offsets, codes)


def codes_of_numbers(numbers: Float32) -> Ragged:
    """Numbers in quantile bins 1..10, missing (NaN) as 0."""
    present = ~np.isnan(numbers)
    codes = np.zeros(len(numbers), dtype=np.int64)
    if present.any():
        edges = np.quantile(numbers[present].astype(np.float64), np.arange(1, _BINS) / _BINS)
        codes[present] = 1 + np.searchsorted(edges, numbers[present], side="left")
    return Ragged(np.arange(len(numbers) + 1, dtype=np.int64), codes)


def _masses(left: Ragged, right: Ragged | None) -> Float64:
    """Mass of each value of a feature that occurs, or of each combination of two features."""
    widths = left.lengths() if right is None else left.lengths() * right.lengths()
    ends = np.cumsum(widths)
    keys: Int64 = np.empty(0, dtype=np.int64)
    masses: Any = np.empty(0)
    start = 0
    while start < len(ends):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _MOST_COMBINATIONS, "right")))
        new_keys, new_masses = _combine(left, right, np.arange(start, stop))
        keys, place = np.unique(np.concatenate([keys, new_keys]), return_inverse=True)
        masses = np.bincount(place, np.concatenate([masses, new_masses]), minlength=len(keys))
        start = stop
    return masses


def _combine(left: Ragged, right: Ragged | None, rows: Int64) -> tuple[Int64, Float64]:
    """Keys and masses of all combinations of values, item by item: ``(C,)`` each."""
    first = left.take(rows)
    lengths = first.lengths()
    if right is None:
        return first.values.astype(np.int64), np.repeat(1.0 / lengths, lengths)
    second = right.take(rows)
    widths = second.lengths()
    # Each value of the left feature meets the whole row of the right one.
    by_value = second.take(np.repeat(np.arange(len(rows)), lengths))
    span = int(right.values.max()) + 1
    keys = np.repeat(first.values.astype(np.int64), by_value.lengths()) * span + by_value.values
    return keys, np.repeat(1.0 / (lengths * widths), lengths * widths)


def _entropy(masses: Float64, items: int) -> tuple[float, float]:
    """Entropy in nats, and with the Miller-Madow correction."""
    shares = masses / items
    entropy = float(-(shares * np.log(shares)).sum())
    return entropy, entropy + (len(masses) - 1) / (2 * items)
