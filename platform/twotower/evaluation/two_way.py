"""How sure a mean over training seeds and queries is: both are samples, drawn across each other.

What is said holds for other seeds and for queries like these, on this dataset and its one split.
An interval of 95 % covers 94.1 to 97.0 % with five seeds (computed for many units, over all shares
of seeds, queries and interaction), 92.2 to 96.8 % with three. With two it covers as little as 86 %
where seeds are most of the variance: two seeds are for trying things out.

p-values have Satterthwaite's degrees always (`Variance.satterthwaite`), which costs power where
seeds matter little. Far out they still lean on a variance of few seeds: with five, a p of 0.0005 is
right or too large where seeds are up to a third of the variance, twice too small at a half, six
times at nine tenths; with three, 1.4, 4 and 23 times.

Shape letters:
    S seeds    Q queries    R resamples
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twotower.core.errors import InputError
from twotower.core.types import Float64, Int64
from twotower.evaluation import student
from twotower.evaluation.resampling import Sums, add_up, bootstrap, percentiles, unit_numbers
from twotower.evaluation.significance import Comparison, Mean, Name, interval, p_value
from twotower.evaluation.variance import Variance, split


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A mean over seeds and queries: of one method's metric, or of what two methods differ by."""

    mean: float
    """NaN where no query was measured."""

    error: float
    """Standard error; NaN with fewer than two units."""

    low: float | None
    high: float | None
    p: float | None
    """Two-sided, Student's t: of a mean this far from 0 if there were none."""

    df: float
    """Degrees of freedom of the interval (`Variance.df`); 0 where there is none."""

    p_df: float
    """Of the p-value (`Variance.satterthwaite`), no more than `df`."""

    seeds: int
    """With one, the spread over seeds is in none of these numbers."""

    queries: int
    """Measured ones."""

    units: int
    """Queries or groups that were drawn."""

    seed_variance: float
    """Variance of the seeds' means over their number; see `variance.Variance`."""

    query_variance: float
    rest_variance: float
    boot_low: float | None
    """Percentile bootstrap over seeds and units at once. It counts the interaction up to three
    times and the seeds (S - 1) / S times, and knows no Student: a look from another side where
    queries matter most, not a judge."""

    boot_high: float | None

    @property
    def half_width(self) -> float | None:
        """Half of the interval's width."""
        if self.low is None or self.high is None:
            return None
        return (self.high - self.low) / 2


def effect(
    values_SQ: Float64, groups: NDArray[Any] | None = None, options: Comparison | None = None
) -> Effect:
    """One mean over seeds and queries with its interval; see `effects`.

    Args:
        values_SQ: float64 ``(S, Q)``, NaN in the columns of queries that were not measured.
        groups: ``(Q,)`` labels; None takes those of the options.
        options: see `Comparison`.
    """
    options = options or Comparison()
    options = options if groups is None else replace(options, groups=groups)
    return effects({"": values_SQ}, options)[""]


def effects(
    tables: Mapping[Name, Float64], options: Comparison | None = None
) -> dict[Name, Effect]:
    """Means over seeds and queries with their intervals, Student's with Satterthwaite's degrees.

    The tables share the bootstrap's draws of units, which are most of its cost, so give all that
    were measured on the same queries in one call.

    Args:
        tables: float64 ``(S, Q)`` each, S may differ; NaN leaves a query out, for all seeds. Of two
            methods give the differences, row by row: any pairing of the two's seeds will do.
        options: see `Comparison`.

    Raises:
        InputError: seeds of one table were measured on different queries.
        ValueError: a table is not ``(S, Q)`` with the other tables' Q, or groups are not Q labels.
    """
    if not tables:
        return {}
    options = options or Comparison()
    num_queries = next(iter(tables.values())).shape[-1]
    units_Q = unit_numbers(options.groups, num_queries)
    sums = [_sums(name, values_SQ, units_Q) for name, values_SQ in tables.items()]
    boot_RM = bootstrap(sums, options.resamples, options.seed)
    return {
        name: _effect(sums[column], boot_RM[:, column], options.confidence)
        for column, name in enumerate(tables)
    }


def seeds_needed(effect: Effect, half_width: float, confidence: float = 0.95) -> int | None:
    """Fewest seeds whose interval would, on the estimated variances, be that narrow.

    Args:
        effect: of two or more seeds.
        half_width: of the interval, at most.
        confidence: of the interval.

    Returns:
        None where no number of seeds is enough, because the queries alone are too few, and for an
        effect of one seed or one unit, which doesn't tell.
    """
    if effect.seeds < 2 or effect.units < 2:
        return None
    parts = Variance(
        effect.seed_variance,
        effect.query_variance,
        effect.rest_variance,
        effect.seeds,
        effect.units,
    )
    endless = max(0.0, effect.query_variance - effect.rest_variance)
    if half_width <= student.quantile(confidence, effect.units - 1) * endless**0.5:
        return None
    enough = 2
    while _half_width(parts.at(enough), confidence) > half_width:
        enough *= 2
    few = enough // 2
    while enough - few > 1:
        middle = (few + enough) // 2
        if _half_width(parts.at(middle), confidence) > half_width:
            few = middle
        else:
            enough = middle
    return enough


def _sums(name: Hashable, values_SQ: Float64, units_Q: Int64) -> Sums:
    if values_SQ.ndim != 2 or not len(values_SQ) or values_SQ.shape[1] != len(units_Q):
        raise ValueError(
            f"{name or 'values'}: must be (seeds, {len(units_Q)} queries), is {values_SQ.shape}"
        )
    absent_SQ = np.isnan(values_SQ)
    if (absent_SQ != absent_SQ[0]).any():
        counts = sorted({int(count) for count in (~absent_SQ).sum(axis=1)})
        raise InputError(
            f"{name or 'values'}: seeds were measured on different queries "
            f"({', '.join(map(str, counts))} of {len(units_Q)}); "
            "evaluate all on the same part of the same split"
        )
    return add_up(values_SQ, units_Q)


def _effect(sums: Sums, boot_R: Float64, confidence: float) -> Effect:
    queries, units = int(sums.sizes.sum()), int(np.count_nonzero(sums.sizes))
    num_seeds = len(sums.values)
    if units < 2:
        value = float(sums.values.sum()) / (queries * num_seeds) if queries else np.nan
        mean, parts = Mean(value, np.nan, 0, queries), None
    else:
        value, parts = split(sums)
        mean = Mean(float(value), float(parts.total()) ** 0.5, float(parts.df()), queries)
    p_df = min(mean.df, float(parts.satterthwaite())) if parts else mean.df
    low, high = interval(mean, confidence)
    boot_low, boot_high, _ = percentiles(boot_R, confidence)
    return Effect(
        mean=mean.value,
        error=mean.error,
        low=low,
        high=high,
        p=p_value(replace(mean, df=p_df)),
        df=mean.df,
        p_df=p_df,
        seeds=num_seeds,
        queries=queries,
        units=units,
        seed_variance=float(parts.seed) if parts else np.nan,
        query_variance=float(parts.query) if parts else np.nan,
        rest_variance=float(parts.rest) if parts else np.nan,
        boot_low=boot_low,
        boot_high=boot_high,
    )


def _half_width(parts: Variance, confidence: float) -> float:
    return student.quantile(confidence, float(parts.df())) * float(parts.total()) ** 0.5
