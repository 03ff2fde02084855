"""How sure a mean over queries is, and whether two runs differ.

Queries are the sample: what is said holds for queries like these, for these trained models; the
spread over training seeds is not in it. Queries of one group (a split by group) count as one draw.

Shape letters:
    Q queries    M metrics    U units drawn (queries or groups)    R resamples
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from twotower.core.errors import InputError
from twotower.core.types import Float64, Int64
from twotower.evaluation import student

_DRAWS_AT_ONCE = 2**21
"""Bootstrap draws held in memory, about 50 MiB with their counts: chosen, not tuned."""


class Estimate(TypedDict):
    """A mean over queries with its interval; None where it is undefined (JSON knows no NaN)."""

    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How two runs are compared."""

    confidence: float = 0.95
    """Of both intervals, in (0, 1)."""

    resamples: int = 10_000
    """Bootstrap resamples; 0 leaves the bootstrap out."""

    seed: int = 0
    """Key of the bootstrap's draws."""

    groups: NDArray[Any] | None = None
    """``(Q,)`` labels; queries with one label are drawn together. None: each on its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Second run less first, over the queries both were measured on; None where undefined."""

    first: float | None
    second: float | None
    mean: float | None
    low: float | None
    high: float | None
    p: float | None
    """Two-sided, Student's t: of a difference this large if there were none."""

    df: float
    n: int
    boot_low: float | None
    """Percentile bootstrap."""

    boot_high: float | None
    boot_p: float | None
    """Two-sided: twice the smaller share of resamples on one side of 0, (1 + count) / (1 + R)."""


@dataclass(frozen=True, slots=True)
class _Mean:
    value: float
    error: float
    df: float
    n: int


def estimate(
    values: Float64, groups: NDArray[Any] | None = None, confidence: float = 0.95
) -> Estimate:
    """Mean over queries with Student's interval, not cut at 0 or 1.

    Args:
        values: float64 ``(Q,)``; NaN leaves a query out.
        groups: ``(Q,)`` labels; see `Comparison.groups`.
        confidence: in (0, 1).
    """
    mean = _mean(values, _units(groups, len(values)))
    low, high = _interval(mean, confidence)
    return Estimate(value=_number(mean.value), low=low, high=high, n=mean.n)


