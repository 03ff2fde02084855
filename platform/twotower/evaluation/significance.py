"""How sure a mean over queries is, and whether two runs differ.

Queries are the sample: what is said holds for queries like these, for these trained models; the
spread over training seeds is not in it (`two_way` has both). Queries of one group (a split by
group) count as one draw.

Shape letters:
    Q queries    R resamples
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from twotower.core.errors import InputError
from twotower.core.types import Float64, Int64
from twotower.evaluation import student
from twotower.evaluation.resampling import add_up, bootstrap, percentiles, unit_numbers

Name = TypeVar("Name", bound=Hashable)


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
class Mean:
    """A mean with what Student's t needs to judge it."""

    value: float
    error: float
    """Standard error."""

    df: float
    """Degrees of freedom; below 1 the mean has no interval."""

    n: int
    """Queries."""


def estimate(
    values: Float64, groups: NDArray[Any] | None = None, confidence: float = 0.95
) -> Estimate:
    """Mean over queries with Student's interval, not cut at 0 or 1.

    Args:
        values: float64 ``(Q,)``; NaN leaves a query out.
        groups: ``(Q,)`` labels; see `Comparison.groups`.
        confidence: in (0, 1).
    """
    mean = _mean(values, unit_numbers(groups, len(values)))
    low, high = interval(mean, confidence)
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
    units_Q = unit_numbers(options.groups, len(next(iter(differences.values()))))
    tables = [add_up(values[None], units_Q) for values in differences.values()]
    boot_RM = bootstrap(tables, options.resamples, options.seed)
    results: dict[str, Difference] = {}
    for column, (name, values) in enumerate(differences.items()):
        mean = _mean(values, units_Q)
        low, high = interval(mean, options.confidence)
        boot_low, boot_high, boot_p = percentiles(boot_RM[:, column], options.confidence)
        results[name] = Difference(
            first=_number(_mean(first[name], units_Q).value),
            second=_number(_mean(second[name], units_Q).value),
            mean=_number(mean.value),
            low=low,
            high=high,
            p=p_value(mean),
            df=mean.df,
            n=mean.n,
            boot_low=boot_low,
            boot_high=boot_high,
            boot_p=boot_p,
        )
    return results


def holm(p_values: Mapping[Name, float]) -> dict[Name, float]:
    """Holm's adjusted p-values (Scandinavian Journal of Statistics 6, 1979), by name.

    Below alpha means significant with the chance of any false finding in the family at most alpha.
    """
    adjusted: dict[Name, float] = {}
    worst = 0.0
    ordered = sorted(p_values.items(), key=lambda pair: pair[1])
    for place, (name, p) in enumerate(ordered):
        worst = max(worst, min(1.0, (len(ordered) - place) * p))
        adjusted[name] = worst
    return {name: adjusted[name] for name in p_values}


def interval(mean: Mean, confidence: float) -> tuple[float | None, float | None]:
    """Student's interval of a mean; None where it has none."""
    if mean.df < 1:
        return None, None
    half = student.quantile(confidence, mean.df) * mean.error
    return mean.value - half, mean.value + half


def p_value(mean: Mean) -> float | None:
    """Two-sided p-value of a mean against 0; None where it has none."""
    if mean.df < 1:
        return None
    if mean.error == 0:
        return 1.0 if mean.value == 0 else 0.0
    return student.two_sided_p(mean.value / mean.error, mean.df)


def _difference(name: str, first: Float64, second: Float64) -> Float64:
    if len(first) != len(second) or (np.isnan(first) != np.isnan(second)).any():
        raise InputError(
            f"{name}: the two runs were measured on different queries "
            f"({np.count_nonzero(~np.isnan(first))} and {np.count_nonzero(~np.isnan(second))}); "
            "evaluate both on the same part of the same split"
        )
    return second - first


def _mean(values: Float64, units: Int64) -> Mean:
    """Mean and its standard error: of the mean of single queries, cluster-robust for groups.

    error^2 = G / (G - 1) sum_g (sum of g - mean * size of g)^2 / n^2, G - 1 degrees of freedom;
    with one query a group it is the textbook s^2 / n.
    """
    kept = ~np.isnan(values)
    values, units = values[kept], units[kept]
    n = len(values)
    if not n:
        return Mean(np.nan, np.nan, 0, 0)
    sizes = np.bincount(units)
    num_units = int(np.count_nonzero(sizes))
    value = float(values.mean())
    if num_units < 2:
        return Mean(value, np.nan, 0, n)
    residuals = np.bincount(units, values - value)
    square = float((residuals**2).sum()) * num_units / (num_units - 1) / n**2
    return Mean(value, square**0.5, num_units - 1, n)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
