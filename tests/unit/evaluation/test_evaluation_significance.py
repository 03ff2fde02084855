"""Intervals and tests against SciPy, slow loops and simulation."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from twotower.core.errors import InputError
from twotower.core.types import Float64
from twotower.evaluation.significance import Comparison, Difference, estimate, holm, paired

NO_BOOTSTRAP = Comparison(resamples=0)


def recall_like(rng: np.random.Generator, shape: Any, hit_rate: float) -> Float64:
    """Values as Recall has them: mostly 0 or 1, some between, of the given mean."""
    whole = (rng.random(shape) < hit_rate).astype(np.float64)
    shared = rng.integers(0, 4, shape) == 0
    return np.where(shared, rng.binomial(3, hit_rate, shape) / 3, whole)


def compare_all(first: Float64, second: Float64, options: Comparison) -> list[Difference]:
    """One comparison a column: thousands of simulated ones in one call."""
    named = [{str(c): table[:, c] for c in range(table.shape[1])} for table in (first, second)]
    return list(paired(named[0], named[1], options).values())


def chunks(values: list[int], size: int) -> list[list[int]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def binomial_bounds(trials: int, rate: float) -> tuple[int, int]:
    """Counts that a right procedure leaves about once in a million."""
    bounds = stats.binom.interval(1 - 1e-6, trials, rate)
    return int(bounds[0]), int(bounds[1])


def test_interval_is_students() -> None:
    values = np.random.default_rng(0).random(37)
    values[[3, 20]] = np.nan
    known = values[~np.isnan(values)]
    found = estimate(values, confidence=0.9)
    low, high = stats.t.interval(0.9, len(known) - 1, known.mean(), stats.sem(known))
    assert found["value"] == pytest.approx(known.mean())
    assert (found["low"], found["high"]) == pytest.approx((low, high), rel=1e-9)
    assert found["n"] == 35


def test_interval_over_groups_equals_the_slow_sandwich() -> None:
    rng = np.random.default_rng(1)
    groups = rng.choice(["a", "b", "c", "d", "e"], 60)
    values = rng.random(60)
    values[:4] = np.nan
    kept = ~np.isnan(values)
    mean, n = values[kept].mean(), kept.sum()
    labels = sorted(set(groups[kept]))
    total = sum((values[kept & (groups == g)] - mean).sum() ** 2 for g in labels)
    error = np.sqrt(len(labels) / (len(labels) - 1) * total) / n
    half = stats.t.ppf(0.975, len(labels) - 1) * error
    found = estimate(values, groups)
    assert (found["low"], found["high"]) == pytest.approx((mean - half, mean + half), rel=1e-9)
    alone = estimate(values, np.arange(60))
    assert alone["low"] == pytest.approx(estimate(values)["low"])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], (None, None, None, 0)),
        ([np.nan], (None, None, None, 0)),
        ([0.5], (0.5, None, None, 1)),
        ([0.5, 0.5], (0.5, 0.5, 0.5, 2)),
    ],
)
def test_what_is_undefined_is_none(values: list[float], expected: tuple[Any, ...]) -> None:
    assert tuple(estimate(np.array(values)).values()) == expected


def test_one_group_has_no_interval() -> None:
    assert estimate(np.array([0.1, 0.2]), np.array(["x", "x"]))["low"] is None


def test_paired_difference_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(2)
    first, second = recall_like(rng, 200, 0.2), recall_like(rng, 200, 0.3)
    first[:7] = second[:7] = np.nan
    found = paired({"recall@10": first, "other": first}, {"recall@10": second}, NO_BOOTSTRAP)
    assert list(found) == ["recall@10"]
    difference = found["recall@10"]
    theirs = stats.ttest_rel(second[7:], first[7:])
    interval = theirs.confidence_interval(0.95)
    assert difference.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert (difference.low, difference.high) == pytest.approx((interval.low, interval.high))
    assert difference.first == pytest.approx(np.nanmean(first))
    assert difference.second == pytest.approx(np.nanmean(second))
    assert (difference.n, difference.df) == (193, 192)
    assert difference.boot_p is None


def test_equal_runs_differ_by_nothing() -> None:
    values = np.random.default_rng(3).random(50)
    difference = paired({"m": values}, {"m": values.copy()})["m"]
    assert (difference.mean, difference.low, difference.high) == (0, 0, 0)
    assert (difference.p, difference.boot_p) == (1, 1)


def test_runs_on_other_queries_are_refused() -> None:
    values = np.array([0.5, np.nan, 1.0])
    for other in (values[:2], np.array([0.5, 1.0, np.nan])):
        with pytest.raises(InputError, match="recall@10: the two runs were measured on different"):
            paired({"recall@10": values}, {"recall@10": other})


def test_what_cannot_be_compared_is_none() -> None:
    single = np.array([np.nan, 0.5])
    difference = paired({"m": single}, {"m": single + 0.25}, NO_BOOTSTRAP)["m"]
    assert (difference.mean, difference.low, difference.p) == (0.25, None, None)
    assert paired({"a": single}, {"b": single}) == {}
    constant = np.zeros(3)
    assert paired({"m": constant}, {"m": constant + 1}, NO_BOOTSTRAP)["m"].p == 0
    with pytest.raises(ValueError, match="groups has 3 rows for 2 queries"):
        estimate(single, constant)


@pytest.mark.parametrize("groups", [None, np.array([0, 0, 1, 2, 2, 2, 3, 4])])
def test_bootstrap_equals_a_slow_one_on_the_same_draws(groups: NDArray[Any] | None) -> None:
    rng = np.random.default_rng(4)
    first, second = rng.random(8), rng.random(8)
    first[5] = second[5] = np.nan
    options = Comparison(resamples=99, seed=5, groups=groups, confidence=0.8)
    found = paired({"m": first}, {"m": second}, options)["m"]

    units = [[q] for q in range(8)] if groups is None else [[0, 1], [2], [3, 4, 5], [6], [7]]
    size = 99 * len(units)
    words = np.random.Philox(key=5).random_raw((size + 1) // 2)
    halves = [w for word in words.tolist() for w in (word & 0xFFFFFFFF, word >> 32)]
    draws = [half * len(units) >> 32 for half in halves[:size]]
    means = []
    for chunk in chunks(draws, len(units)):
        taken = [second[q] - first[q] for unit in chunk for q in units[unit] if q != 5]
        means.append(sum(taken) / len(taken))
    assert (found.boot_low, found.boot_high) == pytest.approx(np.quantile(means, [0.1, 0.9]))
    beyond = min(sum(m <= 0 for m in means), sum(m >= 0 for m in means))
    assert found.boot_p == pytest.approx(min(1, 2 * (1 + beyond) / 100))


def test_bootstrap_is_the_same_for_the_same_key_and_in_any_number_of_pieces() -> None:
    rng = np.random.default_rng(5)
    first, second = {"m": rng.random(2000)}, {"m": rng.random(2000)}
    whole = paired(first, second, Comparison(resamples=2000))["m"]
    assert paired(first, second, Comparison(resamples=2000))["m"] == whole
    assert paired(first, second, Comparison(resamples=2000, seed=1))["m"] != whole
    assert whole.low is not None
    assert whole.boot_low == pytest.approx(whole.low, abs=1e-3)


def test_intervals_cover_the_true_difference() -> None:
    """2,000 simulated pairs of runs over 300 queries with a true difference of 0.05."""
    rng = np.random.default_rng(6)
    first = recall_like(rng, (300, 2000), 0.20)
    second = recall_like(rng, (300, 2000), 0.25)
    found = compare_all(first, second, Comparison(resamples=500))
    student = sum(d.low < 0.05 < d.high for d in found if d.low is not None and d.high is not None)
    boot = sum(
        d.boot_low < 0.05 < d.boot_high
        for d in found
        if d.boot_low is not None and d.boot_high is not None
    )
    low, high = binomial_bounds(2000, 0.95)
    assert low <= student <= high
    assert 0.93 * 2000 <= boot <= 0.97 * 2000


def test_runs_that_do_not_differ_are_called_so_at_the_nominal_rate() -> None:
    rng = np.random.default_rng(7)
    runs = [recall_like(rng, (300, 2000), 0.2) for _ in range(2)]
    found = compare_all(runs[0], runs[1], NO_BOOTSTRAP)
    significant = sum(d.p < 0.05 for d in found if d.p is not None)
    low, high = binomial_bounds(2000, 0.05)
    assert low <= significant <= high


def test_a_lift_is_found_with_the_power_that_theory_gives() -> None:
    rng = np.random.default_rng(8)
    noise = rng.normal(0, 0.5, (300, 2000))
    found = compare_all(np.zeros((300, 2000)), noise + 0.08, NO_BOOTSTRAP)
    shift, critical = 0.08 / (0.5 / np.sqrt(300)), stats.t.ppf(0.975, 299)
    power = stats.nct.sf(critical, 299, shift) + stats.nct.cdf(-critical, 299, shift)
    low, high = binomial_bounds(2000, float(power))
    assert low <= sum(d.p < 0.05 for d in found if d.p is not None) <= high


def test_grouped_queries_need_grouped_intervals() -> None:
    """40 groups of 20 queries that share half of their variance: single queries claim too much."""
    rng = np.random.default_rng(9)
    groups = np.repeat(np.arange(40), 20)
    values = rng.normal(size=(40, 600))[groups] + rng.normal(size=(800, 600))
    zeros = np.zeros_like(values)
    grouped = compare_all(zeros, values, Comparison(resamples=0, groups=groups))
    single = compare_all(zeros, values, NO_BOOTSTRAP)
    low, high = binomial_bounds(600, 0.05)
    assert low <= sum(d.p < 0.05 for d in grouped if d.p is not None) <= high
    assert sum(d.p < 0.05 for d in single if d.p is not None) > 0.4 * 600


def test_holm_equals_the_step_down_written_out() -> None:
    p_values = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005, "e": 0.9}
    expected = {"d": 5 * 0.005, "a": 4 * 0.01, "c": 3 * 0.03, "b": 3 * 0.03, "e": 0.9}
    assert holm(p_values) == pytest.approx(expected)
    assert list(holm(p_values)) == list(p_values)
    assert holm({"x": 0.7, "y": 0.8}) == {"x": 1.0, "y": 1.0}
    assert holm({}) == {}


def test_holm_keeps_the_chance_of_any_false_finding() -> None:
    p_values = np.random.default_rng(10).random((2000, 6))
    false = sum(
        min(holm({str(i): float(p) for i, p in enumerate(row)}).values()) < 0.05 for row in p_values
    )
    assert false <= binomial_bounds(2000, 0.05)[1]