def paired(
    first: Mapping[str, Float64], second: Mapping[str, Float64], options: Comparison | None = None
) -> dict[str, Difference]:
    """Differences ``second - first`` of the metrics both have, query by query.

    Args:
        first: metric -> float64 ``(Q,)``, NaN where the query was not measured.
        second: the same of the other run, queries in the same order.
        options: see `Comparison`.

    Raises:
        InputError: the runs were measured on different queries.
    """
    options = options or Comparison()
    differences = {
        name: _difference(name, values, second[name])
        for name, values in first.items()
        if name in second
    }
    if not differences:
        return {}
    table_QM = np.stack(list(differences.values()), axis=1)
    units_Q = _units(options.groups, len(table_QM))
    boot_RM = _bootstrap(table_QM, units_Q, options)
    results: dict[str, Difference] = {}
    for column, (name, values) in enumerate(differences.items()):
        mean = _mean(values, units_Q)
        low, high = _interval(mean, options.confidence)
        boot_low, boot_high, boot_p = _percentiles(boot_RM[:, column], options.confidence)
        results[name] = Difference(
            first=_number(_mean(first[name], units_Q).value),
            second=_number(_mean(second[name], units_Q).value),
            mean=_number(mean.value),
            low=low,
            high=high,
            p=_p_value(mean),
            df=mean.df,
            n=mean.n,
            boot_low=boot_low,
            boot_high=boot_high,
            boot_p=boot_p,
        )
    return results


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values (Scandinavian Journal of Statistics 6, 1979), by name.

    Below alpha means significant with the chance of any false finding in the family at most alpha.
    """
    adjusted: dict[str, float] = {}
    worst = 0.0
    ordered = sorted(p_values.items(), key=lambda pair: pair[1])
    for place, (name, p) in enumerate(ordered):
        worst = max(worst, min(1.0, (len(ordered) - place) * p))
        adjusted[name] = worst
    return {name: adjusted[name] for name in p_values}


def _difference(name: str, first: Float64, second: Float64) -> Float64:
    if len(first) != len(second) or (np.isnan(first) != np.isnan(second)).any():
        raise InputError(
            f"{name}: the two runs were measured on different queries "
            f"({np.count_nonzero(~np.isnan(first))} and {np.count_nonzero(~np.isnan(second))}); "
            "evaluate both on the same part of the same split"
        )
    return second - first


def _units(groups: NDArray[Any] | None, num_queries: int) -> Int64:
    """Number of the unit each query belongs to."""
    if groups is None:
        return np.arange(num_queries, dtype=np.int64)
    if len(groups) != num_queries:
        raise ValueError(f"groups has {len(groups)} rows for {num_queries} queries")
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def _mean(values: Float64, units: Int64) -> _Mean:
    """Mean and its standard error: of the mean of single queries, cluster-robust for groups.

    error^2 = G / (G - 1) sum_g (sum of g - mean * size of g)^2 / n^2, G - 1 degrees of freedom;
    with one query a group it is the textbook s^2 / n.
    """
    kept = ~np.isnan(values)
    values, units = values[kept], units[kept]
    n = len(values)
    if not n:
        return _Mean(np.nan, np.nan, 0, 0)
    sizes = np.bincount(units)
    num_units = int(np.count_nonzero(sizes))
    value = float(values.mean())
    if num_units < 2:
        return _Mean(value, np.nan, 0, n)
    residuals = np.bincount(units, values - value)
    square = float((residuals**2).sum()) * num_units / (num_units - 1) / n**2
    return _Mean(value, square**0.5, num_units - 1, n)


def _interval(mean: _Mean, confidence: float) -> tuple[float | None, float | None]:
    if mean.df < 1:
        return None, None
    half = student.quantile(confidence, mean.df) * mean.error
    return mean.value - half, mean.value + half


def _p_value(mean: _Mean) -> float | None:
    if mean.df < 1:
        return None
    if mean.error == 0:
        return 1.0 if mean.value == 0 else 0.0
    return student.two_sided_p(mean.value / mean.error, mean.df)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _bootstrap(table_QM: Float64, units_Q: Int64, options: Comparison) -> Float64:
    """Means of resampled queries (or groups), float64 ``(R, M)``; NaN where none was drawn.

    All metrics share the draws. A resample is a count for every unit, so its means are two matrix
    products: of sums and of sizes.
    """
    present_QM = ~np.isnan(table_QM)
    num_units = int(units_Q.max()) + 1 if len(units_Q) else 0
    if not num_units or not options.resamples:
        return np.empty((0, table_QM.shape[1]))
    sums_UM = np.zeros((num_units, table_QM.shape[1]))
    sizes_UM = np.zeros_like(sums_UM)
    np.add.at(sums_UM, units_Q, np.where(present_QM, table_QM, 0))
    np.add.at(sizes_UM, units_Q, present_QM)
    means: list[Float64] = []
    for counts_RU in _resample_counts(num_units, options):
        drawn = counts_RU @ sizes_UM
        means.append((counts_RU @ sums_UM) / np.where(drawn > 0, drawn, np.nan))
    return np.concatenate(means)


def _resample_counts(num_units: int, options: Comparison) -> Iterator[Float64]:
    """How often each unit is drawn in each resample, float64 ``(some R, U)``.

    Raw 32-bit words of Philox (whose stream NumPy keeps for ever) scaled to [0, U): the bias of at
    most U / 2^32 is far below the bootstrap's own error.
    """
    words = np.random.Philox(key=options.seed)
    step = max(1, _DRAWS_AT_ONCE // num_units)
    for start in range(0, options.resamples, step):
        rows = min(step, options.resamples - start)
        size = rows * num_units
        raw = words.random_raw((size + 1) // 2).view(np.uint32)[:size].astype(np.uint64)
        drawn = ((raw * np.uint64(num_units)) >> np.uint64(32)).astype(np.int64)
        drawn += np.repeat(np.arange(rows, dtype=np.int64) * num_units, num_units)
        counts = np.bincount(drawn, minlength=size).reshape(rows, num_units)
        yield counts.astype(np.float64)


def _percentiles(
    means_R: Float64, confidence: float
) -> tuple[float | None, float | None, float | None]:
    """Percentile interval and two-sided p-value of resampled means."""
    means_R = means_R[~np.isnan(means_R)]
    if not len(means_R):
        return None, None, None
    low, high = np.quantile(means_R, [(1 - confidence) / 2, (1 + confidence) / 2])
    beyond = min(np.count_nonzero(means_R <= 0), np.count_nonzero(means_R >= 0))
    return float(low), float(high), min(1.0, 2 * (1 + beyond) / (1 + len(means_R)))
