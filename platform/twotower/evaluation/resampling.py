"""What is drawn when queries are a sample, and the bootstrap over them and over training seeds.

Shape letters:
    S seeds    Q queries    U units drawn (queries or groups)    R resamples    M tables
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twotower.core.types import Float64, Int64

_DRAWS_AT_ONCE = 2**21
"""Bootstrap draws held in memory, about 50 MiB with their counts: chosen, not tuned."""

_SEED_STREAM = 1 << 64
"""Seeds are drawn from a stream of their own (the second word of Philox's key), so that units are
drawn the same however many seeds there are."""


@dataclass(frozen=True, slots=True)
class Sums:
    """A metric added up by unit: all that means and their errors need."""

    values: Float64
    """float64 ``(..., S, U)``."""

    sizes: Float64
    """float64 ``(U,)``: measured queries of each unit."""


def unit_numbers(groups: NDArray[Any] | None, num_queries: int) -> Int64:
    """Number of the unit each query belongs to: its group's, or its own where there are none.

    Raises:
        ValueError: there are not as many labels as queries.
    """
    if groups is None:
        return np.arange(num_queries, dtype=np.int64)
    if len(groups) != num_queries:
        raise ValueError(f"groups has {len(groups)} rows for {num_queries} queries")
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def add_up(values_SQ: Float64, units_Q: Int64) -> Sums:
    """Sums of every unit. NaN leaves a query out; it must stand in the same columns for all seeds.

    Args:
        values_SQ: float64 ``(S, Q)``, S >= 1.
        units_Q: int64 ``(Q,)`` of `unit_numbers`.
    """
    present_Q = ~np.isnan(values_SQ[0])
    num_units = int(units_Q.max()) + 1 if len(units_Q) else 0
    known_SQ = np.where(present_Q, values_SQ, 0.0)
    sums = [
        np.bincount(units_Q, weights=row, minlength=num_units)
        for row in (*known_SQ, present_Q.astype(np.float64))
    ]
    table_XU = np.stack(sums).astype(np.float64, copy=False)
    return Sums(table_XU[:-1], table_XU[-1])


def bootstrap(tables: Sequence[Sums], resamples: int, seed: int) -> Float64:
    """Means of resampled units and, where a table has several, seeds; NaN where none was drawn.

    All tables share the draws, so they must have the same units. A resample is a count for every
    unit and one for every seed (Owen's pigeonhole bootstrap, arXiv 0712.1111): its means are one
    matrix product of sums and of sizes.

    Args:
        tables: sums of each metric.
        resamples: how many.
        seed: key of the draws.

    Returns:
        float64 ``(R, M)``; without units no rows.
    """
    num_units = len(tables[0].sizes) if tables else 0
    if not num_units or not resamples:
        return np.empty((0, len(tables)))
    columns_UX = np.concatenate([np.vstack([t.values, t.sizes]) for t in tables]).T
    seeds = {len(t.values): _seed_counts(len(t.values), resamples, seed) for t in tables}
    means_RM = np.empty((resamples, len(tables)))
    done = 0
    for counts_RU in _unit_counts(num_units, resamples, seed):
        rows = slice(done, done + len(counts_RU))
        drawn_RX = counts_RU @ columns_UX
        start = 0
        for column, table in enumerate(tables):
            num_seeds = len(table.values)
            sums_RS = drawn_RX[:, start : start + num_seeds]
            sizes_R = drawn_RX[:, start + num_seeds] * num_seeds
            total_R = (sums_RS * seeds[num_seeds][rows]).sum(axis=1)
            means_RM[rows, column] = total_R / np.where(sizes_R > 0, sizes_R, np.nan)
            start += num_seeds + 1
        done = rows.stop
    return means_RM


def percentiles(
    means_R: Float64, confidence: float
) -> tuple[float | None, float | None, float | None]:
    """Percentile interval and two-sided p-value of resampled means; None without any."""
    means_R = means_R[~np.isnan(means_R)]
    if not len(means_R):
        return None, None, None
    low, high = np.quantile(means_R, [(1 - confidence) / 2, (1 + confidence) / 2])
    beyond = min(np.count_nonzero(means_R <= 0), np.count_nonzero(means_R >= 0))
    return float(low), float(high), min(1.0, 2 * (1 + beyond) / (1 + len(means_R)))


def _seed_counts(num_seeds: int, resamples: int, seed: int) -> Float64:
    """How often each seed is drawn in each resample, float64 ``(R, S)``; a lone one once."""
    if num_seeds == 1:
        return np.ones((resamples, 1))
    return np.concatenate(list(_unit_counts(num_seeds, resamples, seed + _SEED_STREAM)))


def _unit_counts(num_units: int, resamples: int, key: int) -> Iterator[Float64]:
    """How often each unit is drawn in each resample, float64 ``(some R, U)``.

    Raw 32-bit words of Philox (whose stream NumPy keeps for ever) scaled to [0, U): the bias of at
    most U / 2^32 is far below the bootstrap's own error.
    """
    words = np.random.Philox(key=key)
    step = max(1, _DRAWS_AT_ONCE // num_units)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        size = rows * num_units
        raw = words.random_raw((size + 1) // 2).view(np.uint32)[:size].astype(np.uint64)
        drawn = ((raw * np.uint64(num_units)) >> np.uint64(32)).astype(np.int64)
        drawn += np.repeat(np.arange(rows, dtype=np.int64) * num_units, num_units)
        counts = np.bincount(drawn, minlength=size).reshape(rows, num_units)
        yield counts.astype(np.float64)
